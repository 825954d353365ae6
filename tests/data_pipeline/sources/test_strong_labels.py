"""Tables of events, and which clips they are of."""

import re

import pytest

from data_pipeline.sources.strong_labels import match_clips, read_strong_labels
from sat_jax.errors import SatError
from sat_jax.labels import Event, audioset_labels, default_label_names

NAMES = default_label_names(527)
AUDIOSET = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
DESED = "filename\tonset\toffset\tevent_label\n"


@pytest.fixture
def write(tmp_path):
    def write_table(text, encoding="utf-8"):
        path = tmp_path / "strong.tsv"
        path.write_bytes(text.encode(encoding))
        return path

    return write_table


def test_names_mids_and_indices_mean_the_same(write):
    label = audioset_labels()[295]
    assert "," in label.name
    table = write(
        f"{AUDIOSET}b_30000\t0.000\t2.627\t{label.mid}\na_0\t1\t10\t{label.name}\n"
        "b_30000\t2.5\t3.0\t295\n"
    )
    found = read_strong_labels(table, NAMES)
    assert found.events == {
        "b_30000": (Event(295, 0.0, 2.627), Event(295, 2.5, 3.0)),
        "a_0": (Event(295, 1.0, 10.0),),
    }
    assert list(found.events) == ["b_30000", "a_0"]
    assert found.unknown == {}


def test_the_layout_of_desed_with_columns_in_any_order(write):
    table = write(
        "\ufeffevent_label\tfilename\toffset\tonset\tnote\r\n"
        "Blender\ta.wav\t2.5\t0.5\tx\r\n\t b.wav \t\t\t\r\n\r\nDog\tb.wav\t1\t0\r\n\tc.wav\r\n"
    )
    found = read_strong_labels(table, ["Dog", "Blender"])
    assert found.events == {
        "a.wav": (Event(1, 0.5, 2.5),),
        "b.wav": (Event(0, 0.0, 1.0),),
        "c.wav": (),
    }


def test_labels_that_the_model_lacks_are_left_out_and_counted(write):
    table = write(f"{AUDIOSET}a_0\t0\t1\t/m/none\nb_0\t0\t1\tDog\nb_0\t2\t3\t/m/none\n")
    found = read_strong_labels(table, NAMES)
    assert found.events == {"a_0": (), "b_0": (Event(74, 0.0, 1.0),)}
    assert found.unknown == {"/m/none": 2}


def test_a_table_of_clips_without_events(write):
    assert read_strong_labels(write(f"{DESED}a.wav\t\t\t\n"), NAMES).events == {"a.wav": ()}


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", 1, "'segment_id'"),
        ("a,b\n", 1, "'segment_id'"),
        (AUDIOSET.replace("label", "lable"), 1, "'label'"),
        (DESED.replace("\toffset", ""), 1, "'offset'"),
        (AUDIOSET.replace("\t", " ") + "a 0 1 Dog\n", 1, "<tab>"),
        (AUDIOSET, None, "strong.tsv"),
        (f"{DESED}a\t0\t1\tDog\na\tx\t1\tDog\n", 3, "'x'"),
        (f"{DESED}a\t0\tnan\tDog\n", 2, "'nan'"),
        (f"{DESED}a\t-1\t1\tDog\n", 2, "'-1'"),
        (f"{DESED}a\t0\tinf\tDog\n", 2, "'inf'"),
        (f"{DESED}a\t0\t\tDog\n", 2, "''"),
        (f"{DESED}a\t\t\tDog\n", 2, "''"),
        (f"{DESED}a\t0\t1\t\n", 2, "label"),
        (f"{DESED}a\t0\t1\n", 2, "label"),
        (f"{DESED}a\t2\t2\tDog\n", 2, "2 s"),
        (f"{DESED}a\t2\t1.5\tDog\n", 2, "1.5 s"),
        (f"{DESED}\t0\t1\tDog\n", 2, "name"),
        (f"{DESED}a\t0\t1\t/m/none\n", None, "'/m/none'"),
    ],
)
def test_errors_name_file_line_and_value(write, text, line, named):
    table = write(text)
    with pytest.raises(SatError, match=re.escape(named)) as raised:
        read_strong_labels(table, NAMES)
    message = str(raised.value)
    assert message.startswith(f"{table}, line {line}: " if line else f"{table}: ")
    assert "\n" not in message


def test_a_name_of_several_classes(write):
    with pytest.raises(SatError, match=r"line 2: .*'Dog'"):
        read_strong_labels(write(f"{DESED}a\t0\t1\tDog\n"), ["Dog", "Cat", "Dog"])


def test_files_that_cannot_be_read(write, tmp_path):
    with pytest.raises(SatError, match=r"missing\.tsv"):
        read_strong_labels(tmp_path / "missing.tsv", NAMES)
    with pytest.raises(SatError, match=r"strong\.tsv.*UTF-8"):
        read_strong_labels(write(f"{DESED}ä\t0\t1\tDog\n", "latin-1"), NAMES)
    long = "x" * 200_000
    with pytest.raises(SatError, match=r"strong\.tsv, line 2"):
        read_strong_labels(write(f"{DESED}{long}\t0\t1\tDog\n"), NAMES)


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("a/b.wav", "a/b.wav"),
        ("a/b.wav", "b.wav"),
        ("a/b.wav", "b"),
        ("b", "b.wav"),
        ("a/b.wav", "c/b.flac"),
        ("b0RFKhbpFJA_30.000_40.000", "b0RFKhbpFJA_30000"),
        ("a/b0RFKhbpFJA_30_40.flac", "b0RFKhbpFJA_30000"),
        ("a/b0RFKhbpFJA_30000.wav", "b0RFKhbpFJA_30000"),
        ("--_1.001_10.001", "--_1001"),  # 1000 * 1.001 is less.
        ("Y-98gMSxIUAI_20.000_30.000", "Y-98gMSxIUAI_20.000_30.000.wav"),
        ("b.wav@0-10", "b.wav@0-10"),
    ],
)
def test_names_that_match(clip, name):
    assert match_clips(["other", clip], ["x", name, "y"]) == [None, name]


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("b.wav@0-10", "b.wav"),  # Times of the table are those of the whole file.
        ("b0RFKhbpFJA_30.000_40.000", "b0RFKhbpFJA_31000"),
        ("b0RFKhbpFJA_30.000_40.000", "b0RFKhbpFJA"),
        ("b.1", "b.2"),
    ],
)
def test_names_that_do_not_match(clip, name):
    with pytest.raises(SatError, match=f"{re.escape(clip)}.*{re.escape(name)}"):
        match_clips([clip], [name])


def test_the_same_name_has_priority_over_the_same_stem():
    ids = ["b_1.000_2.000", "a/b.wav", "b.wav"]
    names = ["b.wav", "b_1000", "b_1.000_2.000", "a/b.wav"]
    assert match_clips(ids, names) == ["b_1.000_2.000", "a/b.wav", "b.wav"]


def test_ambiguous_names_are_refused():
    with pytest.raises(SatError, match=r"'x/b'.*'b\.wav'.*'a/b\.wav'"):
        match_clips(["x/b"], ["b.wav", "a/b.wav"])
    with pytest.raises(SatError, match=r"'b'.*'x/b\.wav'.*'y/b\.wav'"):
        match_clips(["x/b.wav", "y/b.wav"], ["b"])
    with pytest.raises(SatError, match=r"'b\.wav'.*'b\.wav'.*'y/b\.wav'"):
        match_clips(["b.wav", "y/b.wav"], ["b.wav"])
