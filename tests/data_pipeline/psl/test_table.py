"""Reading the pseudo strong labels of a source's clips."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
    # A folder means the files in it.
    for one, other in zip(read_psl([tmp_path], ids), table, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_with_fewer_classes_and_other_types(tmp_path):
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
    # Padding stands as class 0 of probability 0; it must not change class 0.
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
        # A time is not an extension.
        (["a_30.000", "a_30"], ["a_30.wav", "a_30.000"], [1, 0]),
        (["x/a.wav", "y/b.wav"], ["b.wav", "a"], [1, 0]),
        (["x/a.wav", "y/a.wav", "z/b.wav"], ["a.wav", "y/a.wav", "b.wav"], [-1, 1, 2]),
        (["a.wav", "a.flac"], ["a.flac", "a", "a.wav"], [1, -1, 0]),
        # A folder in the name must match.
        (["x/a.wav", "b.wav"], ["y/a.wav", "x/b.wav", "x/a"], [-1, -1, 0]),
        (["a.wav@0-10", "a.wav@10-20"], ["a.wav@10-20", "a.wav"], [1, -1]),
    ],
)
def test_names_are_matched_to_clips(tmp_path, ids, names, clips):
    rows = [(name, i, i + 1, "0.5", "0") for i, name in enumerate(names)]
    table = read_psl([write(tmp_path / "a.parquet", rows)], ids)
    expected = sorted((clip, i) for i, clip in enumerate(clips) if clip >= 0)
    owners = np.repeat(np.arange(len(ids)), np.diff(table.window_starts))
    assert list(zip(owners.tolist(), table.start.tolist(), strict=True)) == expected
    assert table.unknown_clips == clips.count(-1)


def test_num_classes_is_the_highest_index_plus_1(tmp_path):
    table = read_psl([write(tmp_path / "a.parquet", [("a", 0, 4, "0.5", "527")])], ["a"])
    assert table.num_classes == 528
    assert table.targets(np.array([0]), 528)[0, 527] == 0.5


GOOD = [("a", 0.0, 4.0, "0.5;0.25", "1;2"), ("a", 2.0, 6.0, "0.5;0.25", "1;2")]


@pytest.mark.parametrize(
    ("rows", "changes", "named"),
    [
        (GOOD, {"idxs": None}, "'idxs'"),
        (GOOD, {"filename": ["a", None]}, "'filename'"),
        (GOOD, {"prob": ["0.5", None]}, "'prob'"),
        (GOOD, {"prob": ["0.5;", "1"]}, "''"),
        (GOOD, {"prob": ["0.5;x", "1"]}, "'x'"),
        (GOOD, {"idxs": ["1;2.5", "1"]}, "'2.5'"),
        (GOOD, {"start": ["zero", "one"]}, "zero|one"),
        (GOOD, {"idxs": ["1", "1;2"]}, "idxs"),
        (GOOD, {"prob": ["0.5;1.5", "1;1"]}, "1.5"),
        (GOOD, {"prob": ["0.5;nan", "1;1"]}, "nan"),
        (GOOD, {"idxs": ["1;-2", "1;2"]}, "-2"),
        ([GOOD[1], GOOD[0], GOOD[1]], {}, "clip a .* 2 s"),
        ([("b", *GOOD[0][1:])], {}, "1 clips, such as a"),
        ([], {}, "1 clips, such as a"),
    ],
)
def test_wrong_files_are_refused(tmp_path, rows, changes, named):
    names = ("filename", "start", "end", "prob", "idxs")
    kinds = dict(zip(names, ["string", "double", "double", "string", "string"], strict=True))
    empty = {} if rows else {name: pa.array([], kind) for name, kind in kinds.items()}
    path = write(tmp_path / "a.parquet", rows, **(empty | changes))
    with pytest.raises(SatError, match=named) as caught:
        read_psl([path], ["a"])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(SatError, match=str(tmp_path)):
        read_psl([tmp_path], ["a"])


def test_a_table_is_plain_columns():
    table = PslTable(
        np.array([0, 1, 1]), np.zeros(1), np.ones(1), np.array([[2, 0]]), np.float32([[0.5, 0]])
    )
    assert (np.diff(table.window_starts) == 0).sum() == 1
    np.testing.assert_array_equal(table.targets(np.array([0]), 3), [[0, 0, 0.5]])
