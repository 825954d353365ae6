"""Downloads from a server on loopback that fails in the ways that servers fail."""

import concurrent.futures
import errno
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.weights import download as module
from sat_jax.weights.download import download, without_secrets
from tests.support.file_server import Answer, Remote, serve

BODY = b"PK\x03\x04" + np.random.default_rng(0).bytes(300_000)
OTHER_BODY = b"PK\x03\x04" + np.random.default_rng(1).bytes(300_000)
QUICK: dict[str, Any] = {"max_bytes": 2**20, "expect_prefix": b"PK"}


@pytest.fixture(autouse=True)
def _direct_and_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # urllib reads the environment when it builds its first opener, and keeps that.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(module, "BACKOFF_S", 0.0)


@pytest.fixture(name="remote")
def _remote() -> Iterator[Remote]:
    with serve(Remote(body=BODY)) as remote:
        yield remote


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.pt"


def get(remote: Remote, file: Path, **options: Any) -> bytes:
    """Downloads, and checks that only the file (and its lock) remains."""
    assert download(remote.url, file, **(QUICK | options)) == file
    assert {path.name for path in file.parent.iterdir()} <= {file.name, file.name + ".lock"}
    return file.read_bytes()


def fail(url: str, file: Path, **options: Any) -> str:
    """The message of a download that must fail: one line with the URL and the file."""
    with pytest.raises(SatError) as caught:
        download(url, file, **(QUICK | options))
    message = str(caught.value)
    assert "\n" not in message
    assert without_secrets(url) in message
    assert str(file) in message
    assert not file.exists()
    return message


def interrupt(remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """Leaves the first `cut` bytes on disk, as a killed program does."""
    remote.answers = [Answer(cut=cut)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "RETRIES", 0)
        fail(remote.url, file)
    assert part_of(file).read_bytes() == remote.body[:cut]


def part_of(file: Path) -> Path:
    (part,) = file.parent.glob(f"{file.name}.*.part")
    return part


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("body", [BODY, BODY[:17], BODY[:2]], ids=len)
def test_whole_file_in_one_request(remote: Remote, file: Path, framing: str, body: bytes) -> None:
    remote.framing, remote.body = framing, body
    assert get(remote, file) == body
    assert remote.ranges_asked() == [None]


def test_existing_file_makes_no_request(remote: Remote, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"mine")
    assert download(remote.url, file, max_bytes=9) == file
    assert file.read_bytes() == b"mine"
    assert remote.requests == []


@pytest.mark.parametrize("headers", [{"ETag": '"v1"'}, {"Last-Modified": "Tue, 01 Aug 2023"}])
@pytest.mark.parametrize("cut", [16, 150_000, len(BODY) - 1])
def test_resumes_after_a_cut_connection(
    remote: Remote, file: Path, cut: int, headers: dict[str, str]
) -> None:
    remote.headers = headers
    remote.answers = [Answer(cut=cut, reset=cut == 150_000)]
    assert get(remote, file) == BODY
    _, asked = remote.requests[-1]
    assert asked["If-Range"] == next(iter(headers.values()))
    assert int(asked["Range"].removeprefix("bytes=").removesuffix("-")) <= cut


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}])
def test_without_a_strong_validator_it_starts_over(
    remote: Remote, file: Path, headers: dict[str, str]
) -> None:
    remote.headers = headers
    remote.answers = [Answer(cut=1000)]
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None, None]


