"""Downloads against a server on loopback that fails in every way that servers do."""

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
import platformdirs
import pytest

from sat_jax.errors import SatError
from sat_jax.weights import download as download_module
from sat_jax.weights.download import (
    PUBLISHED_FILES,
    cache_dir,
    download,
    fetch_published,
    published_url,
)
from tests.support.file_server import Answer, Remote, serve

BODY = b"PK\x03\x04" + np.random.default_rng(0).bytes(300_000)
OTHER_BODY = b"PK\x03\x04" + np.random.default_rng(1).bytes(300_000)
QUICK: dict[str, Any] = {"backoff_s": 0.0, "timeout_s": 5.0, "expect_prefix": b"PK"}


@pytest.fixture(autouse=True)
def _straight_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # urllib looks at the environment when it builds its first opener, and keeps that.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.fixture(name="remote")
def _remote() -> Iterator[Remote]:
    with serve(Remote(body=BODY)) as remote:
        yield remote


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.pt"


@pytest.fixture(name="refusing_url")
def _refusing_url() -> Iterator[str]:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound_but_deaf.getsockname()[1]}/weights.pt"


def get(remote: Remote, file: Path, **options: Any) -> bytes:
    """Downloads without pauses and checks that nothing but the file (and a lock) remains."""
    assert download(remote.url, file, **(QUICK | options)) == file
    assert {path.name for path in file.parent.iterdir()} <= {file.name, file.name + ".lock"}
    return file.read_bytes()


def fail(url: str, file: Path, **options: Any) -> str:
    """The message of a download that must fail: one line, with the URL and the way out."""
    with pytest.raises(SatError) as caught:
        download(url, file, **(QUICK | options))
    message = str(caught.value)
    assert "\n" not in message
    assert url in message
    assert f"put it at {file}" in message
    assert not file.exists()
    return message


def part_of(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def test_whole_file_in_one_request(remote: Remote, file: Path) -> None:
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None]


def test_file_that_is_there_asks_nothing(remote: Remote, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"mine")
    assert download(remote.url, file) == file
    assert file.read_bytes() == b"mine"
    assert remote.requests == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("body", [BODY, BODY[:17], BODY[:2]])
def test_any_length_and_framing(remote: Remote, file: Path, framing: str, body: bytes) -> None:
    remote.framing, remote.body = framing, body
    assert get(remote, file) == body


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17, 150_000, len(BODY) - 1])
def test_cut_connection_goes_on_where_it_stopped(remote: Remote, file: Path, cut: int) -> None:
    remote.answers = [Answer(cut=cut)]
    assert get(remote, file) == BODY
    goes_on = f"bytes={cut}-" if cut >= 16 else None
    assert remote.ranges_asked() == [None, goes_on]


def test_reset_connection_is_tried_again(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=100_000, reset=True), Answer(cut=100_000, reset=True)]
    assert get(remote, file) == BODY
    assert len(remote.requests) == 3


def test_last_modified_validates_where_there_is_no_strong_etag(remote: Remote, file: Path) -> None:
    remote.headers = {"ETag": 'W/"v1"', "Last-Modified": "Tue, 01 Aug 2023 10:00:00 GMT"}
    remote.answers = [Answer(cut=1000)]
    assert get(remote, file) == BODY
    assert remote.requests[1][1]["If-Range"] == remote.headers["Last-Modified"]


def test_no_validator_starts_over(remote: Remote, file: Path) -> None:
    remote.headers = {}
    remote.answers = [Answer(cut=1000)]
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None, None]


def test_server_without_ranges_starts_over(remote: Remote, file: Path) -> None:
    remote.ranges = False
    remote.answers = [Answer(cut=200_000)]
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None, "bytes=200000-"]


def test_line_that_keeps_breaking_but_gets_farther_is_not_given_up(
    remote: Remote, file: Path
) -> None:
    remote.answers = [Answer(cut=20_000) for _ in range(10)]
    assert get(remote, file, retries=1) == BODY
    assert len(remote.requests) == 11


