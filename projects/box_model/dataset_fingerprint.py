"""Telling whether a prepared dataset is still the same."""

import hashlib
from pathlib import Path

from data_pipeline.sources.tfds.records import BadRecord, record_spans
from sat_jax.errors import SatError

_TEXT = (".json", ".tsv", ".txt")


def dataset_fingerprint(folder: Path) -> str:
    """A short text that changes when anything in a dataset does, wherever it lies.

    Of each record only the checksum behind it is read, so gigabytes take a second.

    Args:
      folder: with dataset_info.json and TFRecord files. Files that are neither these nor text, such
        as an index of what is in them, don't count.

    Raises:
      SatError: a file can't be read, or is damaged.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in _TEXT:
                content = path.read_bytes()
            elif ".tfrecord" in path.name:
                content = _checksums(path)
            else:
                continue
            digest.update(f"{path.name}\n{len(content)}\n".encode() + content)
    except OSError as error:
        raise SatError(f"cannot read {folder}: {error.strerror or error}") from error
    return digest.hexdigest()[:16]


def _checksums(path: Path) -> bytes:
    checksums = bytearray()
    with path.open("rb") as file:
        try:
            for span in record_spans(file, path.stat().st_size):
                file.seek(span.end)
                checksums += file.read(4)
        except BadRecord as error:
            raise SatError(f"{path} is damaged: {error}: prepare the dataset again") from error
    return bytes(checksums)
