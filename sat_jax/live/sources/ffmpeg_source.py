"""Cameras and streams, read by the program ffmpeg."""

import os
import re
import shutil
import signal
import subprocess
import threading
from typing import IO

import numpy as np

from sat_jax.audio.mono import SoundInfo
from sat_jax.errors import SatError, one_line
from sat_jax.live.sources.addresses import hide_secrets, shown_address, split_address
from sat_jax.live.sources.inbox import Inbox
from sat_jax.live.sources.reconnecting import (
    Connection,
    Int16Frames,
    LostError,
    ReconnectingSource,
    Timing,
)
from sat_jax.live.sources.source import Gap

_RTSP_OPTIONS = ("-rtsp_transport", "tcp", "-allowed_media_types", "audio")
_RTSP = (*_RTSP_OPTIONS, "-protocol_whitelist", "rtsp,rtsps,tcp,tls")
_HTTP = ("-protocol_whitelist", "http,https,httpproxy,tcp,tls,crypto")
# Without a whitelist, a playlist could make ffmpeg read files of this machine.
SCHEMES = {"rtsp": _RTSP, "rtsps": _RTSP, "http": _HTTP, "https": _HTTP}
"""ffmpeg's arguments by the scheme of the URL."""

_AU_HEADER = 24
_AU_INT16 = 3
_READ_BYTES = 1 << 14
_WAITING_PIECES = 64
_ORIGIN = re.compile(r"^(\[[^]]*\]\s*)+")


class FfmpegSource(ReconnectingSource):
    """A camera or stream by its URL."""

    def __init__(self, url: str, *, channel: int | None = None, timing: Timing | None = None):
        """Checks the URL.

        Args:
          url: with one of `SCHEMES`. Its password is not shown anywhere, but the system shows the
            arguments of ffmpeg to the users of the machine.
          channel: see `sat_jax.live.sources.open_source`.
          timing: how patient it is.

        Raises:
          SatError: the URL is wrong, or ffmpeg is not installed.
        """
        super().__init__(channel=channel, timing=timing or Timing())
        self._options = SCHEMES[split_address(url).scheme]
        self._url = url
        if shutil.which("ffmpeg") is None:
            raise SatError(
                f"{shown_address(url)}: cameras and streams are read by ffmpeg: install it"
            )

    def _connect(self) -> Connection:
        timeout = str(round(self._timing.stall * 1e6))
        reading = ["-nostdin", "-v", "warning", *self._options, "-timeout", timeout]
        sound = ["-map", "0:a:0", "-vn", "-c:a", "pcm_s16be"]
        writing = ["-f", "au", "-flush_packets", "1", "pipe:1"]
        try:
            return _Ffmpeg(["ffmpeg", *reading, "-i", self._url, *sound, *writing], self._url)
        except OSError as error:
            raise LostError(f"cannot start ffmpeg: {error.strerror or error}") from error


class _Ffmpeg:
    """One run of ffmpeg."""

    def __init__(self, command: list[str], url: str) -> None:
        self.is_waiting = False
        self.problem = ""
        self._url, self._name, self._last_line = url, shown_address(url), ""
        self._info: SoundInfo | None = None
        self._frames: Int16Frames | None = None
        self._header = b""
        self._inbox = Inbox(_WAITING_PIECES)
        # In a session of its own, so that Ctrl-C is ours to handle.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._receive, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._note_lines, args=(self._process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def info(self) -> SoundInfo:
        assert self._info is not None
        return self._info

    def read(self, seconds: float) -> np.ndarray | Gap | None:
        data = self._inbox.get(seconds)
        if data is None:
            self.problem = self.problem or self._why()
            return None
        if self._frames is None:
            return self._read_header(data)
        return self._frames.push(data)

    def _read_header(self, data: bytes) -> np.ndarray | None:
        """Takes the first bytes, which tell rate and channels."""
        self._header += data
        if len(self._header) < _AU_HEADER:
            return np.zeros((0, 1), np.float32)
        words = np.frombuffer(self._header[:_AU_HEADER], ">u4").tolist()
        _, first, _, encoding, rate, channels = words
        if self._header[:4] != b".snd" or encoding != _AU_INT16:
            self.problem = "ffmpeg gives no 16-bit AU: use ffmpeg 5 or newer"
            return None
        self._info = SoundInfo(name=self._name, rate=rate, channels=channels)
        if len(self._header) < first:
            return np.zeros((0, 1), np.float32)
        self._frames = Int16Frames(channels, ">i2")
        return self._frames.push(self._header[first:])

    def close(self) -> None:
        self._inbox.close()
        if hasattr(os, "killpg"):  # ffmpeg may be a script that starts the program.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _receive(self, pipe: IO[bytes]) -> None:
        while data := pipe.read(_READ_BYTES):
            if not self._inbox.put(data):
                break
        self._inbox.end("ended")

    def _note_lines(self, pipe: IO[bytes]) -> None:
        """Keeps the last line. Others go nowhere: a camera may complain for weeks."""
        rest = b""
        while data := pipe.read(_READ_BYTES):
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            rest = rest[-_READ_BYTES:]
            found = next(filter(None, (rest, *reversed(lines))), b"")
            self._last_line = found.decode(errors="replace") or self._last_line

    def _why(self) -> str:
        self._threads[1].join(1.0)  # Its last line may come after its last byte.
        line = _ORIGIN.sub("", hide_secrets(self._last_line, self._url)).strip().rstrip(".")
        return one_line(line).removeprefix(f"{self._name}: ") or "the stream ended"
