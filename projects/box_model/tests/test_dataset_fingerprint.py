"""The fingerprint of a TFDS dataset."""

import struct
import zlib

import pytest

from projects.box_model.dataset_fingerprint import dataset_fingerprint
from sat_jax.errors import SatError


def record(data):
    """Returns a record as TensorFlow writes it, without the first checksum, which is not read."""
    return struct.pack("<QI", len(data), 0) + data + struct.pack("<I", zlib.crc32(data))


def test_it_depends_on_the_content_only(tmp_path):
    def write(folder, **changes):
        files = {
            "dataset_info.json": b"{}",
            "strong_train.tsv": b"filename",
            "x-train.tfrecord-00000-of-00001": record(b"one") + record(b"two"),
            "clips_0.npz": b"an index",
        }
        folder.mkdir()
        for name, content in (files | changes).items():
            (folder / name).write_bytes(content)
        return dataset_fingerprint(folder)

    first = write(tmp_path / "a")
    assert write(tmp_path / "b", **{"clips_0.npz": b"other", "clips_1.npz": b""}) == first
    changes = {
        "strong_train.tsv": b"filenames",
        "x-train.tfrecord-00000-of-00001": record(b"one") + record(b"six"),
    }
    for number, (name, content) in enumerate(changes.items()):
        assert write(tmp_path / str(number), **{name: content}) != first, name
    with pytest.raises(SatError, match="tfrecord"):
        write(tmp_path / "c", **{"x-train.tfrecord-00000-of-00001": record(b"one")[:-1]})