@pytest.mark.parametrize(
    "abilities", [{"ranges": False}, {"range_shift": -5000}, {"range_shift": 5000}]
)
def test_server_that_cannot_resume(
    remote: Remote, file: Path, abilities: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(remote, file, monkeypatch, 100_000)
    for name, value in abilities.items():
        setattr(remote, name, value)
    assert get(remote, file) == BODY


def test_later_call_resumes(remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(remote, file, monkeypatch, 120_000)
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None, None, "bytes=120000-"]


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize(
    ("body", "etag"),
    [(OTHER_BODY, '"v2"'), (OTHER_BODY[:50_000], '"v2"'), (OTHER_BODY + b"more", '"v1"')],
    ids=["other", "shorter", "longer"],
)
def test_two_versions_are_not_spliced(
    remote: Remote,
    file: Path,
    if_range: bool,
    body: bytes,
    etag: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupt(remote, file, monkeypatch, 100_000)
    remote.body, remote.headers, remote.if_range = body, {"ETag": etag}, if_range
    assert get(remote, file) == body


def test_two_urls_are_not_spliced(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(remote, file, monkeypatch, 100_000)
    remote.body, remote.url = OTHER_BODY, remote.url + "?version=2"
    assert get(remote, file) == OTHER_BODY


def test_md5_in_the_etag_is_checked(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.headers = {"ETag": f'"md5:{hashlib.md5(BODY).hexdigest()}"'}
    interrupt(remote, file, monkeypatch, 100_000)
    part_of(file).write_bytes(BODY[:50_000] + bytes(50_000))  # as after a loss of power
    assert get(remote, file) == BODY
    file.unlink()
    remote.headers = {"ETag": f'"md5:{hashlib.md5(OTHER_BODY).hexdigest()}"'}
    assert hashlib.md5(OTHER_BODY).hexdigest() in fail(remote.url, file)
    assert not list(file.parent.glob("*.part"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_server_that_is_down_for_a_moment(remote: Remote, file: Path, status: int) -> None:
    remote.answers = [Answer(status=status), Answer(status=status)]
    assert get(remote, file) == BODY


def test_pauses_double(remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module, "BACKOFF_S", 0.5)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    remote.answers = [Answer(status=500) for _ in range(3)]
    assert get(remote, file) == BODY
    assert pauses == [0.5, 1.0, 2.0]


def test_progress_resets_the_count_of_failures(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 1)
    # Each resumption makes two requests.
    remote.answers = [Answer(cut=20_000) for _ in range(1 + 2 * 10)]
    assert get(remote, file) == BODY


@pytest.mark.parametrize("cuts", [[20_000], [30_000, 20_000]])
def test_connection_that_brings_no_progress_is_given_up(
    remote: Remote, file: Path, cuts: list[int]
) -> None:
    remote.headers = {}
    remote.answers = [Answer(cut=cut) for cut in cuts * 10]
    assert str(len(BODY)) in fail(remote.url, file)
    assert len(remote.requests) == 1 + module.RETRIES


@pytest.mark.parametrize(
    ("changes", "answer", "named"),
    [
        ({}, Answer(status=404), "404"),
        ({"framing": "close"}, Answer(), "long"),
        ({"body": b"<html>" * 99, "headers": {"Content-Type": "text/html"}}, Answer(), "text/html"),
    ],
    ids=["missing", "no length", "page"],
)
def test_final_failures_are_not_retried(
    remote: Remote, file: Path, changes: dict[str, Any], answer: Answer, named: str
) -> None:
    remote.answers = [answer]
    for name, value in changes.items():
        setattr(remote, name, value)
    assert named in fail(remote.url, file)
    assert len(remote.requests) == 1
    assert not list(file.parent.glob("*.part"))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_larger_files_than_expected_are_refused(remote: Remote, file: Path, framing: str) -> None:
    remote.framing = framing
    assert "200000" in fail(remote.url, file, max_bytes=200_000)
    assert get(remote, file, max_bytes=len(BODY)) == BODY


def test_log_in_page_does_not_cost_an_earlier_part(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(remote, file, monkeypatch, 100_000)
    good = remote.headers
    remote.body, remote.headers = b"<html>" * 99, {}
    fail(remote.url, file)
    remote.body, remote.headers = BODY, good
    assert get(remote, file, expect_prefix=(b"\x80", b"PK")) == BODY
    assert remote.ranges_asked()[-1] == "bytes=100000-"


@pytest.mark.parametrize("changes", [{"claimed_extra": 10}, {"framing": "chunked"}])
def test_incomplete_file_is_never_kept(
    remote: Remote, file: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 0)
    remote.ranges = False
    remote.answers = [Answer(cut=100_000)]
    for name, value in changes.items():
        setattr(remote, name, value)
    fail(remote.url, file)


@pytest.mark.parametrize("cut", [0, 1000])
def test_silent_server(
    remote: Remote, file: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 0)
    remote.answers = [Answer(cut=cut, stall=True)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "TIMEOUT_S", 0.05)
        assert "timed out" in fail(remote.url, file)
    assert get(remote, file) == BODY


def test_nobody_listens(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 60.0)
    start = time.monotonic()
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        fail(f"http://127.0.0.1:{bound_but_deaf.getsockname()[1]}/weights.pt", file)
    assert time.monotonic() - start < 30


def test_no_network(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name_server(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "no name server")

    monkeypatch.setattr(module, "BACKOFF_S", 60.0)
    monkeypatch.setattr(socket, "getaddrinfo", no_name_server)
    assert "no name server" in fail("http://weights.invalid/weights.pt", file)


def test_lost_network_is_waited_for(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect: Callable[..., socket.socket] = socket.create_connection
    attempts: list[int] = []

    def second_one_fails(*arguments: Any, **options: Any) -> socket.socket:
        attempts.append(len(attempts))
        if len(attempts) == 2:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", second_one_fails)
    remote.answers = [Answer(cut=100_000)]
    assert get(remote, file) == BODY


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "/x",
        "http://127.0.0.1:port/x",
        "http://",
        "http://me:secret@127.0.0.1/x?token=secret",
        "http://127.0.0.1:9/x?token=secret#secret",
    ],
)
def test_bad_addresses_and_their_secrets(file: Path, url: str) -> None:
    assert "secret" not in fail(url, file)


def test_proxy_of_the_environment_is_used(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", remote.url.removesuffix("/weights.pt"))
    download("http://weights.invalid/a.pt", file, **QUICK)
    assert remote.requests[0][0] == "http://weights.invalid/a.pt"


def test_concurrent_downloads_make_one_request(remote: Remote, file: Path) -> None:
    def get_quietly() -> bytes:
        return download(remote.url, file, **QUICK).read_bytes()

    remote.answers = [Answer(stall=True)]  # until all have started
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [pool.submit(get_quietly) for _ in range(4)]
        concurrent.futures.wait(results, timeout=0.2)
        remote.release.set()
        assert [result.result() for result in results] == [BODY] * 4
    assert remote.ranges_asked() == [None]


def test_lock_that_is_held_for_too_long(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.1)
    file.parent.mkdir()
    with (
        filelock.FileLock(f"{file}.lock"),
        concurrent.futures.ThreadPoolExecutor(1) as other,
        pytest.raises(SatError, match="another process") as caught,
    ):
        other.submit(download, remote.url, file, max_bytes=9).result()
    assert str(file) in str(caught.value)
    assert get(remote, file) == BODY


def test_killed_process_leaves_a_part_to_resume_and_no_lock(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=200_000, stall=True)]
    code = (
        "import sys, pathlib; from sat_jax.weights.download import download; "
        "download(sys.argv[1], pathlib.Path(sys.argv[2]), max_bytes=2**20)"
    )
    command = [sys.executable, "-c", code, remote.url, str(file)]
    root = str(Path(module.__file__).parents[2])
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}) as process:
        deadline = time.monotonic() + 60
        while not any(p.stat().st_size > 100_000 for p in file.parent.glob("*.part")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    remote.release.set()
    size = part_of(file).stat().st_size
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None, None, f"bytes={size}-"]


def test_folder_that_cannot_be_made(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "taken"))) as caught:
        download(remote.url, tmp_path / "taken" / "weights.pt", max_bytes=9)
    assert "SAT_JAX_CACHE" not in str(caught.value)
    assert remote.requests == []


def test_full_disk_is_reported_and_resumed(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SatError, match="No space left") as caught:
            download(remote.url, file, max_bytes=2**20)
    assert str(file) in str(caught.value)
    assert get(remote, file) == BODY


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_progress_bar_is_for_terminals_only(
    remote: Remote,
    file: Path,
    kind: type[io.StringIO],
    progress: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = kind()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", output)
        get(remote, file, progress=progress)
    if kind is Terminal and progress:
        assert "weights.pt" in output.getvalue() and "100%" in output.getvalue()
    else:
        assert output.getvalue() == ""
