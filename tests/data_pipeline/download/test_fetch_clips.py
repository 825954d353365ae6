"""Whole downloads of clips with yt-dlp, from a server on loopback."""

import concurrent.futures
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import soundfile
import soxr

from data_pipeline.download.fetch_clips import Options, fetch_clips
from data_pipeline.download.log import LOG_NAME
from data_pipeline.download.media import Site, check_yt_dlp, is_permanent
from data_pipeline.sources.segments import Segment
from sat_jax.errors import SatError
from tests.support.media_server import RATE, Server, encode, noise, serve_media

FFMPEG = shutil.which("ffmpeg")

pytest.importorskip("yt_dlp")


@pytest.fixture(name="server")
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve_media(monkeypatch) as server:
        yield server


class Job:
    """A list of segments and its output folder."""

    def __init__(self, server: Server, tmp_path: Path, *rows: tuple[str, float, float]) -> None:
        self.segments = [Segment(*row, labels=()) for row in rows]
        self.folder = tmp_path / "100 % sound"  # To yt-dlp, a per cent sign starts a field.
        self.site = Site(f"{server.url}/{{ytid}}", ranges=False)
        self.reported: list[str] = []

    def run(self, **options: Any) -> Counter[str]:
        given = {"folder": self.folder, "site": self.site, "workers": 2} | options
        return fetch_clips(self.segments, Options(**given), self.reported.append)

    def log(self) -> dict[str, tuple[str, str]]:
        """Maps video ids to outcome and reason."""
        lines = (self.folder / LOG_NAME).read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        return {
            entry["clip"].rsplit("_", 2)[0]: (entry["outcome"], entry["reason"])
            for entry in entries
        }

    def clip(self, index: int = 0) -> np.ndarray:
        return soundfile.read(self.path(index), dtype="int16")[0]

    def path(self, index: int = 0) -> Path:
        return self.folder / f"{self.segments[index].id}.wav"

    def complete(self) -> set[str]:
        """Returns the ids of the fetched videos, whose files can all be read to their end."""
        paths = list(self.folder.glob("*.wav"))
        for path in paths:
            assert len(soundfile.read(path)[0]) == soundfile.info(path).frames > 0
        return {path.name.rsplit("_", 2)[0] for path in paths}


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.003, 1.9)])
def test_a_clip_has_exactly_the_samples_of_its_segment(
    server: Server, tmp_path: Path, start: float, end: float
) -> None:
    sound = noise(9)
    server.files["a.wav"] = encode(sound)
    job = Job(server, tmp_path, ("a.wav", start, end))
    assert job.run() == Counter(fetched=1)
    info = soundfile.info(job.path())
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    np.testing.assert_array_equal(job.clip(), sound[round(start * RATE) : round(end * RATE), 0])
    assert job.log() == {"a.wav": ("fetched", "")}
    assert job.reported == []


def test_resampling_sees_the_sound_around_the_segment(server: Server, tmp_path: Path) -> None:
    sound = noise(8, 44_100, 2)
    server.files["a.flac"] = encode(sound, 44_100, "FLAC")
    job = Job(server, tmp_path, ("a.flac", 3.25, 5.25))
    assert job.run() == Counter(fetched=1)
    resampled = soxr.resample(sound.astype(np.float64).mean(axis=1), 44_100, RATE)
    expected = resampled[round(3.25 * RATE) : round(5.25 * RATE)].clip(-32_768, 32_767)
    assert len(job.clip()) == len(expected)
    # Half a step of rounding, and a little for soxr in float32.
    assert np.abs(job.clip() - expected).max() <= 0.6


def test_a_video_may_end_inside_or_before_the_segment(server: Server, tmp_path: Path) -> None:
    server.files["a.wav"] = encode(noise(4))
    job = Job(server, tmp_path, ("a.wav", 3, 13), ("a.wav", 5, 15))
    assert job.run(workers=1) == Counter(fetched=1, unavailable=1)
    assert len(job.clip(0)) == RATE
    assert not job.path(1).exists()
    logged = [json.loads(line) for line in (job.folder / LOG_NAME).read_text().splitlines()]
    assert [line["reason"] for line in logged] == [
        "ends after 1.000 of 10 s",
        "the sound ends before 5 s",
    ]


