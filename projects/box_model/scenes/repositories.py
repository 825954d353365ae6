"""Fetches recordings from GitHub repositories, each at a fixed commit."""

import csv
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from projects.box_model.scenes.fetching import fetch_files
from sat_jax.weights.download import download

REPOSITORIES = Path(__file__).parent.parent / "data" / "repositories.csv"
CODELOAD = "https://codeload.github.com"
"""GitHub's server of archives."""

_MAX_BYTES = 2 << 30
_GZIP = b"\x1f\x8b"


class Repository(NamedTuple):
    """A repository with recordings.

    Attributes:
      name: name of the source in the table of recordings.
      repository: "OWNER/NAME" on GitHub.
      commit: 40 hexadecimal digits.
      credits: its files that name licences and authors.
    """

    name: str
    repository: str
    commit: str
    credits: str


def read_repositories(path: Path = REPOSITORIES) -> dict[str, Repository]:
    """Reads the repositories, by name."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: Repository(**row) for row in csv.DictReader(file)}


def fetch_repository(
    repository: Repository, paths: Collection[str], folder: Path, server: str = CODELOAD
) -> None:
    """Downloads a repository and unpacks files into ``folder/NAME``, unless already done.

    An interrupted download resumes the next time, if the server can.

    Args:
      repository: the repository.
      paths: the files.
      folder: folder of all sources; it exists.
      server: address of the server of archives.

    Raises:
      SatError: the repository can't be downloaded or unpacked.
    """
    name, commit = repository.name, repository.commit
    archive = folder / ".downloads" / f"{name}-{commit}.tar.gz"

    def get_tar(_: Path) -> Path:
        url = f"{server}/{repository.repository}/tar.gz/{commit}"
        return download(url, archive, max_bytes=_MAX_BYTES, expect_prefix=_GZIP)

    # GitHub puts everything into one folder, NAME-COMMIT.
    fetch_files(name, paths, folder, get_tar, version=commit, outer_folders=1)
    archive.unlink(missing_ok=True)
