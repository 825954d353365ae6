"""Decodes files that libsndfile cannot read, with the ffmpeg program if it is installed."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO

import soundfile

from sat_jax.audio.pipe_file import PipeFile, PipeSound
from sat_jax.errors import SatError
from sat_jax.runtime.live_input import input_is_ended


def is_installed() -> bool:
    """Whether there is a program ffmpeg."""
    return shutil.which("ffmpeg") is not None


@contextlib.contextmanager
def open_with_ffmpeg(
    name: str,
    *,
    reason: str,
    begin: int = 0,
    end: int | None = None,
    content: Iterable[bytes] | None = None,
) -> Iterator[soundfile.SoundFile]:
    """Decodes a file's first audio track in another process, with all channels and its own rate.

    Leaving the context before the end stops the process. At the end the context checks that ffmpeg
    has read the whole file.

    Args:
      name: the path.
      reason: why libsndfile could not open it, for error messages.
      begin: the first byte of the file to read, such as that of a later one of joined files.
      end: one past the last byte to read, such as that of the first tag; None reads all.
      content: the file's bytes as they come; None reads the file.

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
            _command(program, _source(name, begin, end) if content is None else "pipe:0"),
            stdin=subprocess.DEVNULL if content is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdout is not None
        if content is not None:
            # Ends with its process: it may wait for ever for a producer that is silent.
            threading.Thread(target=_feed, args=(content, process.stdin), daemon=True).start()
        try:
            with _open_output(process.stdout, log, name, reason) as sound:
                yield sound
        except BaseException:
            process.kill()
            raise
        if input_is_ended():
            process.kill()
        elif process.wait() != 0 or _read(log):
            raise SatError(
                f"{name}: truncated or damaged, says ffmpeg ({_first_error(log)}): get the whole "
                "file, or convert what is left of it to WAV"
            )


def _feed(content: Iterable[bytes], sink: IO[bytes]) -> None:
    # ffmpeg ends early where it finds no audio.
    with contextlib.suppress(OSError, ValueError), sink:
        for data in content:
            sink.write(data)
            sink.flush()


def _source(name: str, begin: int, end: int | None) -> str:
    """Returns ffmpeg's name of a file, or of a stretch of it."""
    if begin == 0 and end in (None, os.path.getsize(name)):
        return f"file:{name}"
    return f"subfile,,start,{begin},end,{end},,:file:{name}"


def _command(program: str, source: str) -> list[str]:
    """Returns a command that decodes to AU, whose header suits pipes and any sample rate.

    Allowing only local protocols keeps playlists from making ffmpeg use the network. Times begin
    anew where streams are joined, which an AU file cannot hold.
    """
    reading = ["-nostdin", "-v", "error", "-protocol_whitelist", "file,subfile,pipe"]
    sound = ["-map", "0:a:0", "-af", "asetpts=N/SR/TB", "-map_metadata", "-1"]
    writing = ["-c:a", "pcm_f32be", "-f", "au", "-flush_packets", "1", "pipe:1"]
    return [program, *reading, "-i", source, *sound, *writing]


def _open_output(output: IO[bytes], log: IO[bytes], name: str, reason: str) -> soundfile.SoundFile:
    pipe = PipeFile(output)
    first_sample = int.from_bytes(pipe.peek(8)[4:])
    if first_sample and len(pipe.peek(first_sample + 1)) <= first_sample:
        raise SatError(
            f"{name}: no sound could be decoded from it: ffmpeg says: {_first_error(log)}: "
            "give another file"
        )
    try:
        return PipeSound(pipe)
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
