"""Tables of labelled clips: rows that are read, and errors that name file, line and value."""

import re
import subprocess
import sys

import pytest

from data_pipeline.sources.clips import (
    Clip,
    class_names,
    column_values,
    parse_columns,
    parse_where,
    read_clips,
)
from data_pipeline.sources.folder import FolderSource
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels, default_label_names

NAMES = default_label_names(527)


@pytest.fixture
def write(tmp_path):
    """Writes a table beside the files a.wav, b.wav and sub/c.wav."""
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        (tmp_path / name).touch()

    def write_table(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write_table


def test_column_values(write):
    table = write("fold,file\n10,a.wav\n 2 ,b.wav\n10,sub/c.wav\n")
    assert column_values(table, "fold") == {"10", "2"}
    with pytest.raises(SatError, match="'class'"):
        column_values(table, "class")
    with pytest.raises(SatError, match="line 3: fold"):
        column_values(write("fold,file\n1,a.wav\n ,b.wav\n"), "fold")
    with pytest.raises(SatError, match=r"table\.csv.*UTF-8"):
        column_values(write("fold,file\n1,\u00e4.wav\n", encoding="latin-1"), "fold")


def test_names_mids_and_indices_mean_the_same(write, tmp_path):
    label, comma = audioset_labels()[288], audioset_labels()[295]
    assert "," in comma.name
    table = write(
        f"file,labels\na.wav,{label.name}\nb.wav,288;{label.mid};0\n"
        f'sub/c.wav," {comma.name} ; {audioset_labels()[3].mid};"\n'
    )
    assert read_clips(table, NAMES) == [
        Clip(tmp_path / "a.wav", (288,), "a.wav"),
        Clip(tmp_path / "b.wav", (0, 288), "b.wav"),
        Clip(tmp_path / "sub/c.wav", (3, 295), "sub/c.wav"),
    ]


def test_every_audioset_class_is_found_by_name_and_mid(write):
    rows = [
        f'{index}{kind}.wav,"{text}"\n'
        for index, label in enumerate(audioset_labels())
        for kind, text in (("n", label.name), ("m", label.mid), ("i", index))
    ]
    clips = read_clips(write("file,labels\n" + "".join(rows) + "a.wav,0\n"), NAMES)
    assert [clip.labels for clip in clips[:-1]] == [(i,) for i in range(527) for _ in range(3)]


def test_labels_of_own_classes(write):
    # Classes called by numbers, in another order than AudioSet's.
    clips = read_clips(
        write("file,labels\na.wav,1;Dog\nb.wav,/m/0bt9lr;3\n"), ["x", "Dog", "1", "y"]
    )
    assert [clip.labels for clip in clips] == [(1, 2), (1, 3)]


def test_files_are_relative_to_the_given_folder(write, tmp_path):
    absolute = tmp_path / "a.wav"
    table = write(f"file,labels\nc.wav,0\n{absolute},1\n")
    clips = read_clips(table, NAMES, folder=tmp_path / "sub")
    assert [clip.path for clip in clips] == [tmp_path / "sub/c.wav", absolute]


def test_layouts_of_other_programs(write):
    table = write("\ufefffold,labels,file\r\n1, Dog ,a.wav\r\n\r\n2,,b.wav\r\n")
    assert [clip.labels for clip in read_clips(table, NAMES)] == [(74,), ()]


def test_missing_files_are_kept(write):
    clips = read_clips(write("file,labels\nlost.wav,0\na.wav,0\n"), NAMES)
    assert [clip.path.name for clip in clips] == ["lost.wav", "a.wav"]


def test_a_file_name_of_any_length_is_missing(write):
    name = 300 * "a" + ".wav"
    clips = read_clips(write(f"file,labels\n{name},0\na.wav,0\n"), NAMES)
    assert [clip.path.name for clip in clips] == [name, "a.wav"]
    assert FolderSource(clips, leave_out_missing=True).num_missing == 1
    with pytest.raises(SatError, match=f"{name}.*--folder"):
        read_clips(write(f"file,labels\n{name},0\n"), NAMES)


def test_a_row_may_be_a_part_of_a_file(write, tmp_path):
    table = write(
        "file,start,end,labels\na.wav,0, 2.5,0\na.wav,2.5,,1\na.wav,,,2\na.wav,0.25,1e1,3\n"
        "a.wav,86399.9999375,86400,4\na.wav,86399.999875,86400,4\n"
    )
    clips = read_clips(table, NAMES)
    path = tmp_path / "a.wav"
    assert clips[:4] == [
        Clip(path, (0,), "a.wav@0-2.5", 0.0, 2.5),
        Clip(path, (1,), "a.wav@2.5-", 2.5, None),
        Clip(path, (2,), "a.wav", 0.0, None),
        Clip(path, (3,), "a.wav@0.25-10", 0.25, 10.0),
    ]
    # Parts that begin one sample apart, a day into a recording, have different ids.
    assert len({clip.id for clip in clips}) == len(clips)


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", 1, "'file'"),
        ("name,labels\na.wav,0\n", 1, "'file'"),
        ("file,label\na.wav,0\n", 1, "'labels'"),
        ("file,labels\n", None, "table.csv"),
        ("file,labels\na.wav,0\nb.wav,Dgo\n", 3, "'Dog'"),
        ("file,labels\na.wav,527\n", 2, "'527'"),
        ("file,labels\na.wav,/m/none\n", 2, "'/m/none'"),
        ("file,labels\na.wav,0\n./sub/../a.wav,1\n", 3, "line 2"),
        ("file,labels,start,end\na.wav,0,1,2\na.wav,0,1,3\na.wav,1,1.0,2\n", 4, "a.wav@1-2"),
        ("file,labels,start\na.wav,0,1s\n", 2, "start='1s'"),
        ("file,labels,start\na.wav,0,-1\n", 2, "start='-1'"),
        ("file,labels,end\na.wav,0,inf\n", 2, "end='inf'"),
        ("file,labels,start,end\na.wav,0,2,2\n", 2, "end=2"),
        ("file,labels\na.wav,Waves, surf\n", 2, "quotes"),
        ("file,labels\na.wav\n", 2, "labels"),
        ("file,labels\n,Dog\n", 2, "file"),
        ('file,labels\na.wav,"Dog\nb.wav,Cat\n', 2, "quotes"),
        ("file,labels\nx.wav,0\ny.wav,0\n", None, "x.wav"),
    ],
)
def test_errors_name_file_line_and_value(write, text, line, named):
    table = write(text)
    with pytest.raises(SatError, match=re.escape(named)) as caught:
        read_clips(table, NAMES)
    message = str(caught.value)
    assert message.startswith(f"{table}, line {line}: " if line else f"{table}: ")
    assert "\n" not in message


