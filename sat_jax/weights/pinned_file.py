"""Files on the network whose exact content is known."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError
from sat_jax.runtime.files import cache_dir, check_readable_file
from sat_jax.weights.download import download


class PinnedFile(NamedTuple):
    """A file and its content.

    Attributes:
      url: its address, ending in its name.
      num_bytes: its size.
      sha256: its SHA-256 in hexadecimal.
    """

    url: str
    num_bytes: int
    sha256: str

    @property
    def path(self) -> Path:
        """Where the cache keeps it."""
        return cache_dir() / "published" / self.url.rpartition("/")[2]


def fetch_pinned(pinned: PinnedFile) -> Path:
    """Returns the file in the cache, downloaded unless it is there.

    Raises:
      SatError: the download failed, or the file has other content.
    """
    path = download(pinned.url, pinned.path, max_bytes=pinned.num_bytes)
    check_readable_file(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pinned.sha256:
        raise SatError(
            f"{path} is damaged or another file (SHA-256 {found}, not {pinned.sha256}): delete it "
            f"to download {pinned.url} again, or put a good copy there"
        )
    return path
