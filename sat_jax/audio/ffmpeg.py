"""Decoding what libsndfile cannot read with the ffmpeg program, where installed."""

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

# Damage that ffmpeg reports without failing, even when told to stop at errors.
_CUT_SHORT = re.compile(rb"ended prematurely|partial file")


@contextlib.contextmanager
def open_with_ffmpeg(name: str, *, reason: str) -> Iterator[soundfile.SoundFile]:
    """Decodes a file's first audio track, all channels at their own rate, in another process.

    Leaving the context early stops the process; leaving it after the last frame checks that
    ffmpeg got through the whole file.

    Args:
      name: the path.
      reason: why libsndfile could not open it, for errors.

    Yields:
      An open stream of float32 samples.

    Raises:
      SatError: ffmpeg is not installed, cannot read the file, or finds it damaged.
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
        if process.wait() != 0 or _CUT_SHORT.search(_read(log)):
            raise SatError(
                f"{name}: ffmpeg finds it truncated or damaged ({_complaint(log)}): get the whole "
                "file, or convert what is left of it to WAV"
            )


def _command(program: str, name: str) -> list[str]:
    """Decodes to AU, the one container whose header is meant for pipes and holds any rate.

    `file` alone as protocol keeps playlists and the like from making ffmpeg use the network.
    """
    reading = ["-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file"]
    writing = ["-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    return [program, *reading, "-i", f"file:{name}", *writing]


def _open_output(output: IO[bytes], log: IO[bytes], name: str, reason: str) -> soundfile.SoundFile:
    try:
        return ForwardFile(output.fileno(), closefd=False)
    except soundfile.LibsndfileError:
        raise SatError(
            f"{name}: neither libsndfile ({reason}) nor ffmpeg ({_complaint(log)}) can read it: "
            "give an audio file"
        ) from None


def _complaint(log: IO[bytes]) -> str:
    """The first line that ffmpeg wrote, which is the cause, without the part in brackets."""
    lines = _read(log).decode(errors="replace").splitlines() or ["it gave no reason"]
    return re.sub(r"^(\[[^]]*\]\s*)+", "", lines[0]).strip().rstrip(".")


def _read(log: IO[bytes]) -> bytes:
    log.seek(0)
    return log.read()
