"""Files over HTTP into a cache folder, and the published weights by name."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sat_jax.errors import SatError
from sat_jax.runtime.cache_dir import cache_dir
from sat_jax.weights.bundled import bundled_names
from sat_jax.weights.transfer import FailedAttempt, Transfer, attempt, discard_part, part_size

PUBLISHED_FILES: dict[str, str] = {
    "audiotransformer_tiny": "audiotransformer_tiny_mAP_44_15.pt",
    "audiotransformer_small": "audiotransformer_small_mAP_45_68.pt",
    "audiotransformer_base": "audiotransformer_base_mAP_47_40.pt",
    "SAT_T_2s": "SAT_T_stream2s_mAP_43_34.pt",
    "SAT_S_2s": "SAT_S_stream2s_mAP_43_37.pt",
    "SAT_B_2s": "SAT_B_stream2s_mAP_45_29.pt",
    "SAT_T_1s": "SAT_T_stream1s_mAP_40_11.pt",
    "SAT_S_1s": "SAT_S_stream1s_mAP_40_55.pt",
    "SAT_B_1s": "SAT_B_stream1s_mAP_41_37.pt",
}
"""File of each published model, by registry name."""

PUBLISHED_URL = "https://zenodo.org/record/7964975/files/{name}?download=1"

_TORCH_PREFIXES = (b"PK", b"\x80")
"""First bytes of what torch writes: a zip archive, or before torch 1.6 a bare pickle."""


def published_url(name: str) -> str:
    """Where the published weights of the model `name` are.

    The environment variable `SAT_JAX_WEIGHTS_URL` names a mirror: a URL with `{name}` where the
    file name goes, or the URL of a folder.

    Raises:
      SatError: no weights of that name are published.
    """
    if name not in PUBLISHED_FILES:
        raise SatError(
            f"no weights are published as {name!r}: choose from "
            f"{', '.join([*bundled_names(), *PUBLISHED_FILES])}"
        )
    form = os.environ.get("SAT_JAX_WEIGHTS_URL") or PUBLISHED_URL
    if "{name}" not in form:
        form = form.rstrip("/") + "/{name}"
    return form.replace("{name}", PUBLISHED_FILES[name])


def fetch_published(name: str, *, progress: bool = True) -> Path:
    """The local `.pt` file of a published model, downloaded if it is not in the cache.

    Args:
      name: a key of `PUBLISHED_FILES`.
      progress: whether to draw a progress bar where standard error is a terminal.

    Raises:
      SatError: the name is unknown or the file cannot be had.
    """
    url = published_url(name)
    destination = cache_dir() / "published" / PUBLISHED_FILES[name]
    try:
        return download(url, destination, progress=progress, expect_prefix=_TORCH_PREFIXES)
    except _DownloadError as error:
        raise SatError(f"{error}, or give its path in place of the name") from error


class _DownloadError(SatError):
    """The file could not be had from the server."""


def download(
    url: str,
    destination: Path,
    *,
    progress: bool = True,
    expect_prefix: bytes | tuple[bytes, ...] = b"",
    timeout_s: float = 30.0,
    retries: int = 4,
    backoff_s: float = 1.0,
    lock_timeout_s: float = 3600.0,
) -> Path:
    """Fetches `url` to `destination`; asks nothing of the network if that file is there.

    An interrupted download goes on where it stopped, also in a later process, if the server can
    do that and still has the same file. Processes that want the same file wait for one of them.

    Args:
      url: an http or https address.
      destination: the file to write; its folder is made.
      progress: whether to draw a progress bar where standard error is a terminal.
      expect_prefix: how the file must begin (with one of them, for a tuple), at most 16 bytes: an
        error page that is sent in its place is refused.
      timeout_s: seconds of silence after which the server is given up.
      retries: how many times in a row to try again after a failure that may pass.
      backoff_s: seconds before the first of these, doubled before each further one.
      lock_timeout_s: seconds to wait for another process that downloads the same file.

    Returns:
      `destination`.

    Raises:
      SatError: the file cannot be had or cannot be written.
    """
    job = Transfer(url, destination, expect_prefix, timeout_s, progress)
    try:
        if not destination.is_file():
            destination.parent.mkdir(parents=True, exist_ok=True)
            with _only_one_process(job, lock_timeout_s):
                if not destination.is_file():
                    _try_until_complete(job, retries, backoff_s)
    except OSError as error:
        raise SatError(
            f"cannot write {error.filename or destination}: {error.strerror or error}; mend that "
            f"or choose another cache folder with SAT_JAX_CACHE"
        ) from error
    return destination


@contextlib.contextmanager
def _only_one_process(job: Transfer, timeout_s: float) -> Iterator[None]:
    import filelock

    # The operating system drops this lock with its process, so a killed one leaves none behind.
    lock = filelock.FileLock(f"{job.destination}.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if job.progress and sys.stderr.isatty():
                print(f"another process is downloading {job.destination}", file=sys.stderr)
            lock.acquire(timeout=timeout_s)
    except filelock.Timeout as error:
        raise SatError(
            f"another process has been downloading {job.destination} for over {timeout_s:g} s: "
            f"wait for it or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _try_until_complete(job: Transfer, retries: int, backoff_s: float) -> None:
    failures, farthest, answered = 0, part_size(job), False
    while True:
        try:
            return attempt(job)
        except FailedAttempt as failure:
            farthest, before = max(farthest, part_size(job)), farthest
            if failure.kind == "spoilt":
                discard_part(job)
            # A bad line that keeps getting farther is not given up.
            failures = 1 if farthest > before else failures + 1
            # A machine without a network is told so at once; a network that was lost may return.
            lasting = failure.kind == "final" or (failure.kind == "offline" and not answered)
            answered = answered or failure.kind != "offline"
            if lasting or failures > retries:
                raise _DownloadError(
                    f"cannot download {job.url}: {failure}; download it elsewhere and put it at "
                    f"{job.destination}"
                ) from failure
        time.sleep(backoff_s * 2 ** (failures - 1))