def test_line_that_gets_no_farther_is_given_up(remote: Remote, file: Path) -> None:
    remote.ranges = False
    remote.answers = [Answer(cut=20_000) for _ in range(10)]
    assert "the connection closed" in fail(remote.url, file, retries=2)
    assert len(remote.requests) == 3


def test_line_that_breaks_now_sooner_now_later_is_given_up(remote: Remote, file: Path) -> None:
    remote.ranges = False
    remote.answers = [Answer(cut=cut) for cut in (30_000, 20_000) * 10]
    fail(remote.url, file, retries=2)
    assert len(remote.requests) == 3


def test_later_call_goes_on(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=120_000)]
    fail(remote.url, file, retries=0)
    assert part_of(file).read_bytes() == BODY[:120_000]
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None, "bytes=120000-"]


def test_complete_part_needs_only_its_name(remote: Remote, file: Path, monkeypatch: Any) -> None:
    def no_replace(*paths: Path) -> None:
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_replace)
        with pytest.raises(SatError, match=r"cannot write .*weights\.pt: injected"):
            download(remote.url, file)
    assert get(remote, file) == BODY
    assert len(remote.requests) == 1


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("body", [OTHER_BODY, OTHER_BODY[:150_000], OTHER_BODY[:50_000]])
def test_changed_file_is_not_spliced(
    remote: Remote, file: Path, if_range: bool, body: bytes
) -> None:
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    remote.body, remote.headers, remote.if_range = body, {"ETag": '"v2"'}, if_range
    assert get(remote, file) == body


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("shift", [-5000, 5000])
def test_range_from_a_wrong_place_is_not_spliced(
    remote: Remote, file: Path, framing: str, shift: int
) -> None:
    remote.framing = framing
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    remote.range_shift = shift
    assert get(remote, file) == BODY


