"""Decodes files that libsndfile cannot read, with the ffmpeg program if it is installed."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO

import soundfile

from sat_jax.audio.libsndfile import ForwardFile
from sat_jax.errors import SatError


def is_installed() -> bool:
    """Whether there is a program ffmpeg."""
    return shutil.which("ffmpeg") is not None


@contextlib.contextmanager
def open_with_ffmpeg(name: str, *, reason: str) -> Iterator[soundfile.SoundFile]:
    """Decodes a file's first audio track in another process, with all channels and its own rate.

    Leaving the context before the end stops the process. At the end the context checks that ffmpeg
    has read the whole file.

    Args:
      name: the path.
      reason: why libsndfile could not open it, for error messages.

    Yields:
      An open stream of float32 samples.

    Raises:
      SatError: ffmpeg is not installed or cannot read the file, or the file is damaged.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise SatError(
            f"{name}: libsndfile cannot read it ({reason}): if it is audio, install ffmpeg or "
            "convert it to WAV or FLAC"
        )
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            _command(program, name), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        assert process.stdout is not None
        try:
            with _open_output(process.stdout, log, name, reason) as sound:
                yield sound
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0 or _read(log):
            raise SatError(
                f"{name}: truncated or damaged, says ffmpeg ({_first_error(log)}): get the whole "
                "file, or convert what is left of it to WAV"
            )


def _command(program: str, name: str) -> list[str]:
    """Returns a command that decodes to AU, whose header suits pipes and any sample rate.

    Allowing only the protocol `file` keeps playlists from making ffmpeg use the network.
    """
    reading = ["-nostdin", "-v", "error", "-protocol_whitelist", "file"]
    writing = ["-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    return [program, *reading, "-i", f"file:{name}", *writing]


def _open_output(output: IO[bytes], log: IO[bytes], name: str, reason: str) -> soundfile.SoundFile:
    try:
        return ForwardFile(output.fileno(), closefd=False)
    except soundfile.LibsndfileError:
        raise SatError(
            f"{name}: neither libsndfile ({reason}) nor ffmpeg ({_first_error(log)}) can read it: "
            "give an audio file"
        ) from None


def _first_error(log: IO[bytes]) -> str:
    """Returns ffmpeg's first error, which is the cause of the others, without its origin."""
    lines = _read(log).decode(errors="replace").splitlines() or ["it gave no reason"]
    return re.sub(r"^(\[[^]]*\]\s*)+", "", lines[0]).strip().rstrip(".")


def _read(log: IO[bytes]) -> bytes:
    log.seek(0)
    return log.read()
