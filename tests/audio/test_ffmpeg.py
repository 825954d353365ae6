"""Files that ffmpeg decodes; most tests use a script in its place."""

import itertools
import os
import shutil
import subprocess
import time

import numpy as np
import pytest

from sat_jax.audio import duration_seconds, read_blocks
from sat_jax.errors import SatError
from tests.support.sounds import error_of, expected, noise, read, write

REAL_FFMPEG = shutil.which("ffmpeg")


def fake_ffmpeg(folder, monkeypatch, script):
    """Puts a program named ffmpeg on the path; $input is the file it is asked to read."""
    program = folder / "bin" / "ffmpeg"
    program.parent.mkdir()
    search = 'for word; do case "$word" in file:*) input="${word#file:}";; esac; done'
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{search}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def unreadable(folder):
    """A file libsndfile does not know, beside the AU stream that ffmpeg would make of it."""
    samples = noise(30_000, 2)
    write(folder / "a.m4a.au", samples, 48_000, "AU", "FLOAT")
    (folder / "a.m4a").write_bytes(b"\0\0\0\x78ftypM4A " * 10)
    return folder / "a.m4a", samples


def test_ffmpeg_decodes_the_rest(tmp_path, monkeypatch):
    path, samples = unreadable(tmp_path)
    fake_ffmpeg(tmp_path, monkeypatch, 'cat "$input.au"')
    np.testing.assert_allclose(read(path), expected(samples, 48_000), atol=1e-6)
    want = expected(samples[:, 1:], 48_000)
    np.testing.assert_allclose(read(path, channel=1), want, atol=1e-6)
    assert "channel 2" in error_of(path, channel=2)
    assert duration_seconds(path) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo '[in#0 @ 0x5] [mov] moov atom not found' >&2; exit 183", "(moov atom not found)"),
        ("exit 1", "ffmpeg"),
        ('cat "$input.au"; echo "[aac @ 0x1] bad\nmore." >&2; exit 1', "(bad)"),
        ('cat "$input.au"; echo "File ended prematurely" >&2', "(File ended prematurely)"),
        ('head -c 24 "$input.au"; echo "[aac @ 0x1] Reserved bit set." >&2', ": Reserved bit set:"),
    ],
)
def test_ffmpeg_fails(tmp_path, monkeypatch, script, reason):
    path, _ = unreadable(tmp_path)
    fake_ffmpeg(tmp_path, monkeypatch, script)
    assert reason in error_of(path)


def test_stopping_early_stops_ffmpeg(tmp_path, monkeypatch):
    path, _ = unreadable(tmp_path)
    fake_ffmpeg(tmp_path, monkeypatch, f'echo $$ > {tmp_path}/pid; cat "$input.au"; exec sleep 30')
    start = time.monotonic()
    blocks = read_blocks(path, block_seconds=0.1)
    next(blocks)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    blocks.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert time.monotonic() - start < 20


@pytest.mark.skipif(REAL_FFMPEG is None, reason="needs an installed ffmpeg")
@pytest.mark.parametrize("name", ["a.m4a", "-a: 100%.mka"])
def test_installed_ffmpeg(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", os.path.dirname(REAL_FFMPEG))
    monkeypatch.chdir(tmp_path)
    seconds = np.arange(88_200) / 44_100
    tones = np.stack([np.sin(2 * np.pi * pitch * seconds) / 4 for pitch in (440, 880)], axis=1)
    write(tmp_path / "a.wav", tones.astype(np.float32), 44_100)
    encode = [REAL_FFMPEG, "-v", "error", "-i", "a.wav", "-c:a", "aac", f"file:{name}"]
    subprocess.run(encode, check=True, stdin=subprocess.DEVNULL)
    for channel, pitch in itertools.product(range(2), (440, 880)):
        result = read(name, channel=channel)[4_000:20_000]
        strength = abs(np.fft.rfft(result)[pitch]) / len(result) * 2
        assert strength == pytest.approx(0.25 if pitch == 440 * (channel + 1) else 0, abs=0.02)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert "ffmpeg" in error_of(name)


@pytest.mark.skipif(REAL_FFMPEG is None, reason="needs an installed ffmpeg")
def test_ffmpeg_decodes_past_lost_packets(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(REAL_FFMPEG))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", noise(16_000 * 8))
    encode = [REAL_FFMPEG, "-v", "error", "-i", "a.wav", "-c:a", "aac", "-f", "mpegts", "a.ts"]
    subprocess.run(encode, check=True, stdin=subprocess.DEVNULL)
    content = (tmp_path / "a.ts").read_bytes()
    whole = len(read("a.ts"))
    (tmp_path / "a.ts").write_bytes(content[: 188 * 60] + content[188 * 75 :])
    blocks = []
    with pytest.raises(SatError, match="ffmpeg"):
        for block in read_blocks("a.ts"):
            blocks.append(len(block))
    assert 0.7 * whole < sum(blocks) < whole


@pytest.mark.skipif(REAL_FFMPEG is None, reason="needs an installed ffmpeg")
def test_what_a_header_promises_holds_for_ffmpeg_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(REAL_FFMPEG))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", noise(16_000 * 4))
    encode = [REAL_FFMPEG, "-v", "error", "-i", "a.wav", "-c:a", "pcm_s16le", "file:-a, b.avi"]
    subprocess.run(encode, check=True, stdin=subprocess.DEVNULL)
    content = (tmp_path / "-a, b.avi").read_bytes()
    assert len(read("-a, b.avi")) == 64_000
    (tmp_path / "-a, b.avi").write_bytes(content + b"TAG" + bytes(125))
    assert len(read("-a, b.avi")) == 64_000
    (tmp_path / "-a, b.avi").write_bytes(content[:50_000])
    assert str(len(content)) in error_of("-a, b.avi")
