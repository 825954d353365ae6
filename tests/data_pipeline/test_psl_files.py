"""Pseudo strong labels: the published layout, read and written."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.psl.files import PslWriter, read_about, read_names, top_classes
from data_pipeline.psl.table import PslTable, read_psl
from sat_jax.errors import SatError


def write(path, rows, **changes):
    """A file as other programs write it, of rows (filename, start, end, prob, idxs)."""
    names = ("filename", "start", "end", "prob", "idxs")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)} | changes
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    return path


def random_rows(rng, names, windows=4, k=10, y=527):
    """Rows of every clip in no order, and the dense targets that they stand for."""
    rows, dense = [], {}
    for name in names:
        for window in range(windows):
            classes = rng.permutation(y)[:k]
            probs = np.sort(rng.random(k).astype(np.float32))[::-1]
            texts = (";".join(map(str, probs)), ";".join(map(str, classes)))
            rows.append((name, 2.0 * window, 2.0 * window + 4, *texts))
            dense[name, window] = np.zeros(y, np.float32)
            dense[name, window][classes] = probs
    return [rows[i] for i in rng.permutation(len(rows))], dense


def test_windows_and_targets_of_each_clip(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"Y{i:03d}_0.000_10.000.wav" for i in range(50)]
    rows, dense = random_rows(rng, [*ids[5:], "other.wav", "another.wav"])
    write(tmp_path / "a.parquet", rows[:91])
    write(tmp_path / "b.parquet", rows[91:])
    table = read_psl([tmp_path / "a.parquet", tmp_path / "b.parquet"], ids)
    assert table.unknown_clips == 2
    assert (np.diff(table.window_starts) == 0).sum() == 5
    np.testing.assert_array_equal(np.diff(table.window_starts), [0] * 5 + [4] * 45)
    dtypes = [table.window_starts.dtype, table.start.dtype, table.end.dtype]
    assert [*dtypes, table.indices.dtype, table.probs.dtype] == [
        np.int64,
        *[np.float32] * 2,
        np.int32,
        np.float32,
    ]
    for i in range(5, 50):
        mine = np.arange(table.window_starts[i], table.window_starts[i + 1])
        np.testing.assert_array_equal(table.start[mine], [0, 2, 4, 6])
        np.testing.assert_array_equal(table.end[mine], [4, 6, 8, 10])
        expected = np.stack([dense[ids[i], window] for window in range(4)])
        np.testing.assert_array_equal(table.targets(mine, 527), expected)
    # The folder stands for its files.
    for one, other in zip(read_psl([tmp_path], ids), table, strict=True):
        np.testing.assert_array_equal(one, other)


def test_lines_with_fewer_classes_and_other_types(tmp_path):
    rows = [
        ("a", 0, 2, "0.5", "0"),
        ("b", 0, 2, "0.25; 1e-05;1", "4;0;2"),
        ("a", 2, 4, "1.0;0.0", "1;2"),
    ]
    path = write(tmp_path / "a.parquet", rows)
    table = read_psl([path], ["a", "b"])
    np.testing.assert_array_equal(
        table.probs, np.float32([[0.5, 0, 0], [1, 0, 0], [0.25, 1e-5, 1]])
    )
    # Padding is no class: class 0 keeps its probability, and gets none where it is not named.
    np.testing.assert_array_equal(
        table.targets(np.array([2, 0, 1, 2]), 5),
        np.float32(
            [[1e-5, 0, 1, 0, 0.25], [0.5, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1e-5, 0, 1, 0, 0.25]]
        ),
    )
    names = pa.array(["a", "b", "a"]).dictionary_encode()
    large = pa.array(["0.5", "0.25", "1"], pa.large_string())
    ints = pa.array([0, 0, 2], pa.int32())
    path = write(
        tmp_path / "b.parquet", rows, filename=names, start=ints, prob=large, idxs=["1"] * 3
    )
    np.testing.assert_array_equal(
        read_psl([path], ["a", "b"]).probs, np.float32([[0.5], [1], [0.25]])
    )


@pytest.mark.parametrize(
    ("ids", "names", "clips"),
    [
        (["a.wav", "b.wav"], ["a.wav", "b.wav"], [0, 1]),
        (["a", "b"], ["a.wav", "b.flac"], [0, 1]),
        (["a.flac", "b.MP3"], ["a", "b.wav"], [0, 1]),
        # A time is no extension.
        (["a_30.000", "a_30"], ["a_30.wav", "a_30.000"], [1, 0]),
        (["x/a.wav", "y/b.wav"], ["b.wav", "a"], [1, 0]),
        (["x/a.wav", "y/a.wav", "z/b.wav"], ["a.wav", "y/a.wav", "b.wav"], [-1, 1, 2]),
        (["a.wav", "a.flac"], ["a.flac", "a", "a.wav"], [1, -1, 0]),
        # A folder that is named must be the right one.
        (["x/a.wav", "b.wav"], ["y/a.wav", "x/b.wav", "x/a"], [-1, -1, 0]),
        (["a.wav@0-10", "a.wav@10-20"], ["a.wav@10-20", "a.wav"], [1, -1]),
    ],
)
def test_whose_labels_they_are(tmp_path, ids, names, clips):
    rows = [(name, i, i + 1, "0.5", "0") for i, name in enumerate(names)]
    table = read_psl([write(tmp_path / "a.parquet", rows)], ids)
    expected = sorted((clip, i) for i, clip in enumerate(clips) if clip >= 0)
    owners = np.repeat(np.arange(len(ids)), np.diff(table.window_starts))
    assert list(zip(owners.tolist(), table.start.tolist(), strict=True)) == expected
    assert table.unknown_clips == clips.count(-1)


def test_what_is_written_reads_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(1)
    # All orders of magnitude, ties, zeros and ones.
    scores = (rng.random((60, 30)) ** rng.integers(1, 60, (60, 30))).astype(np.float32)
    scores[:, 3:6] = scores[:, :1]
    scores[7] = 0
    scores[8, 4] = 1
    ids = [f"{i}.wav" for i in range(20)]
    names, start = np.repeat(ids, 3).tolist(), np.tile([0.0, 1.1, 2.2], 20)
    indices, probs = top_classes(scores, 10)
    path = tmp_path / "a.parquet"
    with PslWriter(path, {"window": 4.0, "weights": "x"}) as writer:
        writer.write(names[:30], start[:30], start[:30] + 1.5, indices[:30], probs[:30])
        writer.write(names[30:], start[30:], start[30:] + 1.5, indices[30:], probs[30:])
    assert read_about(path) == {"window": 4.0, "weights": "x"}
    assert sorted(read_names(path)) == sorted(ids)

    table = read_psl([path], ids)
    np.testing.assert_array_equal(table.start, start.astype(np.float32))
    targets = table.targets(np.arange(60), 30)
    for row, target in zip(scores, targets, strict=True):
        kept = sorted(range(30), key=lambda i: (-row[i], i))[:10]
        np.testing.assert_array_equal(target, np.where(np.isin(np.arange(30), kept), row, 0))

    # As any other program sees it.
    lines = pq.read_table(path).to_pylist()
    assert list(lines[0]) == ["filename", "start", "end", "prob", "idxs"]
    types = dict(zip(pq.read_schema(path).names, pq.read_schema(path).types, strict=True))
    assert [str(types[name]) for name in lines[0]] == ["string", *["double"] * 2, *["string"] * 2]
    for line, name, begin, row in zip(lines, names, start, scores, strict=True):
        assert (line["filename"], line["start"], line["end"]) == (name, begin, begin + 1.5)
        classes = [int(index) for index in line["idxs"].split(";")]
        assert classes == sorted(range(30), key=lambda i: (-row[i], i))[:10]
        assert [np.float32(prob) for prob in line["prob"].split(";")] == [row[i] for i in classes]


def test_all_classes_when_there_are_fewer_than_k():
    indices, probs = top_classes(np.float32([[0.1, 0.9, 0.5]]), 10)
    assert indices.tolist() == [[1, 2, 0]] and probs.dtype == np.float32


def test_classes_that_a_model_has_at_least(tmp_path):
    table = read_psl([write(tmp_path / "a.parquet", [("a", 0, 4, "0.5", "527")])], ["a"])
    assert table.num_classes == 528
    assert table.targets(np.array([0]), 528)[0, 527] == 0.5


GOOD = [("a", 0.0, 4.0, "0.5;0.25", "1;2"), ("a", 2.0, 6.0, "0.5;0.25", "1;2")]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (GOOD, {"idxs": None}, "has no column 'idxs': needed are filename, start"),
        (GOOD, {"filename": ["a", None]}, "column 'filename' has gaps"),
        (GOOD, {"prob": ["0.5", None]}, "column 'prob' has gaps"),
        (GOOD, {"prob": ["0.5;", "1"]}, "no readable pseudo strong labels: .*''"),
        (GOOD, {"prob": ["0.5;x", "1"]}, "no readable pseudo strong labels: .*x"),
        (GOOD, {"idxs": ["1;2.5", "1"]}, "no readable pseudo strong labels: .*2.5"),
        (GOOD, {"start": ["zero", "one"]}, "no readable pseudo strong labels: .*one"),
        (GOOD, {"idxs": ["1", "1;2"]}, "not as many probabilities as classes"),
        (GOOD, {"prob": ["0.5;1.5", "1;1"]}, "outside 0 to 1"),
        (GOOD, {"prob": ["0.5;nan", "1;1"]}, "outside 0 to 1"),
        (GOOD, {"idxs": ["1;-2", "1;2"]}, "class under 0"),
        ([GOOD[1], GOOD[0], GOOD[1]], {}, "clip a has two windows from 2 s"),
        ([("b", *GOOD[0][1:])], {}, "none of the 1 clips, the first is a, has pseudo"),
        ([], {}, "none of the 1 clips"),
    ],
)
def test_refused(tmp_path, rows, changes, message):
    schema = dict(zip(("filename", "start", "end", "prob", "idxs"), "sffss", strict=True))
    empty = (
        {}
        if rows
        else {k: pa.array([], {"s": "string", "f": "double"}[v]) for k, v in schema.items()}
    )
    path = write(tmp_path / "a.parquet", rows, **(empty | changes))
    with pytest.raises(SatError, match=message) as caught:
        read_psl([path], ["a"])
    assert "a.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SatError, match=re.escape(f"{tmp_path / 'no.parquet'}: no readable")):
        read_psl([tmp_path / "no.parquet"], ["a"])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    for read in (lambda path: read_psl([path], ["a"]), read_names, read_about):
        with pytest.raises(SatError, match=r"bad\.parquet: no readable") as caught:
            read(tmp_path / "bad.parquet")
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SatError, match=r"empty holds no \.parquet files"):
        read_psl([tmp_path / "empty"], ["a"])


def test_a_table_is_plain_columns():
    table = PslTable(
        np.array([0, 1, 1]), np.zeros(1), np.ones(1), np.array([[2, 0]]), np.float32([[0.5, 0]])
    )
    assert (np.diff(table.window_starts) == 0).sum() == 1
    np.testing.assert_array_equal(table.targets(np.array([0]), 3), [[0, 0, 0.5]])