def page(media_url: str, seconds: int) -> bytes:
    """Returns a page with the data that search engines read."""
    video = {
        "@context": "https://schema.org",
        "@type": "VideoObject",
        "name": "a video",
        "contentUrl": media_url,
        "duration": f"PT{seconds}S",
    }
    script = f'<script type="application/ld+json">{json.dumps(video)}</script>'
    return f"<!DOCTYPE html><html><head>{script}</head></html>".encode()


def test_sound_shorter_than_its_video_is_refused(server: Server, tmp_path: Path) -> None:
    server.files = {"a.wav": encode(noise(5)), "page": page(f"{server.url}/a.wav", 30)}
    job = Job(server, tmp_path, ("page", 4.0, 6.0))
    assert job.run() == Counter(failed=1)
    assert job.log() == {"page": ("failed", "the sound breaks off at 5 s of 30")}
    assert job.complete() == set()
    server.files["page"] = page(f"{server.url}/a.wav", 6)  # Sites round.
    assert job.run() == Counter(fetched=1)
    assert len(job.clip()) == RATE  # of 2 s


BROKEN: dict[str, tuple[bytes | int, str, str]] = {
    "gone.wav": (404, "unavailable", "HTTP Error 404"),
    "withdrawn.wav": (410, "unavailable", "HTTP Error 410"),
    "busy.wav": (403, "failed", "HTTP Error 403"),
    "cut.wav": (encode(noise(9))[:50_000], "failed", "49956 of 288000"),
    "cut.flac": (encode(noise(9), format="FLAC")[:50_000], "failed", "truncated"),
    "rubbish.wav": (np.random.default_rng(0).bytes(9_000), "failed", ""),
    "empty.wav": (b"", "failed", "data"),
    "page": (b"<!DOCTYPE html><html><body>no video here</body></html>", "failed", "Unsupported"),
}


