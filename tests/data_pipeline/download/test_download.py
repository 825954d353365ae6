"""Whole downloads of clips and lists, by yt-dlp and all, from a server on loopback."""

import concurrent.futures
import contextlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import soundfile
import soxr

from data_pipeline.download.lists import audioset_files, fetch_list, psl_files
from data_pipeline.download.log import LOG_NAME
from data_pipeline.download.media import Site, check_yt_dlp, is_lasting
from data_pipeline.download.run import Options, Tally, fetch_clips
from data_pipeline.download.workers import run_parallel
from data_pipeline.sources.segments import Segment, read_segments
from sat_jax.errors import SatError

ROOT = Path(__file__).parents[3]
RATE = 16_000
REAL_FFMPEG = shutil.which("ffmpeg")
HEADER = "# Segments csv created\n# num_ytids=3\n# YTID, start_seconds, end_seconds, labels\n"
AUDIO_TYPES = {".wav": "audio/x-wav", ".flac": "audio/flac", ".csv": "text/csv"}

pytest.importorskip("yt_dlp")


class Server:
    """Files by path, and what happens to those who ask for them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.stalling: set[str] = set()  # These stop after half of the file.
        self.gate: threading.Barrier | None = None  # All wait here for each other.
        self.release = threading.Event()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def paths(self) -> list[str]:
        return sorted({path for path, _ in self.asked})


class _Handler(http.server.BaseHTTPRequestHandler):
    server_state: Server

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        state, path = self.server_state, self.path.removeprefix("/")
        state.asked.append((path, dict(self.headers)))
        if state.gate:
            state.gate.wait()
        if path not in state.files:
            return self.send_error(state.statuses.get(path, 404))
        body = state.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = int(asked[2]) + 1 if asked and asked[2] else len(body)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(body)}")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Type", AUDIO_TYPES.get(Path(path).suffix, "text/html"))
        self.send_header("Content-Length", str(len(body[first:last])))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self._send(body[first:last], stall=path in state.stalling)

    do_HEAD = do_GET

    def _send(self, body: bytes, *, stall: bool) -> None:
        if self.command == "HEAD":
            return
        if stall:
            self.wfile.write(body[: len(body) // 2])
            self.server_state.release.wait(30)
            body = body[len(body) // 2 :]
        self.wfile.write(body)


@pytest.fixture(autouse=True)
def _straight_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("urllib.request._opener", None)


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    state = Server()
    handler = type("_BoundHandler", (_Handler,), {"server_state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            state.release.set()
            server.shutdown()
            thread.join()


def encode(sound: np.ndarray, rate: int, format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=format, subtype="PCM_16")
    return file.getvalue()


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (round(seconds * rate), channels)
    return np.random.default_rng(seed).integers(-20_000, 20_000, shape).astype(np.int16)


def segments_csv(folder: Path, *rows: tuple[str, float, float]) -> Path:
    lines = [f'{ytid}, {start:.3f}, {end:.3f}, "/m/03v3yw,/m/0k4j"\n' for ytid, start, end in rows]
    (folder / "segments.csv").write_text(HEADER + "".join(lines), encoding="utf-8")
    return folder / "segments.csv"


class Job:
    """A list of segments and the folder that it goes to."""

    def __init__(self, server: Server, tmp_path: Path, *rows: tuple[str, float, float]) -> None:
        self.table = segments_csv(tmp_path, *rows)
        self.segments = read_segments(self.table).rows
        self.folder = tmp_path / "100 % sound"  # no field for yt-dlp to fill in
        self.site = Site(f"{server.url}/{{ytid}}", ranges=False)
        self.told: list[str] = []

    def run(self, **options: Any) -> Tally:
        given = {"folder": self.folder, "site": self.site, "workers": 2} | options
        return fetch_clips(self.segments, Options(**given), self.told.append)

    def command(self, *more: str) -> list[str]:
        flags = [f"--segments={self.table}", f"--folder={self.folder}", "--workers=2"]
        return [*PROGRAM, *flags, f"--video_url={self.site.url}", *more]

    def log(self) -> dict[str, tuple[str, str]]:
        """From video id to outcome and reason."""
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

    def whole(self) -> set[str]:
        """Ids of the videos whose clips are there, each of which can be read to its end."""
        paths = list(self.folder.glob("*.wav"))
        for path in paths:
            assert len(soundfile.read(path)[0]) == soundfile.info(path).frames > 0
        return {path.name.rsplit("_", 2)[0] for path in paths}


PROGRAM = [sys.executable, "-m", "data_pipeline.download"]


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (2.5, 4.5), (1.003, 1.9)])
def test_clip_holds_the_segments_very_samples(
    server: Server, tmp_path: Path, start: float, end: float
) -> None:
    sound = noise(9)
    server.files["a.wav"] = encode(sound, RATE)
    job = Job(server, tmp_path, ("a.wav", start, end))
    assert job.run() == Tally(fetched=1)
    info = soundfile.info(job.path())
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    np.testing.assert_array_equal(job.clip(), sound[round(start * RATE) : round(end * RATE), 0])
    assert job.log() == {"a.wav": ("fetched", "")}
    assert job.told == []


def test_clip_of_another_rate_is_cut_from_the_whole_resampled(
    server: Server, tmp_path: Path
) -> None:
    sound = noise(8, 44_100, 2)
    server.files["a.flac"] = encode(sound, 44_100, "FLAC")
    job = Job(server, tmp_path, ("a.flac", 3.25, 5.25))
    assert job.run() == Tally(fetched=1)
    resampled = soxr.resample(sound.astype(np.float64).mean(axis=1), 44_100, RATE)
    expected = resampled[round(3.25 * RATE) : round(5.25 * RATE)].clip(-32_768, 32_767)
    assert len(job.clip()) == len(expected)
    # Half a step of rounding, and a little for soxr's own in float32.
    assert np.abs(job.clip() - expected).max() <= 0.6


def test_video_that_ends_early(server: Server, tmp_path: Path) -> None:
    server.files["a.wav"] = encode(noise(4), RATE)
    job = Job(server, tmp_path, ("a.wav", 3, 13), ("a.wav", 5, 15))
    assert job.run(workers=1) == Tally(fetched=1, unavailable=1)
    assert len(job.clip(0)) == RATE
    assert not job.path(1).exists()
    logged = [json.loads(line) for line in (job.folder / LOG_NAME).read_text().splitlines()]
    assert [line["reason"] for line in logged] == [
        "ends after 1.000 of 10 s",
        "the sound ends before 5 s",
    ]


def page(media_url: str, seconds: int) -> bytes:
    """A page that says of a video what search engines read."""
    video = {
        "@context": "https://schema.org",
        "@type": "VideoObject",
        "name": "a video",
        "contentUrl": media_url,
        "duration": f"PT{seconds}S",
    }
    script = f'<script type="application/ld+json">{json.dumps(video)}</script>'
    return f"<!DOCTYPE html><html><head>{script}</head></html>".encode()


def test_page_of_a_video(server: Server, tmp_path: Path) -> None:
    sound = noise(9)
    server.files = {"a.wav": encode(sound, RATE), "page": page(f"{server.url}/a.wav", 9)}
    job = Job(server, tmp_path, ("page", 4.0, 6.0))
    assert job.run() == Tally(fetched=1)
    np.testing.assert_array_equal(job.clip(), sound[4 * RATE : 6 * RATE, 0])


def test_sound_that_breaks_off_before_its_video(server: Server, tmp_path: Path) -> None:
    server.files = {"a.wav": encode(noise(5), RATE), "page": page(f"{server.url}/a.wav", 30)}
    job = Job(server, tmp_path, ("page", 4.0, 6.0))
    assert job.run() == Tally(failed=1)
    assert job.log() == {"page": ("failed", "the sound breaks off at 5 s of 30")}
    assert job.whole() == set()
    server.files["page"] = page(f"{server.url}/a.wav", 6)  # as rounded by the site
    assert job.run() == Tally(fetched=1)


BROKEN: dict[str, tuple[bytes | int, str, str]] = {
    "gone.wav": (404, "unavailable", "HTTP Error 404"),
    "withdrawn.wav": (410, "unavailable", "HTTP Error 410"),
    "busy.wav": (403, "failed", "HTTP Error 403"),
    "cut.wav": (encode(noise(9), RATE)[:50_000], "failed", "truncated: 49956 of 288000 bytes"),
    "cut.flac": (encode(noise(9), RATE, "FLAC")[:50_000], "failed", "truncated"),
    "rubbish.wav": (np.random.default_rng(0).bytes(9_000), "failed", "if it is audio, install"),
    "empty.wav": (b"", "failed", "Did not get any data"),
    "page": (b"<!DOCTYPE html><html><body>no video here</body></html>", "failed", "Unsupported"),
}


def test_what_cannot_be_had_is_logged_with_its_reason(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # As of a machine without ffmpeg.
    for name, (content, _, _) in BROKEN.items():
        if isinstance(content, int):
            server.statuses[name] = content
        else:
            server.files[name] = content
    server.files["fine.wav"] = encode(noise(9), RATE)
    job = Job(server, tmp_path, *((name, 5.0, 8.0) for name in [*BROKEN, "fine.wav"]))
    assert job.run(workers=4) == Tally(fetched=1, unavailable=2, failed=6)
    assert job.whole() == {"fine.wav"}
    log = job.log()
    for name, (_, outcome, words) in BROKEN.items():
        assert log[name][0] == outcome, log[name]
        assert words in log[name][1]
        assert str(tmp_path) not in log[name][1]  # Files that are gone are not named.
    assert sorted(job.told) == sorted(
        f"{segment.id}: {log[segment.ytid][1]}"
        for segment in job.segments
        if segment.ytid != "fine.wav"
    )
    assert not any("\n" in line for line in job.told)
    assert sorted(path.name for path in (job.folder / ".download").iterdir()) == ["lock"]


def test_next_run_asks_only_for_what_may_come(server: Server, tmp_path: Path) -> None:
    server.files["there.wav"] = encode(noise(2), RATE)
    server.statuses["busy.wav"] = 403
    rows = [(name, 0.0, 1.0) for name in ("there.wav", "busy.wav", "gone.wav")]
    job = Job(server, tmp_path, *rows)
    assert job.run() == Tally(fetched=1, unavailable=1, failed=1)

    server.asked.clear()
    server.files["busy.wav"] = server.files["gone.wav"] = server.files["there.wav"]
    assert job.run() == Tally(there=1, remembered=1, fetched=1)
    assert server.paths() == ["busy.wav"]

    server.asked.clear()
    assert job.run(retry_failed=True) == Tally(there=2, fetched=1)
    assert server.paths() == ["gone.wav"]
    assert job.run() == Tally(there=3)
    assert {outcome for outcome, _ in job.log().values()} == {"fetched"}


def test_log_line_that_was_cut(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, ("gone.wav", 0.0, 1.0), ("gone too.wav", 0.0, 1.0))
    job.run(workers=1)
    log = job.folder / LOG_NAME
    first, second = log.read_text().splitlines()
    log.write_text(first + "\n" + second[:30])
    server.asked.clear()
    assert job.run() == Tally(remembered=1, unavailable=1)
    assert log.read_text().splitlines() == [first, second[:30], second]
    assert job.run() == Tally(remembered=2)


@pytest.mark.parametrize(
    ("reason", "lasting"),
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
def test_reasons_that_last(reason: str, lasting: bool) -> None:
    assert is_lasting(reason) is lasting


def test_several_at_a_time(server: Server, tmp_path: Path) -> None:
    names = [f"{index}.wav" for index in range(3)]
    server.files = {name: encode(noise(2), RATE) for name in names}
    server.gate = threading.Barrier(3, timeout=60)  # One alone would never get through.
    job = Job(server, tmp_path, *((name, 0.0, 1.0) for name in names))
    assert job.run(workers=3) == Tally(fetched=3)


def test_segment_that_is_listed_twice(server: Server, tmp_path: Path) -> None:
    server.files["a.wav"] = encode(noise(2), RATE)
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    job.segments *= 2
    assert job.run() == Tally(fetched=1)


@pytest.mark.parametrize(
    "row", [("../a", 0.0, 1.0), ("a", 2.0, 1.0), ("a", -1.0, 1.0), ("a", 0.0, float("nan"))]
)
def test_what_is_no_segment(server: Server, tmp_path: Path, row: tuple[str, float, float]) -> None:
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    job.segments.append(Segment(*row, labels=()))
    with pytest.raises(SatError, match=rf"'{row[0]}_.*' is no video id with its times"):
        job.run()
    assert server.asked == []


def test_clip_of_a_name_written_otherwise_is_there(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, ("ab.wav", 30.0, 40.0))
    job.folder.mkdir()
    (job.folder / "ab.wav_30_40.wav").write_bytes(encode(noise(1), RATE))
    assert job.run() == Tally(there=1)


def test_giving_up(server: Server, tmp_path: Path) -> None:
    names = [f"{index}.wav" for index in range(9)]
    server.statuses = dict.fromkeys(names, 403)
    job = Job(server, tmp_path, *((name, 0.0, 1.0) for name in names))
    with pytest.raises(SatError, match=r"3 clips in a row failed.*HTTP Error 403.*go on") as caught:
        job.run(workers=1, give_up_after=3)
    assert "\n" not in str(caught.value)
    assert len(job.log()) == 3


def test_videos_that_are_gone_are_no_reason_to_give_up(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, *((f"{index}.wav", 0.0, 1.0) for index in range(4)))
    assert job.run(give_up_after=2) == Tally(unavailable=4)


def test_folder_of_another_process(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    (job.folder / ".download").mkdir(parents=True)
    with (
        filelock.FileLock(job.folder / ".download" / "lock"),
        concurrent.futures.ThreadPoolExecutor(1) as other,
        pytest.raises(SatError, match="another process is downloading into"),
    ):
        other.submit(job.run).result()
    assert job.run() == Tally(unavailable=1)


def test_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    job.folder.write_bytes(b"")
    with pytest.raises(SatError, match=r"cannot write .*100 % sound.*--folder"):
        job.run()


def test_cookies_are_sent(server: Server, tmp_path: Path) -> None:
    server.files["a.wav"] = encode(noise(2), RATE)
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0))
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\twho\tme\n"
    assert job.run(site=job.site._replace(cookies=text)) == Tally(fetched=1)
    assert all("who=me" in headers.get("Cookie", "") for _, headers in server.asked)


# What yt-dlp asks of ffmpeg, done with soundfile: -ss START -t SECONDS -i URL ... file:OUT
FFMPEG = f"""#!{sys.executable}
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


