"""Downloads a file over HTTP: resumes, retries, and names the file only when it is complete.

Own code on urllib: pooch cannot resume; requests, httpx and urllib3 leave resuming and checking to
the caller; huggingface_hub resumes without asking whether the file is still the same.
"""

import contextlib
import glob
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

RETRIES = 4
"""Attempts without progress, after the first one."""

BACKOFF_S = 1.0
"""Seconds before the first retry; doubles for each further one."""

TIMEOUT_S = 30.0
"""Seconds of silence after which an attempt fails."""

LOCK_TIMEOUT_S = 3600.0
"""Seconds to wait for another process that downloads the same file."""

_BLOCK_BYTES = 1 << 18
_HEAD_BYTES = 16
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def download(
    url: str,
    file: Path,
    *,
    max_bytes: int,
    expect_prefix: bytes | tuple[bytes, ...] = b"",
    progress: bool = True,
) -> Path:
    """Downloads `url` to `file`, unless `file` exists.

    An interrupted download resumes, also in a later process, if the server supports it and its
    file is unchanged. Several processes that want the same file wait for one of them. While a
    download runs, the bytes so far are in ``FILE.HASH.part``.

    Args:
      url: an http or https address.
      file: the file to write; its folder is created.
      max_bytes: a longer file is refused.
      expect_prefix: the file must begin with this (or one of these), at most 16 bytes; servers
        may send a log-in or error page instead.
      progress: draw a progress bar if standard error is a terminal.

    Returns:
      `file`.

    Raises:
      SatError: the download failed, or `file` cannot be written.
    """
    if not file.is_file():
        with explain_write_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with _lock(file, progress=progress):
                if not file.is_file():
                    _Download(url, file, max_bytes, expect_prefix, progress).run()
    return file


def without_secrets(url: str) -> str:
    """A URL without user, password, query and fragment, which may hold credentials."""
    return re.sub(r"(?<=://)[^/]*@", "", re.split(r"[?#]", url)[0])


