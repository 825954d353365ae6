"""Files of pseudo strong labels: the published layout."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.psl.labelling import top_classes
from data_pipeline.psl.parquet_files import PslWriter, read_clip_names, read_metadata
from data_pipeline.psl.table import read_psl
from sat_jax.errors import SatError


def test_written_labels_read_back_to_the_bit(tmp_path):
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
    assert read_metadata(path) == {"window": 4.0, "weights": "x"}
    assert read_clip_names(path) == set(ids)

    table = read_psl([path], ids)
    np.testing.assert_array_equal(table.start, start.astype(np.float32))
    targets = table.targets(np.arange(60), 30)
    for row, target in zip(scores, targets, strict=True):
        kept = sorted(range(30), key=lambda i: (-row[i], i))[:10]
        np.testing.assert_array_equal(target, np.where(np.isin(np.arange(30), kept), row, 0))

    # As other programs see the file.
    lines = pq.read_table(path).to_pylist()
    assert list(lines[0]) == ["filename", "start", "end", "prob", "idxs"]
    types = dict(zip(pq.read_schema(path).names, pq.read_schema(path).types, strict=True))
    assert [str(types[name]) for name in lines[0]] == ["string", *["double"] * 2, *["string"] * 2]
    for line, name, begin, row in zip(lines, names, start, scores, strict=True):
        assert (line["filename"], line["start"], line["end"]) == (name, begin, begin + 1.5)
        classes = [int(index) for index in line["idxs"].split(";")]
        assert classes == sorted(range(30), key=lambda i: (-row[i], i))[:10]
        assert [np.float32(prob) for prob in line["prob"].split(";")] == [row[i] for i in classes]


def test_k_is_limited_by_the_number_of_classes():
    indices, probs = top_classes(np.float32([[0.1, 0.9, 0.5]]), 10)
    assert indices.tolist() == [[1, 2, 0]] and probs.dtype == np.float32


@pytest.mark.parametrize(
    "read", [read_clip_names, read_metadata, lambda path: read_psl([path], ["a"])]
)
@pytest.mark.parametrize("content", [b"PAR1 and no more", None])
def test_unreadable_files_are_named(tmp_path, read, content):
    path = tmp_path / "bad.parquet"
    if content:
        path.write_bytes(content)
    with pytest.raises(SatError) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
