"""The command download for clips; tests/data_pipeline/download/test_lists.py runs it for lists."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.download.log import LOG_NAME
from tests.support.media_server import Server, encode, noise, serve_media, write_segments
from tests.support.programs import run_command

ROOT = Path(__file__).parents[2]

pytest.importorskip("yt_dlp")


@pytest.fixture(name="server")
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve_media(monkeypatch) as server:
        yield server


def test_counts_and_exit_codes(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["a.wav"] = encode(noise(4))
    rows = [(name, 0.0, 1.0) for name in ("a.wav", "gone.wav", "b.wav")]
    table = write_segments(tmp_path / "segments.csv", *rows)
    folder = tmp_path / "clips"
    flags = [f"--segments={table}", f"--folder={folder}", "--limit=2"]
    flags.append(f"--video_url={server.url}/{{ytid}}")
    assert run_command("download", *flags) == 1
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith("sat-jax download: gone.wav_0.000_1.000: HTTP Error 404")
    assert [int(number) for number in re.findall(r"\b(\d+) ", printed.out)] == [1, 0, 1, 0, 0]
    assert str(folder / LOG_NAME) in printed.out
    assert run_command("download", *flags) == 0
    printed = capsys.readouterr()
    assert [int(number) for number in re.findall(r"\b(\d+) ", printed.out)] == [0, 1, 0, 0, 1]
    assert printed.err == ""


def test_ctrl_c_ends_the_process_though_the_server_is_silent(
    server: Server, tmp_path: Path
) -> None:
    server.files = {name: encode(noise(4)) for name in ("a.wav", "slow.wav")}
    server.stalling.add("slow.wav")
    rows = [(name, 0.0, 1.0) for name in server.files]
    table = write_segments(tmp_path / "segments.csv", *rows)
    command = [sys.executable, "-m", "sat_jax", "download", f"--segments={table}"]
    command += [f"--folder={tmp_path / 'clips'}", f"--video_url={server.url}/{{ytid}}"]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 180
        while server.paths() != ["a.wav", "slow.wav"]:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does, so that ffmpeg gets it too.
        assert process.wait(timeout=120) == 130  # The server waits for 300 s.
        assert process.stderr is not None
        [line] = process.stderr.read().splitlines()
    assert line.startswith("sat-jax download: ")
    assert not (tmp_path / "clips" / ".download").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "--segments"),
        (["--lists", "--segments=x.csv", "--folder=x"], "--lists"),
        (["--lists"], "--folder"),
        (["--lists", "--folder=x", "--workers=0"], "--workers=0"),
        (["--segments=x.csv", "--folder=x", "--video_url=http://x/"], "--video_url=http://x/"),
        (["x.csv"], "x.csv"),
        (["--wrong"], "'wrong'"),
    ],
)
def test_wrong_flags(flags: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("download", *flags) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sat-jax download: ") and named in line


def test_youtube_needs_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_segments(tmp_path / "segments.csv", ("aaaaaaaaaaa", 0.0, 1.0))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_command("download", f"--segments={table}", f"--folder={tmp_path / 'clips'}") == 1
    assert "ffmpeg" in capsys.readouterr().err


def test_a_wrong_cookie_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_segments(tmp_path / "segments.csv", ("a", 0.0, 1.0))
    flags = [f"--segments={table}", f"--folder={tmp_path / 'clips'}", f"--cookies={table}"]
    assert run_command("download", *flags, "--video_url=http://x/{ytid}") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(table) in line