@contextlib.contextmanager
def _lock(file: Path, *, progress: bool) -> Iterator[None]:
    import filelock

    # The operating system releases this lock when its process is killed.
    lock = filelock.FileLock(f"{file}.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if progress and sys.stderr.isatty():
                print(f"another process is downloading {file}", file=sys.stderr)
            lock.acquire(timeout=LOCK_TIMEOUT_S)
    except filelock.Timeout as error:
        raise SatError(
            f"another process has been downloading {file} for over {LOCK_TIMEOUT_S:g} s: wait for "
            f"it or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


class _AttemptError(Exception):
    """One attempt failed.

    Attributes:
      retry: whether another attempt may succeed; None if only one that reaches the server may.
    """

    def __init__(self, reason: str, *, retry: bool | None = True) -> None:
        super().__init__(" ".join(reason.split()))
        self.retry = retry


class _Download:
    """One download; the arguments are those of `download`."""

    def __init__(
        self,
        url: str,
        file: Path,
        max_bytes: int,
        expect_prefix: bytes | tuple[bytes, ...],
        progress: bool,
    ) -> None:
        self._url, self._file, self._max_bytes = url, file, max_bytes
        self._expect_prefix, self._progress = expect_prefix, progress
        self._size = 0
        """Bytes that the last attempt left on disk."""

    def run(self) -> None:
        """Makes attempts until one succeeds or too many bring no progress."""
        failures, farthest, reached = 0, 0, False
        while True:
            try:
                return self._attempt()
            except _AttemptError as failure:
                failures = 1 if self._size > farthest else failures + 1
                farthest = max(farthest, self._size)
                # Without a network the user hears at once; a connection lost later may return.
                reached = reached or failure.retry is not None
                if failure.retry is False or not reached or failures > RETRIES:
                    raise SatError(
                        f"cannot download {without_secrets(self._url)}: {failure}; download it "
                        f"elsewhere and put it at {self._file}"
                    ) from failure
            time.sleep(BACKOFF_S * 2 ** (failures - 1))

    def _attempt(self) -> None:
        """Downloads the missing bytes, checks the whole, and gives it its name."""
        with self._open() as response:
            total = response.length
            if total is None and not response.chunked:
                raise _AttemptError("the server does not say how long the file is", retry=False)
            self._check_size(total or 0)
            validator = _validator(response)
            part = self._part(validator, total)
            can_resume = validator and total is not None and part.exists()
            self._size = part.stat().st_size if can_resume else 0
            if not (resume := self._size > 0):
                self._write(response, part, total)
        if resume and self._size != total:
            self._resume(part, validator, total)
        if total is not None and self._size != total:
            raise _AttemptError(f"the connection closed after {self._size} of {total} bytes")
        if not _has_named_md5(part, validator):
            part.unlink()
            raise _AttemptError(f"the file is damaged: its MD5 is not the server's {validator}")
        os.replace(part, self._file)
        for old in self._file.parent.glob(f"{glob.escape(self._file.name)}.*.part"):
            old.unlink(missing_ok=True)

    def _open(self, **headers: str) -> http.client.HTTPResponse:
        if not self._url.lower().startswith(("http://", "https://")):
            raise _AttemptError("the address does not begin with http:// or https://", retry=False)
        headers |= {"User-Agent": "sat-jax", "Accept-Encoding": "identity"}
        with _network_errors():
            request = urllib.request.Request(self._url, headers=headers)
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
            return response

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise _AttemptError(f"the file has more than {self._max_bytes} bytes", retry=False)

    def _part(self, validator: str, total: int | None) -> Path:
        """The file for the bytes so far; another one if the file on the server changes."""
        identity = hashlib.sha256(repr((self._url, validator, total)).encode()).hexdigest()[:16]
        return self._file.with_name(f"{self._file.name}.{identity}.part")

    def _resume(self, part: Path, validator: str, total: int | None) -> None:
        headers = {"Range": f"bytes={self._size}-", "If-Range": validator}
        with self._open(**headers) as response:
            # 200 sends the whole file; some servers answer 206 from a wrong place.
            if not response.headers.get("Content-Range", "").startswith(f"bytes {self._size}-"):
                part.unlink()
                raise _AttemptError("the server cannot resume this download")
            self._write(response, part, total)

    def _write(self, response: http.client.HTTPResponse, part: Path, total: int | None) -> None:
        """Appends the response to the part, or starts the part."""
        from tqdm import tqdm

        head = b"" if self._size else self._read_head(response, total)
        bar = tqdm(
            desc=self._file.name,
            initial=self._size,
            total=total,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=None if self._progress else True,  # None: only on a terminal
        )
        with bar, part.open("ab" if self._size else "wb") as file:
            while block := head or _read(response):
                self._check_size(self._size + len(block))
                self._size += file.write(block)
                bar.update(len(block))
                head = b""
            file.flush()
            os.fsync(file.fileno())

    def _read_head(self, response: http.client.HTTPResponse, total: int | None) -> bytes:
        with _network_errors():
            head = response.read(_HEAD_BYTES)
        if len(head) < min(_HEAD_BYTES, total or 0):
            raise _AttemptError(f"the connection closed after {len(head)} of {total} bytes")
        if not head.startswith(self._expect_prefix):
            content = response.headers.get_content_type()
            reason = f"the server sent {content} that begins with {head!r} instead"
            raise _AttemptError(reason, retry=False)
        return head


def _validator(response: http.client.HTTPResponse) -> str:
    etag: str = response.headers.get("ETag", "")
    # HTTP forbids weak tags (W/"...") in If-Range: two different files may share one.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _read(response: http.client.HTTPResponse) -> bytes:
    with _network_errors():
        return response.read1(_BLOCK_BYTES)


def _has_named_md5(part: Path, etag: str) -> bool:
    """Whether a file has the MD5 that its ETag names, as on Zenodo; true if it names none."""
    named = re.fullmatch(r'"md5:([0-9a-f]{32})"', etag)
    if not named:
        return True
    with part.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return md5.hexdigest() == named[1]


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Turns errors of the network into `_AttemptError`; an OSError then means the disk."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:  # It is the response, too.
            # Not the server's words, which may quote an address with credentials.
            reason = f"HTTP {error.code} {http.client.responses.get(error.code, '')}"
            raise _AttemptError(reason, retry=error.code in _RETRIED_STATUS) from error
    except (http.client.InvalidURL, ValueError) as error:
        # The text of the error may quote a password.
        raise _AttemptError("not a valid address", retry=False) from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)  # a URLError's is the system's error
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        # A URLError comes from a request that was not sent, others from a broken connection.
        retry = None if isinstance(error, urllib.error.URLError) else True
        raise _AttemptError(text, retry=retry) from error