def test_range_without_validators_is_taken_at_its_word(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    remote.headers, remote.if_range = {}, False
    assert get(remote, file) == BODY
    assert remote.ranges_asked() == [None, "bytes=100000-"]


def test_other_length_under_the_same_validator_is_not_spliced(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    remote.body = OTHER_BODY + b"more"
    assert get(remote, file) == remote.body


def test_full_disk_at_a_fresh_start_does_not_mix_old_and_new(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    remote.body, remote.headers = OTHER_BODY, {"ETag": '"v2"'}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(SatError, match=r"cannot write .*weights\.pt: No space left on device"):
            download(remote.url, file)
    assert get(remote, file) == OTHER_BODY


def test_part_with_a_damaged_head_starts_over(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    part_of(file).write_bytes(bytes(100_000))
    assert get(remote, file) == BODY


def test_part_of_another_url_is_not_spliced(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url + "?version=1", file, retries=0)
    remote.body = OTHER_BODY
    assert get(remote, file) == OTHER_BODY


@pytest.mark.parametrize("note", [None, b"", b"{", b"[]", b"{}", b"\xff"])
def test_part_without_a_readable_note_starts_over(
    remote: Remote, file: Path, note: bytes | None
) -> None:
    file.parent.mkdir()
    part_of(file).write_bytes(b"PK" + b"x" * 1000)
    if note is not None:
        file.with_name(file.name + ".part.json").write_bytes(note)
    assert get(remote, file) == BODY


def test_md5_in_the_etag_is_checked(remote: Remote, file: Path) -> None:
    remote.headers = {"ETag": f'"md5:{hashlib.md5(BODY).hexdigest()}"'}
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    part = part_of(file)
    part.write_bytes(part.read_bytes()[:50_000] + bytes(50_000))  # as after a loss of power
    assert get(remote, file) == BODY


def test_wrong_md5_is_refused(remote: Remote, file: Path) -> None:
    remote.headers = {"ETag": f'"md5:{hashlib.md5(OTHER_BODY).hexdigest()}"'}
    assert "MD5" in fail(remote.url, file, retries=1)
    assert not part_of(file).exists()


def test_missing_file_is_not_tried_again(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(status=404)]
    assert "HTTP 404 Not Found" in fail(remote.url, file)
    assert len(remote.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_server_that_is_down_for_a_moment(remote: Remote, file: Path, status: int) -> None:
    remote.answers = [Answer(status=status), Answer(status=status)]
    assert get(remote, file, retries=2) == BODY


def test_server_that_stays_down(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(status=503) for _ in range(9)]
    assert "HTTP 503" in fail(remote.url, file, retries=3)
    assert len(remote.requests) == 4


def test_pauses_double(remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download_module.time, "sleep", pauses.append)
    remote.answers = [Answer(status=500) for _ in range(3)]
    assert get(remote, file, backoff_s=0.5) == BODY
    assert pauses == [0.5, 1.0, 2.0]


def test_wrong_content_length_is_never_complete(remote: Remote, file: Path) -> None:
    remote.ranges, remote.claimed_extra = False, 10
    assert "the connection closed" in fail(remote.url, file, retries=1)


def test_cut_chunks_are_not_complete(remote: Remote, file: Path) -> None:
    remote.framing, remote.headers = "chunked", {}
    remote.answers = [Answer(cut=100_000)]
    assert "closed early" in fail(remote.url, file, retries=0)
    assert get(remote, file) == BODY


def test_length_that_nobody_can_check_is_refused(remote: Remote, file: Path) -> None:
    remote.framing = "close"
    assert "how long" in fail(remote.url, file)


def test_page_instead_of_the_file(remote: Remote, file: Path) -> None:
    remote.body, remote.headers = b"<!DOCTYPE html>" * 99, {"Content-Type": "text/html"}
    message = fail(remote.url, file)
    assert "text/html" in message
    assert "<!DOCTYPE html>" in message
    assert not part_of(file).exists()
    assert len(remote.requests) == 1


def test_page_does_not_cost_an_earlier_part(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=100_000)]
    fail(remote.url, file, retries=0)
    good = remote.headers
    remote.body, remote.headers = b"<html>" * 99, {"Content-Type": "text/html"}
    fail(remote.url, file)
    remote.body, remote.headers = BODY, good
    assert get(remote, file) == BODY
    assert remote.ranges_asked()[-1] == "bytes=100000-"


def test_one_of_several_prefixes(remote: Remote, file: Path) -> None:
    assert get(remote, file, expect_prefix=(b"\x80", b"PK")) == BODY


@pytest.mark.parametrize("cut", [0, 1000])
def test_silent_server(remote: Remote, file: Path, cut: int) -> None:
    remote.answers = [Answer(cut=cut, stall=True)]
    assert "no answer within 0.05 s" in fail(remote.url, file, retries=0, timeout_s=0.05)
    assert get(remote, file) == BODY


def test_nobody_listens(refusing_url: str, file: Path) -> None:
    start = time.monotonic()
    assert "Connection refused" in fail(refusing_url, file, backoff_s=60.0)
    assert time.monotonic() - start < 30


def test_no_network(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name_server(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name_server)
    message = fail("http://weights.invalid/weights.pt", file, backoff_s=60.0)
    assert "Temporary failure in name resolution" in message


def test_network_lost_on_the_way_is_waited_for(
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
    assert len(attempts) == 3


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "/x", "http://127.0.0.1:port/x", "http://"])
def test_bad_address(file: Path, url: str) -> None:
    assert "address" in fail(url, file)


def test_proxy_of_the_environment_is_used(
    remote: Remote, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", remote.url.removesuffix("/weights.pt"))
    download("http://weights.invalid/a.pt", file)
    assert remote.requests[0][0] == "http://weights.invalid/a.pt"


def test_concurrent_downloads_make_one_request(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=1000, stall=True)]  # until both have started
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [pool.submit(get_quietly, remote, file) for _ in range(4)]
        concurrent.futures.wait(results, timeout=0.2)
        remote.release.set()
        assert [result.result() for result in results] == [BODY] * 4
    assert remote.ranges_asked() == [None, "bytes=1000-"]


def get_quietly(remote: Remote, file: Path) -> bytes:
    return download(remote.url, file, **QUICK).read_bytes()


def test_lock_that_is_held_for_too_long(remote: Remote, file: Path) -> None:
    file.parent.mkdir()
    with (
        filelock.FileLock(f"{file}.lock"),
        concurrent.futures.ThreadPoolExecutor(1) as other,
        pytest.raises(SatError, match=r"another process has been downloading .*weights\.pt"),
    ):
        other.submit(download, remote.url, file, lock_timeout_s=0.1).result()
    assert get(remote, file) == BODY


def test_killed_process_leaves_a_part_to_go_on_with_and_no_lock(remote: Remote, file: Path) -> None:
    remote.answers = [Answer(cut=200_000, stall=True)]
    code = (
        "import sys, pathlib; from sat_jax.weights.download import download; "
        "download(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    root = str(Path(download_module.__file__).parents[1])
    command = [sys.executable, "-c", code, remote.url, str(file)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}) as process:
        deadline = time.monotonic() + 60
        while not part_of(file).exists() or part_of(file).stat().st_size < 100_000:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    remote.release.set()
    size = part_of(file).stat().st_size
    assert get(remote, file, lock_timeout_s=5.0) == BODY
    assert remote.ranges_asked() == [None, f"bytes={size}-"]


def test_folder_that_cannot_be_made(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(SatError, match=r"cannot write .*taken.*SAT_JAX_CACHE"):
        download(remote.url, tmp_path / "taken" / "weights.pt")
    assert remote.requests == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar_is_for_terminals_only(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {}
    for stream in (Terminal(), io.StringIO()):
        for progress in (True, False):
            case = (stream.isatty(), progress)
            output = type(stream)()
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stderr", output)
                download(remote.url, tmp_path / f"{case}" / "weights.pt", progress=progress)
            shown[case] = output.getvalue()
    bar = shown.pop((True, True))
    assert "weights.pt" in bar
    assert "100%" in bar
    assert set(shown.values()) == {""}


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("SAT_JAX_CACHE", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("SAT_JAX_CACHE", "")
    assert cache_dir() == Path(platformdirs.user_cache_dir("sat_jax"))


def test_published_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAT_JAX_WEIGHTS_URL", raising=False)
    assert len(set(PUBLISHED_FILES.values())) == len(PUBLISHED_FILES) == 9
    form = r"https://zenodo\.org/record/7964975/files/\w+_mAP_4\d_\d\d\.pt\?download=1"
    for name, file_name in PUBLISHED_FILES.items():
        assert re.fullmatch(form, published_url(name))
        words = name.replace("_1s", "_stream1s").replace("_2s", "_stream2s")
        assert file_name.startswith(words + "_mAP")
    assert "SAT_T_stream2s_mAP_43_34.pt" in published_url("SAT_T_2s")
    with pytest.raises(SatError, match=r"'SAT_X': choose from .*SAT_T_2s"):
        published_url("SAT_X")


@pytest.mark.parametrize("mirror", ["/mirror", "/mirror/", "/mirror/{name}?download=1"])
def test_published_from_a_mirror(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str
) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("SAT_JAX_WEIGHTS_URL", remote.url.replace("/weights.pt", mirror))
    name = PUBLISHED_FILES["SAT_T_2s"]
    for _ in range(2):
        file = fetch_published("SAT_T_2s", progress=False)
        assert file == tmp_path / "published" / name
        assert file.read_bytes() == BODY
    asked = mirror.replace("{name}", name) if "{name}" in mirror else f"/mirror/{name}"
    assert [path for path, _ in remote.requests] == [asked]


def test_published_without_a_server(
    refusing_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("SAT_JAX_WEIGHTS_URL", refusing_url)
    with pytest.raises(SatError) as caught:
        fetch_published("SAT_T_2s")
    name = PUBLISHED_FILES["SAT_T_2s"]
    assert str(caught.value) == (
        f"cannot download {refusing_url}/{name}: Connection refused; download it elsewhere and "
        f"put it at {tmp_path / 'published' / name}, or give its path in place of the name"
    )
