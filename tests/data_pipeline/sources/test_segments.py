"""Reading AudioSet's segment tables, and finding the segments' files."""

import pytest

from data_pipeline.sources.segments import Segment, clip_id, find_audio, read_segments
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels

HEAD = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=527, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "segments.csv"

    def write(rows: str):
        path.write_text(HEAD + rows, encoding="utf-8")
        return path

    return write


def test_rows_have_ids_times_and_label_indices(table):
    path = table(
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\na_1_2_cdefg, 0.000, 7.500, "/m/0k4j"\n'
    )
    speech, gush, car = (
        next(i for i, label in enumerate(audioset_labels()) if label.name == name)
        for name in ("Speech", "Gush", "Car")
    )
    rows, duplicates = read_segments(path)
    assert duplicates == []
    assert rows == [
        Segment("--PJHxphWEs", 30.0, 40.0, (speech, gush)),
        Segment("a_1_2_cdefg", 0.0, 7.5, (car,)),
    ]
    assert [row.id for row in rows] == ["--PJHxphWEs_30.000_40.000", "a_1_2_cdefg_0.000_7.500"]


def test_the_first_of_duplicates_stays(table):
    path = table('one, 0.000, 10.000, "/m/0k4j"\none, 5.0, 15, "/m/0k4j"\none, 0, 10, "/m/09x0r"\n')
    rows, duplicates = read_segments(path)
    assert [row.start for row in rows] == [0.0, 5.0]
    assert duplicates == ["one_0.000_10.000"]
    assert rows[0].labels == read_segments(path).rows[1].labels


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("", "no rows"),
        ("one, 0.000, 10.000\n", "line 4: 'one, 0.000, 10.000'"),
        ('one, zero, 10.000, "/m/0k4j"\n', "line 4"),
        ('one, 0, 10, "/m/0k4j"\ntwo, 0, 10, "/m/nothing"\n', "line 5: '/m/nothing'"),
        ('one, 0, 10, "/m/0k4j', "unexpected end"),
    ],
)
def test_broken_tables_are_refused(table, rows, named):
    path = table(rows)
    with pytest.raises(SatError, match=named) as error:
        read_segments(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(SatError, match=r"gone\.csv"):
        read_segments(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("--PJHxphWEs_30.000_40.000.wav", "--PJHxphWEs_30.000_40.000"),
        ("--PJHxphWEs_30_40.wav", "--PJHxphWEs_30.000_40.000"),
        ("--PJHxphWEs_30.0_40.0", "--PJHxphWEs_30.000_40.000"),
        ("--PJHxphWEs_30_40", "--PJHxphWEs_30.000_40.000"),
        ("a_1_2_cdefg_0_7.5.flac", "a_1_2_cdefg_0.000_7.500"),
        ("--PJHxphWEs.mp3", "--PJHxphWEs"),
        ("abcdef_12_3.wav", "abcdef_12_3"),  # eleven characters: a video's id
        ("abcdef_12_3", "abcdef_12_3"),
        ("abcdef_12_3_0_10.wav", "abcdef_12_3_0.000_10.000"),
    ],
)
def test_all_spellings_of_a_clip_have_one_id(name, expected):
    assert clip_id(name) == expected


def test_files_are_found_under_any_published_name(tmp_path):
    names = ["aaaaaaaaaaa_30.000_40.000.wav", "bbbbbbbbbbb_30_40.flac", "ccccccccccc.mp3"]
    names += ["Yddddddddddd.wav", "eeeeeeeeeee.wav", "deep/eeeeeeeeeee_30_40.wav"]
    (tmp_path / "deep").mkdir()
    for name in names:
        (tmp_path / name).touch()
    segments = [Segment(letter * 11, 30.0, 40.0, ()) for letter in "abcdef"]
    found = find_audio(tmp_path, segments)
    assert found == [str(tmp_path / name) for name in [*names[:4], names[5]]] + [None]
    twice = [Segment("c" * 11, start, start + 10.0, ()) for start in (0.0, 30.0)]
    assert find_audio(tmp_path, twice) == [None, None]
    with pytest.raises(SatError, match="nowhere"):
        find_audio(tmp_path / "nowhere", segments)
