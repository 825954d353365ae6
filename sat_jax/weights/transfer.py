"""One attempt at getting one file over HTTP, going on where the last one stopped.

Own code on `urllib`: of the libraries made for downloads pooch cannot resume, and with requests or
httpx resuming, validating and finishing a file would be left to the caller all the same.

While `FILE` is on its way the folder holds `FILE.part` (the bytes so far) and `FILE.part.json`
(what they are the beginning of); only a complete file ever gets the name `FILE`.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Literal

_HEAD_BYTES = 16
_BLOCK_BYTES = 1 << 18
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What to get and where to; `sat_jax.weights.download.download` explains the fields."""

    url: str
    destination: Path
    expect_prefix: bytes | tuple[bytes, ...]
    timeout_s: float
    progress: bool

    @property
    def part(self) -> Path:
        """The file that grows until it is complete."""
        return self.destination.with_name(self.destination.name + ".part")

    @property
    def note(self) -> Path:
        """The file that says what `part` is the beginning of."""
        return self.destination.with_name(self.destination.name + ".part.json")


FailureKind = Literal["final", "offline", "passing", "spoilt"]


class FailedAttempt(Exception):
    """One attempt failed; its message is one line."""

    def __init__(self, reason: str, kind: FailureKind) -> None:
        """Tells what failed and whether another attempt is worth while.

        Args:
          reason: in words.
          kind: "final" will not change; "offline" never reached the server; "passing" may go well
            next time; "spoilt" as well, but what the part file holds is of no use.
        """
        super().__init__(" ".join(reason.split()))
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What a part file is the beginning of.

    Attributes:
      url: as asked for.
      validator: the server's strong ETag, else its Last-Modified date, else "".
      total: bytes of the whole file, None where the server did not say.
    """

    url: str
    validator: str
    total: int | None


def attempt(job: Transfer) -> None:
    """Gets what the part file lacks and, once it is complete, gives it its name.

    Raises:
      FailedAttempt: the network or the server failed; what arrived is kept.
      OSError: the file cannot be written.
    """
    origin, size = _where_to_go_on(job)
    if origin is None or size != origin.total:
        origin = _get_the_rest(job, origin, size)
    _check_complete(job, origin)
    os.replace(job.part, job.destination)
    job.note.unlink(missing_ok=True)


def discard_part(job: Transfer) -> None:
    """Removes what earlier attempts left."""
    job.note.unlink(missing_ok=True)
    job.part.unlink(missing_ok=True)


def part_size(job: Transfer) -> int:
    """Bytes that earlier attempts left."""
    return job.part.stat().st_size if job.part.exists() else 0


def _where_to_go_on(job: Transfer) -> tuple[_Origin | None, int]:
    """The origin and size of a part file worth going on with, else (None, 0)."""
    try:
        origin = _Origin(**json.loads(job.note.read_text(encoding="utf-8")))
        with job.part.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (FileNotFoundError, ValueError, TypeError):
        return None, 0
    # Without a validator nobody could say that the server still has the same file.
    worth = origin.url == job.url and origin.validator and head.startswith(job.expect_prefix)
    return (origin, part_size(job)) if worth else (None, 0)


def _get_the_rest(job: Transfer, origin: _Origin | None, size: int) -> _Origin:
    """Appends to the part file, or starts it anew; returns its origin."""
    with _request(job, origin, size) as response:
        if response.status == HTTPStatus.PARTIAL_CONTENT and origin:
            _check_goes_on(response, origin, size)
        elif response.status == HTTPStatus.OK:
            origin, size = _start_part(job, response)
        else:
            raise FailedAttempt(f"unexpected answer HTTP {response.status}", "final")
        _append_to_part(job, response, size=size, total=origin.total)
    return origin


def _request(job: Transfer, origin: _Origin | None, size: int) -> http.client.HTTPResponse:
    if not job.url.lower().startswith(("http://", "https://")):
        raise FailedAttempt("the address is not one of http or https", "final")
    headers = {"User-Agent": "sat-jax", "Accept-Encoding": "identity"}
    if origin:
        headers |= {"Range": f"bytes={size}-", "If-Range": origin.validator}
    with _network_errors_as_failures(job):
        request = urllib.request.Request(job.url, headers=headers)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=job.timeout_s)
        return response


def _check_goes_on(response: http.client.HTTPResponse, origin: _Origin, size: int) -> None:
    """Refuses a 206 that is not the rest of the same file, from servers that ignore If-Range."""
    validators = (response.headers["ETag"], response.headers["Last-Modified"])
    span = re.match(r"\s*bytes (\d+)-", response.headers.get("Content-Range", ""))
    same_place = span is not None and int(span[1]) == size
    if not same_place or (any(validators) and origin.validator not in validators):
        raise FailedAttempt("the file on the server has changed", "spoilt")


def _start_part(job: Transfer, response: http.client.HTTPResponse) -> tuple[_Origin, int]:
    """Makes a new part file with the first bytes; returns its origin and size."""
    total = response.length
    if total is None and not response.chunked:
        raise FailedAttempt("the server does not say how long the file is", "final")
    with _network_errors_as_failures(job):
        head = response.read(_HEAD_BYTES)
    if total is not None and len(head) < min(_HEAD_BYTES, total):
        raise FailedAttempt(_closed_after(len(head), total), "passing")
    # Looked at before an earlier part is dropped: a log-in page must not cost what was fetched.
    if not head.startswith(job.expect_prefix):
        content = response.headers.get_content_type()
        raise FailedAttempt(f"the server sent {content} that begins with {head!r} instead", "final")
    origin = _Origin(job.url, _validator(response), total)
    discard_part(job)
    job.note.write_text(json.dumps(dataclasses.asdict(origin)), encoding="utf-8")
    job.part.write_bytes(head)
    return origin, len(head)


def _validator(response: http.client.HTTPResponse) -> str:
    etag: str = response.headers.get("ETag", "")
    # HTTP forbids weak tags (W/"...") here: two files that differ in bytes may share one.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _append_to_part(
    job: Transfer, response: http.client.HTTPResponse, *, size: int, total: int | None
) -> None:
    from tqdm import tqdm

    bar = tqdm(
        desc=job.destination.name,
        initial=size,
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None if job.progress else True,  # None draws it on a terminal only
    )
    with bar, job.part.open("ab") as file:
        while block := _read_block(job, response):
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())


def _read_block(job: Transfer, response: http.client.HTTPResponse) -> bytes:
    with _network_errors_as_failures(job):
        return response.read1(_BLOCK_BYTES)


def _check_complete(job: Transfer, origin: _Origin) -> None:
    size = part_size(job)
    if origin.total is not None and size != origin.total:
        raise FailedAttempt(_closed_after(size, origin.total), "passing")
    # Zenodo, where the published weights are, names each file's MD5 in its ETag.
    if named := re.fullmatch(r'"md5:([0-9a-f]{32})"', origin.validator):
        with job.part.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        if found.hexdigest() != named[1]:
            reason = f"what arrived has MD5 {found.hexdigest()}, the server's file {named[1]}"
            raise FailedAttempt(reason, "spoilt")


@contextlib.contextmanager
def _network_errors_as_failures(job: Transfer) -> Iterator[None]:
    """Turns what `urllib` raises into `FailedAttempt`, so that OSError is left to the disk."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:  # it is the response, too
            raise _status_failure(error) from error
    except urllib.error.URLError as error:
        # The request could not be sent; errors of the answer come unwrapped.
        reason = error.reason if isinstance(error.reason, OSError) else error
        raise FailedAttempt(_in_words(reason, job.timeout_s), _unsent_kind(reason)) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise FailedAttempt(f"not a valid address ({error})", "final") from error
    except (OSError, http.client.HTTPException) as error:
        raise FailedAttempt(_in_words(error, job.timeout_s), "passing") from error


def _status_failure(error: urllib.error.HTTPError) -> FailedAttempt:
    reason = f"HTTP {error.code} {error.reason}"
    if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return FailedAttempt(reason, "spoilt")
    return FailedAttempt(reason, "passing" if error.code in _PASSING_STATUS else "final")


def _unsent_kind(error: OSError) -> FailureKind:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "final"
    broken = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
    return "passing" if isinstance(error, broken) else "offline"


def _in_words(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, socket.gaierror):
        return f"no network, or no host of that name ({error.strerror})"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection closed early"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _closed_after(size: int, total: int) -> str:
    return f"the connection closed after {size} of {total} bytes"