@pytest.mark.parametrize(
    ("start", "asked"), [(0.0, (0.0, 3.0)), (0.5, (0.0, 3.5)), (4.25, (3.0, 4.25))]
)
def test_range_gives_the_samples_that_the_whole_gives(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float, asked: object
) -> None:
    server.files["a.flac"] = encode(noise(9, 44_100, 2), 44_100, "FLAC")
    job = Job(server, tmp_path, ("a.flac", start, start + 2))
    assert job.run() == Tally(fetched=1)
    whole = job.clip()
    job.path().unlink()

    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(FFMPEG.replace("{log!r}", repr(str(tmp_path / "asked"))))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert job.run(site=job.site._replace(ranges=True)) == Tally(fetched=1), job.told
    first, seconds = map(float, (tmp_path / "asked").read_text().split())
    assert (first, seconds) == asked
    assert len(job.clip()) == len(whole)
    # A last bit: the resampler's first samples have gone through other sums.
    assert np.abs(job.clip().astype(int) - whole).max() <= 1


def test_whole_video_where_no_range_can_be_had(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sound = noise(9)
    server.files["a.wav"] = encode(sound, RATE)
    job = Job(server, tmp_path, ("a.wav", 4.0, 6.0))
    assert job.run(site=job.site._replace(ranges=True)) == Tally(fetched=1)
    np.testing.assert_array_equal(job.clip(), sound[4 * RATE : 6 * RATE, 0])


@pytest.mark.skipif(REAL_FFMPEG is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(("name", "tolerance"), [("a.flac", 1), ("a.m4a", 600)])
def test_installed_ffmpeg_cuts_at_the_very_sample(
    server: Server, tmp_path: Path, name: str, tolerance: int
) -> None:
    assert REAL_FFMPEG
    (tmp_path / "a.wav").write_bytes(encode(noise(60, 44_100), 44_100))
    low_pass = ["-af", "lowpass=3000", "-b:a", "160k"]
    make = [REAL_FFMPEG, "-v", "error", "-i", "a.wav", *low_pass, name]
    subprocess.run(make, check=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    server.files[name] = (tmp_path / name).read_bytes()
    job = Job(server, tmp_path, (name, 33.25, 43.25))
    assert job.run() == Tally(fetched=1)
    whole = job.clip().astype(int)
    job.path().unlink()
    assert job.run(site=job.site._replace(ranges=True)) == Tally(fetched=1)
    # A sample too early or late would differ by the sound's own size, thousands.
    assert np.abs(job.clip() - whole).max() <= tolerance


@pytest.mark.skipif(REAL_FFMPEG is None, reason="ffmpeg is not installed")
def test_range_that_breaks_off_before_its_video(server: Server, tmp_path: Path) -> None:
    server.files = {"a.wav": encode(noise(25), RATE), "page": page(f"{server.url}/a.wav", 60)}
    job = Job(server, tmp_path, ("page", 20.0, 30.0))
    assert job.run(site=job.site._replace(ranges=True)) == Tally(failed=1)
    assert job.log() == {"page": ("failed", "the sound breaks off at 25 s of 60")}


def start_and_wait(job: Job, server: Server, path: str, output: Path) -> subprocess.Popen[bytes]:
    """Starts a program that writes to a file, and waits until it asked for a path and another."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            job.command(), cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )
    deadline = time.monotonic() + 60
    while path not in server.paths() or server.paths() == [path]:
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def stalled_job(server: Server, tmp_path: Path) -> Job:
    names = ["a.wav", "slow.wav", "b.wav", "c.wav"]
    server.files = {name: encode(noise(4), RATE) for name in names}
    server.stalling.add("slow.wav")
    return Job(server, tmp_path, *((name, 1.0, 3.0) for name in names))


def test_killed_run_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    job = stalled_job(server, tmp_path)
    with start_and_wait(job, server, "slow.wav", tmp_path / "output") as process:
        deadline = time.monotonic() + 60
        while not job.path(3).exists():  # The other worker goes on to the end of the list.
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert job.whole() == {"a.wav", "b.wav", "c.wav"}
    assert list((job.folder / ".download" / "part").rglob("*"))

    server.release.set()
    server.asked.clear()
    assert job.run() == Tally(there=3, fetched=1)
    assert server.paths() == ["slow.wav"]
    assert job.whole() == {"a.wav", "slow.wav", "b.wav", "c.wav"}
    assert sorted(path.name for path in (job.folder / ".download").iterdir()) == ["lock"]


def test_interrupt_ends_it_though_the_server_is_silent(server: Server, tmp_path: Path) -> None:
    job = stalled_job(server, tmp_path)
    with start_and_wait(job, server, "slow.wav", tmp_path / "output") as process:
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does, so that ffmpeg hears it too.
        assert process.wait(timeout=60) == 130
    assert (tmp_path / "output").read_text() == (
        "data_pipeline.download: stopped: what is there is whole, and the same command goes on\n"
    )
    assert "slow.wav" not in job.whole()
    server.release.set()
    tally = job.run()
    assert tally.there + tally.fetched == 4


def test_command_line(server: Server, tmp_path: Path) -> None:
    server.files["a.wav"] = encode(noise(4), RATE)
    job = Job(server, tmp_path, ("a.wav", 0.0, 1.0), ("gone.wav", 0.0, 1.0), ("b.wav", 0.0, 1.0))
    done = call(*job.command("--limit=2"))
    clip = job.segments[1].id
    assert done.returncode == 1
    assert re.fullmatch(
        rf"data_pipeline\.download: {re.escape(clip)}: HTTP Error 404: .*\n", done.stderr
    )
    assert done.stdout == (
        f"{job.folder}: 1 clips fetched, 0 were there, 1 unavailable, 0 failed, 0 known to be "
        f"unavailable; reasons in {job.folder / LOG_NAME}\n"
    )
    again = call(*job.command("--limit=2"))
    assert (again.returncode, again.stderr) == (0, "")
    assert "0 clips fetched, 1 were there, 0 unavailable, 0 failed, 1 known" in again.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give --segments=FILE or --lists"),
        (["--lists", "--segments=x.csv", "--folder=x"], "one of them"),
        (["--lists"], "--folder is needed"),
        (["--lists", "--folder=x", "--workers=0"], "--workers=0"),
        (["--segments=x.csv", "--folder=x", "--video_url=http://x/"], "--video_url needs {ytid}"),
        (["x.csv"], "x.csv is no flag"),
        (["--wrong"], "Unknown command line flag 'wrong'"),
    ],
)
def test_wrong_flags(flags: list[str], words: str) -> None:
    done = call(*PROGRAM, *flags)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_youtube_needs_ffmpeg(tmp_path: Path) -> None:
    table = segments_csv(tmp_path, ("aaaaaaaaaaa", 0.0, 1.0))
    flags = [f"--segments={table}", f"--folder={tmp_path / 'sound'}"]
    done = call(*PROGRAM, *flags, PATH=str(tmp_path))
    assert done.returncode == 1
    assert re.fullmatch(r"data_pipeline\.download: ffmpeg is not installed.*\n", done.stderr)


def test_without_yt_dlp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(SatError, match=r"^yt-dlp is not installed: pip install 'sat-jax\[downl"):
        check_yt_dlp()


def test_heavy_libraries_are_imported_late() -> None:
    code = (
        "import sys, data_pipeline.download.__main__, data_pipeline.download.run;"
        "print(sorted({'yt_dlp', 'tensorflow', 'torch', 'jax'} & set(sys.modules)))"
    )
    done = call(sys.executable, "-c", code)
    assert done.stdout == "[]\n", done.stderr


def test_parallel_results_and_errors() -> None:
    results = run_parallel(lambda job: job**2, range(99), workers=4, stop=threading.Event())
    assert sorted(results) == [job**2 for job in range(99)]
    stop = threading.Event()
    with pytest.raises(ZeroDivisionError):
        list(run_parallel(lambda job: 1 // job, [0, 1], workers=2, stop=stop))
    assert stop.is_set()


LISTS = {
    "csv/class_labels_indices.csv": b'index,mid,display_name\n0,/m/09x0r,"Speech"\n',
    "csv/balanced_train_segments.csv": HEADER.encode(),
    "csv/eval_segments.csv": HEADER.encode(),
    "csv/unbalanced_train_segments.csv": HEADER.encode(),
}
PSL = {"balanced_4s.parquet": b"PAR1one", "full 4s.parquet": b"PAR1two"}


def record(server: Server, *names: str) -> bytes:
    """What Zenodo tells of a record."""
    links = {name: f"{server.url}/api/{name.replace(' ', '%20')}/content" for name in names}
    files = [{"key": name, "links": {"self": link}} for name, link in links.items()]
    return json.dumps({"id": 1, "files": files}).encode()


def serve_lists(server: Server) -> list[str]:
    server.files |= LISTS | {"record": record(server, *PSL, "weights.pt")}
    server.files |= {f"api/{name.replace(' ', '%20')}/content": PSL[name] for name in PSL}
    return ["--lists", f"--lists_url={server.url}/csv", f"--psl_url={server.url}/record"]


def test_lists(server: Server, tmp_path: Path) -> None:
    flags = [*serve_lists(server), f"--folder={tmp_path / 'lists'}"]
    done = call(*PROGRAM, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    expected = {path.removeprefix("csv/"): body for path, body in LISTS.items()} | PSL
    found = {path.name: path.read_bytes() for path in (tmp_path / "lists").iterdir()}
    assert {name: body for name, body in found.items() if not name.endswith(".lock")} == expected
    assert done.stdout == "".join(f"{tmp_path}/lists/{name}: fetched\n" for name in expected)

    server.asked.clear()
    again = call(*PROGRAM, *flags)
    assert again.returncode == 0
    assert again.stdout == done.stdout.replace("fetched", "was there")
    assert server.paths() == ["record"]


def test_list_that_is_missing_does_not_keep_the_others(server: Server, tmp_path: Path) -> None:
    flags = serve_lists(server)
    del server.files["csv/eval_segments.csv"]
    server.files["csv/balanced_train_segments.csv"] = b"<html>Please log in</html>"
    server.files["record"] = record(server, "weights.pt")
    done = call(*PROGRAM, *flags, f"--folder={tmp_path}")
    assert done.returncode == 1
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == [
        "class_labels_indices.csv",
        "unbalanced_train_segments.csv",
    ]
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "lists no .parquet files: give their addresses with --psl_url" in lines[0]
    assert "balanced_train_segments.csv: the server sent text/csv that begins with" in lines[1]
    assert "eval_segments.csv: HTTP 404" in lines[2]


def test_official_addresses() -> None:
    base = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"
    assert [file.url for file in audioset_files()] == [
        base + "class_labels_indices.csv",
        base + "balanced_train_segments.csv",
        base + "eval_segments.csv",
        base + "unbalanced_train_segments.csv",
    ]


def test_psl_by_the_files_own_addresses(server: Server, tmp_path: Path) -> None:
    server.files["x/a.parquet"] = b"PAR1data"
    (file,) = psl_files([f"{server.url}/x/a.parquet?download=1"])
    assert file.name == "a.parquet"
    server.files["x/a.parquet?download=1"] = b"PAR1data"
    assert fetch_list(file, tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == b"PAR1data"
    assert not fetch_list(file, tmp_path)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"files": [{"key": "a.parquet"}]}'])
def test_what_is_no_record(server: Server, body: bytes) -> None:
    server.files["record"] = body
    with pytest.raises(SatError, match=r"/record (is no|has no) .*--psl_url"):
        psl_files([f"{server.url}/record"])


def test_record_cannot_name_files_outside_of_the_folder(server: Server) -> None:
    server.files["record"] = record(server, "../../evil.parquet")
    assert [file.name for file in psl_files([f"{server.url}/record"])] == ["evil.parquet"]


def test_what_is_no_cookie_file(tmp_path: Path) -> None:
    table = segments_csv(tmp_path, ("a", 0.0, 1.0))
    flags = [f"--segments={table}", f"--folder={tmp_path / 'sound'}", "--video_url=http://x/{ytid}"]
    done = call(*PROGRAM, *flags, f"--cookies={table}")
    assert done.returncode == 1
    assert done.stderr == (
        f"data_pipeline.download: {table} is no Netscape cookie file: export one from a browser\n"
    )