def test_a_name_that_two_classes_share(write):
    table = write("file,labels\na.wav,Dog\n")
    with pytest.raises(SatError, match=r"line 2: .*'Dog'"):
        read_clips(table, ["Dog", "Cat", "Dog"])
    assert read_clips(write("file,labels\na.wav,2\n"), ["Dog", "Cat", "Dog"])[0].labels == (2,)


def test_tables_that_cannot_be_read(write, tmp_path):
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "none.csv"))):
        read_clips(tmp_path / "none.csv", NAMES)
    with pytest.raises(SatError, match="UTF-8"):
        read_clips(write("file,labels\na.wav,Ärger\n", "latin-1"), NAMES)


def test_light_import():
    code = (
        "import sys, data_pipeline.sources.clips\n"
        "print({'jax', 'numpy', 'tensorflow', 'librosa'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("fold=2", "bd"), ("fold=1,3", "ac"), ("take=a = b,x", "c"), (None, "abcd")],
)
def test_selected_rows(write, text, chosen):
    table = write(
        "file,labels,fold,take\na.wav,Dog,1,\nb.wav,Cat, 2,y\nc.wav,Dog,3,a = b\nd.wav,Cat,2,\n"
    )
    (table.parent / "a.wav").touch()
    for name in chosen:
        (table.parent / f"{name}.wav").touch()
    clips = read_clips(table, ["Cat", "Dog"], where=parse_where(text))
    assert [clip.id for clip in clips] == [f"{name}.wav" for name in chosen]


def test_selections_without_rows_are_refused(write):
    table = write("file,labels,fold\na.wav,Dog,1\n")
    with pytest.raises(SatError, match="fold=2,3"):
        read_clips(table, ["Dog"], where=parse_where("fold=2,3"))
    with pytest.raises(SatError, match="'side'"):
        read_clips(table, ["Dog"], where=parse_where("side=1"))
    for text in ("fold", "=1", "fold=", "fold=1,,2"):
        with pytest.raises(SatError, match=f"where={text} "):
            parse_where(text)


def test_columns_of_other_names(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("fold,filename,category\n1,a.wav,Dog\n2,b.wav,Cat;Dog\n")
    (tmp_path / "a.wav").touch()
    columns = parse_columns("filename,category")
    clips = read_clips(table, ["Cat", "Dog"], columns=columns)
    assert [(clip.id, clip.labels) for clip in clips] == [("a.wav", (1,)), ("b.wav", (0, 1))]
    assert class_names(table, columns=columns) == ("Cat", "Dog")
    with pytest.raises(SatError, match="'file'"):
        read_clips(table, ["Cat", "Dog"])
    with pytest.raises(SatError, match="columns=filename "):
        parse_columns("filename")