def test_failures_are_logged_with_their_reasons(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # No ffmpeg.
    for name, (content, _, _) in BROKEN.items():
        if isinstance(content, int):
            server.statuses[name] = content
        else:
            server.files[name] = content
    server.files["fine.wav"] = encode(noise(9))
    job = Job(server, tmp_path, *((name, 5.0, 8.0) for name in [*BROKEN, "fine.wav"]))
    job.site = job.site._replace(ranges=True)  # Needs ffmpeg, so all is fetched.
    assert job.run(workers=4) == Counter(fetched=1, unavailable=2, failed=6)
    assert job.complete() == {"fine.wav"}
    np.testing.assert_array_equal(job.clip(-1), noise(9)[5 * RATE : 8 * RATE, 0])
    log = job.log()
    for name, (_, outcome, words) in BROKEN.items():
        assert log[name][0] == outcome, log[name]
        assert words in log[name][1]
        assert str(tmp_path) not in log[name][1]  # Temporary files are not named.
    assert sorted(job.reported) == sorted(
        f"{segment.id}: {log[segment.ytid][1]}"
        for segment in job.segments
        if segment.ytid != "fine.wav"
    )
    assert not any("\n" in line for line in job.reported)
    assert not (job.folder / ".download").exists()


def test_the_next_run_skips_present_and_unavailable_clips(server: Server, tmp_path: Path) -> None:
    server.files["there.wav"] = encode(noise(2))
    server.statuses["busy.wav"] = 403
    rows = [(name, 0.0, 1.0) for name in ("there.wav", "busy.wav", "gone.wav")]
    job = Job(server, tmp_path, *rows)
    assert job.run() == Counter(fetched=1, unavailable=1, failed=1)

    server.requests.clear()
    server.files["busy.wav"] = server.files["gone.wav"] = server.files["there.wav"]
    assert job.run() == Counter(present=1, skipped=1, fetched=1)
    assert server.paths() == ["busy.wav"]

    server.requests.clear()
    assert job.run(retry_failed=True) == Counter(present=2, fetched=1)
    assert server.paths() == ["gone.wav"]
    assert job.run() == Counter(present=3)
    assert {outcome for outcome, _ in job.log().values()} == {"fetched"}


def test_a_truncated_line_of_the_log_is_ignored(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, ("gone.wav", 0.0, 1.0), ("gone too.wav", 0.0, 1.0))
    job.run(workers=1)
    log = job.folder / LOG_NAME
    first, second = log.read_text().splitlines()
    log.write_text(first + "\n" + second[:30])
    server.requests.clear()
    assert job.run() == Counter(skipped=1, unavailable=1)
    assert log.read_text().splitlines() == [first, second[:30], second]
    assert job.run() == Counter(skipped=2)


@pytest.mark.parametrize(
    ("reason", "permanent"),
    [
        ("Private video. Sign in if you've been granted access to this video", True),
        ("Video unavailable. This video is private", True),
        ("Video unavailable", True),
        ("This video is not available", True),
        ("This video is no longer available because the account has been terminated", True),
        ("This video has been removed by the uploader", True),
        ("The uploader has not made this video available in your country", True),
        ("Video unavailable. This video contains content from X, who has blocked it", True),
        ("Sign in to confirm your age. This video may be inappropriate for some users", True),
        ("Join this channel to get access to members-only content", True),
        ("Sign in to confirm you’re not a bot", False),  # noqa: RUF001  YouTube's own quote
        ("Video unavailable. This content isn't available, try again later.", False),
        ("This content isn't available. Your account has been rate-limited", False),
        ("Unable to download webpage: HTTP Error 429: Too Many Requests", False),
        ("unable to download video data: HTTP Error 403: Forbidden", False),
        ("Unable to download API page: timed out", False),
        ("Requested format is not available", False),
    ],
)
def test_permanent_reasons(reason: str, permanent: bool) -> None:
    assert is_permanent(reason) is permanent


def test_clips_are_fetched_in_parallel(server: Server, tmp_path: Path) -> None:
    names = [f"{index}.wav" for index in range(3)]
    server.files = {name: encode(noise(2)) for name in names}
    server.gate = threading.Barrier(3, timeout=60)  # One alone would wait forever.
    job = Job(server, tmp_path, *((name, 0.0, 1.0) for name in names))
    assert job.run(workers=3) == Counter(fetched=3)


def test_a_segment_listed_twice_is_fetched_once(server: Server, tmp_path: Path) -> None:
    server.files["a.wav"] = encode(noise(2))
    job = Job(server, tmp_path, *[("a.wav", 0.0, 1.0)] * 2)
    assert job.run() == Counter(fetched=1)


@pytest.mark.parametrize(
    "row", [("../a", 0.0, 1.0), ("a", 2.0, 1.0), ("a", -1.0, 1.0), ("a", 0.0, float("nan"))]
)
def test_wrong_segments_are_refused(
    server: Server, tmp_path: Path, row: tuple[str, float, float]
) -> None:
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    job.segments.append(Segment(*row, labels=()))
    with pytest.raises(SatError, match=f"'{row[0]}_"):
        job.run()
    assert server.requests == []


def test_other_spellings_of_a_clip_count_as_present(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, ("ab.wav", 30.0, 40.0))
    job.folder.mkdir()
    (job.folder / "ab.wav_30_40.wav").write_bytes(encode(noise(1)))
    assert job.run() == Counter(present=1)


def test_failures_in_a_row_end_the_run(server: Server, tmp_path: Path) -> None:
    names = [f"{index}.wav" for index in range(4)]
    job = Job(server, tmp_path, *((name, 0.0, 1.0) for name in names))
    server.statuses = dict.fromkeys(names, 403)
    with pytest.raises(SatError, match=r"2 clips .*HTTP Error 403") as caught:
        job.run(workers=1, give_up_after=2)
    assert "\n" not in str(caught.value)
    assert len(job.log()) == 2
    server.statuses = dict.fromkeys(names, 404)
    assert job.run(give_up_after=2) == Counter(unavailable=4)


def test_two_processes_cannot_use_one_folder(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    job.folder.mkdir()
    with (
        filelock.FileLock(job.folder / ".lock"),
        concurrent.futures.ThreadPoolExecutor(1) as other,
        pytest.raises(SatError, match=str(job.folder)),
    ):
        other.submit(job.run).result()
    assert job.run() == Counter(unavailable=1)


def test_cookies_are_sent(server: Server, tmp_path: Path) -> None:
    server.files["a.wav"] = encode(noise(2))
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\twho\tme\n"
    assert job.run(site=job.site._replace(cookies=text)) == Counter(fetched=1)
    assert all("who=me" in headers.get("Cookie", "") for _, headers in server.requests)


# Does with soundfile what yt-dlp asks of ffmpeg: -ss START -t SECONDS -i URL ... file:OUT
FAKE_FFMPEG = f"""#!{sys.executable}
import io, sys, urllib.request
import soundfile
words = sys.argv
if "-i" not in words:
    print("ffmpeg version 7.0 Copyright")
    sys.exit()
given = {{name: words[words.index(name) + 1] for name in ("-t", "-i", "-f") if name in words}}
start = float(words[words.index("-ss") + 1]) if "-ss" in words else 0.0
assert words[words.index("-c:a") + 1] == "pcm_f32be"
assert [words[i + 1] for i, word in enumerate(words) if word == "-f"][-1] == "au"
data = urllib.request.urlopen(given["-i"]).read()
with soundfile.SoundFile(io.BytesIO(data)) as file:
    file.seek(round(start * file.samplerate))
    sound = file.read(round(float(given["-t"]) * file.samplerate), dtype="float32")
    output = words[-1].removeprefix("file:")
    soundfile.write(output, sound, file.samplerate, "FLOAT", "BIG", "AU")
with open({{log!r}}, "a") as log:
    print(start, given["-t"], file=log)
"""


@pytest.mark.parametrize(("start", "asked"), [(0.5, (0.0, 3.5)), (4.25, (3.0, 4.25))])
def test_a_range_gives_the_samples_of_the_whole_video(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float, asked: object
) -> None:
    server.files["a.flac"] = encode(noise(9, 44_100, 2), 44_100, "FLAC")
    job = Job(server, tmp_path, ("a.flac", start, start + 2))
    assert job.run() == Counter(fetched=1)
    whole = job.clip()
    job.path().unlink()

    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(FAKE_FFMPEG.replace("{log!r}", repr(str(tmp_path / "asked"))))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert job.run(site=job.site._replace(ranges=True)) == Counter(fetched=1), job.reported
    first, seconds = map(float, (tmp_path / "asked").read_text().split())
    assert (first, seconds) == asked
    assert len(job.clip()) == len(whole)
    # The resampler's sums differ in the last bit.
    assert np.abs(job.clip().astype(int) - whole).max() <= 1


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(("name", "tolerance"), [("a.flac", 1), ("a.m4a", 600)])
def test_the_installed_ffmpeg_cuts_at_the_sample(
    server: Server, tmp_path: Path, name: str, tolerance: int
) -> None:
    assert FFMPEG
    (tmp_path / "a.wav").write_bytes(encode(noise(60, 44_100), 44_100))
    low_pass = ["-af", "lowpass=3000", "-b:a", "160k"]
    make = [FFMPEG, "-v", "error", "-i", "a.wav", *low_pass, name]
    subprocess.run(make, check=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    server.files[name] = (tmp_path / name).read_bytes()
    job = Job(server, tmp_path, (name, 33.25, 43.25))
    assert job.run() == Counter(fetched=1)
    whole = job.clip().astype(int)
    job.path().unlink()
    assert job.run(site=job.site._replace(ranges=True)) == Counter(fetched=1)
    # A shift by one sample would differ by thousands.
    assert np.abs(job.clip() - whole).max() <= tolerance


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
def test_a_range_shorter_than_its_video_is_refused(server: Server, tmp_path: Path) -> None:
    server.files = {"a.wav": encode(noise(25)), "page": page(f"{server.url}/a.wav", 60)}
    job = Job(server, tmp_path, ("page", 20.0, 30.0))
    assert job.run(site=job.site._replace(ranges=True)) == Counter(failed=1)
    assert job.log() == {"page": ("failed", "the sound breaks off at 25 s of 60")}


def test_an_interrupted_run_ends_at_once_and_is_resumed(server: Server, tmp_path: Path) -> None:
    names = ["a.wav", "slow.wav", "gone.wav", "b.wav"]
    server.files = {name: encode(noise(4)) for name in names if name != "gone.wav"}
    server.stalling.add("slow.wav")
    job = Job(server, tmp_path, *((name, 1.0, 3.0) for name in names))

    def interrupt(line: str) -> None:
        assert "gone.wav" in line
        raise KeyboardInterrupt

    start = time.monotonic()
    options = Options(folder=job.folder, site=job.site, workers=2)
    with pytest.raises(KeyboardInterrupt):
        fetch_clips(job.segments, options, interrupt)
    assert time.monotonic() - start < 120  # The server waits for 300 s.
    assert "a.wav" in job.complete() and "slow.wav" not in job.complete()

    server.release.set()
    unfinished = job.folder / ".download" / "part of a killed run"
    unfinished.mkdir(parents=True)
    counts = job.run()
    assert counts["present"] + counts["fetched"] == 3
    assert job.complete() == {"a.wav", "slow.wav", "b.wav"}
    assert not unfinished.exists()


def test_a_missing_yt_dlp_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(SatError, match=r"sat-jax\[download\]"):
        check_yt_dlp()
