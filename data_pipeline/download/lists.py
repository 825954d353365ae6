"""Downloads AudioSet's class list and segments, and the published pseudo strong labels."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sat_jax.errors import SatError
from sat_jax.weights.download import download, without_secrets

AUDIOSET_URL = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv"
PSL_URL = "https://zenodo.org/api/records/7964975"
"""The Zenodo record of the published weights and labels."""

_CSV_FILES = {
    "class_labels_indices.csv": b"index,mid,",
    "balanced_train_segments.csv": b"# Segments csv",
    "eval_segments.csv": b"# Segments csv",
    "unbalanced_train_segments.csv": b"# Segments csv",
}
_PARQUET = ".parquet"
_PARQUET_MAGIC = b"PAR1"
_MAX_BYTES = 64 * 2**30
_MAX_RECORD_BYTES = 16 * 2**20


class ListFile(NamedTuple):
    """A file to download.

    Attributes:
      url: its address.
      name: its local name.
      prefix: its first bytes.
    """

    url: str
    name: str
    prefix: bytes


def audioset_files(url: str = AUDIOSET_URL) -> list[ListFile]:
    """Returns AudioSet's four CSV files in the folder `url`."""
    base = url.rstrip("/")
    return [ListFile(f"{base}/{name}", name, prefix) for name, prefix in _CSV_FILES.items()]


def psl_files(urls: Sequence[str]) -> list[ListFile]:
    """Returns files of pseudo strong labels.

    Args:
      urls: ``.parquet`` files, or Zenodo records (``https://zenodo.org/api/records/NUMBER``), of
        which all such files are meant.

    Raises:
      SatError: a record can't be downloaded or has no such files.
    """
    return [file for url in urls for file in _psl_files_at(url)]


def fetch_list(file: ListFile, folder: Path) -> bool:
    """Downloads a file unless it exists; resumes an interrupted download.

    Args:
      file: the file.
      folder: where to store it; created if missing.

    Returns:
      Whether it was downloaded.

    Raises:
      SatError: it can't be downloaded or written.
    """
    destination = folder / file.name
    if destination.is_file():
        return False
    download(file.url, destination, max_bytes=_MAX_BYTES, expect_prefix=file.prefix)
    return True


def _psl_files_at(url: str) -> list[ListFile]:
    name = url.split("?")[0].rpartition("/")[2]
    if name.endswith(_PARQUET):
        return [ListFile(url, name, _PARQUET_MAGIC)]
    try:
        files = list(_parquet_files(_record(url)))
    except (KeyError, TypeError, ValueError):
        files = []
    if not files:
        raise SatError(
            f"{url} is not a Zenodo record with {_PARQUET} files: give the files' addresses with "
            "--psl_url"
        )
    return files


def _record(url: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        try:
            download(url, path, max_bytes=_MAX_RECORD_BYTES, progress=False)
        except SatError as error:  # Its advice names the temporary folder.
            raise SatError(
                f"cannot download {without_secrets(url)}: {error.__cause__}; give the files' "
                "addresses with --psl_url, or --psl_url= to skip them"
            ) from error
        return json.loads(path.read_bytes())


def _parquet_files(record: Any) -> Iterator[ListFile]:
    for file in record["files"]:
        name = Path(file["key"]).name  # A record must not name files outside the folder.
        if name.endswith(_PARQUET):
            yield ListFile(file["links"]["self"], name, _PARQUET_MAGIC)
