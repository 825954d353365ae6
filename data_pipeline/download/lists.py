"""AudioSet's class list and segments, and the published pseudo strong labels."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError
from sat_jax.weights.download import download

AUDIOSET_URL = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv"
PSL_URL = "https://zenodo.org/api/records/7964975"
"""The record that the published weights are in."""

_CSV_FILES = {
    "class_labels_indices.csv": b"index,mid,",
    "balanced_train_segments.csv": b"# Segments csv",
    "eval_segments.csv": b"# Segments csv",
    "unbalanced_train_segments.csv": b"# Segments csv",
}
_PARQUET = ".parquet"
_PARQUET_MAGIC = b"PAR1"
_MOST_BYTES = 64 * 2**30
_MOST_RECORD_BYTES = 16 * 2**20


class ListFile(NamedTuple):
    """A file to fetch.

    Attributes:
      url: where it is.
      name: what to call it.
      prefix: how it begins.
    """

    url: str
    name: str
    prefix: bytes


def audioset_files(url: str = AUDIOSET_URL) -> list[ListFile]:
    """AudioSet's four CSV files, below the folder `url`."""
    base = url.rstrip("/")
    return [ListFile(f"{base}/{name}", name, prefix) for name, prefix in _CSV_FILES.items()]


def psl_files(urls: Sequence[str]) -> list[ListFile]:
    """The files of pseudo strong labels.

    Args:
      urls: of ``.parquet`` files, or of Zenodo records (``https://zenodo.org/api/records/NUMBER``),
        which stand for all such files in them.

    Raises:
      SatError: a record can't be had or holds none.
    """
    return [file for url in urls for file in _psl_files_at(url)]


def fetch_list(file: ListFile, folder: Path) -> bool:
    """Fetches a file if it is not there, going on where an earlier run stopped.

    Args:
      file: what to fetch.
      folder: where to; it is made.

    Returns:
      Whether it was fetched now.

    Raises:
      SatError: it can't be had or written.
    """
    destination = folder / file.name
    if destination.is_file():
        return False
    download(file.url, destination, max_bytes=_MOST_BYTES, expect_prefix=file.prefix)
    return True


def _psl_files_at(url: str) -> list[ListFile]:
    name = url.split("?")[0].rpartition("/")[2]
    if name.endswith(_PARQUET):
        return [ListFile(url, name, _PARQUET_MAGIC)]
    found = list(_parquet_files(_record(url), url))
    if not found:
        raise SatError(f"{url} lists no {_PARQUET} files: give their addresses with --psl_url")
    return found


def _record(url: str) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        download(url, path, max_bytes=_MOST_RECORD_BYTES, progress=False)
        try:
            return json.loads(path.read_bytes())
        except ValueError:
            raise SatError(
                f"{url} is no Zenodo record: give one, or the addresses of {_PARQUET} files, with "
                f"--psl_url"
            ) from None


def _parquet_files(record: object, url: str) -> Iterator[ListFile]:
    try:
        for file in record["files"]:  # type: ignore[index]
            name = Path(file["key"]).name
            if name.endswith(_PARQUET):
                yield ListFile(file["links"]["self"], name, _PARQUET_MAGIC)
    except (KeyError, TypeError):
        raise SatError(
            f"{url} has no list of files: give the addresses of {_PARQUET} files with --psl_url"
        ) from None
