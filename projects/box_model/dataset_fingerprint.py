"""A fingerprint of a TFDS dataset, to notice when it changes."""

import hashlib
from pathlib import Path

from data_pipeline.sources.tfds.records import BadRecord, record_spans
from sat_jax.errors import SatError

_TEXT = (".json", ".tsv", ".txt")


def dataset_fingerprint(folder: Path) -> str:
    """Returns a short hash of a dataset's content, which does not depend on its place.

    Only the checksum of each record is read, so gigabytes take a second.

    Args:
      folder: folder of TFRecord and text files; other files, such as an index, are ignored.

    Raises:
      SatError: a file can't be read or is damaged.
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
