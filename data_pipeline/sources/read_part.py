"""Reading a part of a sound file without all that lies before it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from data_pipeline.sources.bounds import SAMPLE_RATE
from sat_jax.audio import read_blocks
from sat_jax.audio.libsndfile import has_known_length, open_with_libsndfile
from sat_jax.audio.mono import SoundInfo, mono_blocks

# Where libsndfile finds the very sample it is asked for; after a seek in Opus or MP3 the samples
# differ from those of an uninterrupted read.
_EXACT_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
_EXACT_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_BLOCK_SECONDS = 1.0


def read_part(path: Path, begin: int, end: int | None) -> np.ndarray:
    """Reads samples `begin` to `end` of a file as mono at 16 kHz.

    At other rates the samples of a part differ by rounding (about 1e-6) from those of the whole.

    Args:
      path: the file.
      begin: first sample wanted, at 16 kHz.
      end: one past the last; None is the file's end.

    Returns:
      float32 [s]: fewer samples, perhaps none, where the file ends earlier.

    Raises:
      SatError: the file can't be read.
    """
    # A whole second is a whole number of samples at any rate, and a resampler looks back far less.
    second = max(0, begin // SAMPLE_RATE - 1)
    try:
        part = _seek_part(path, second, begin, end) if second else None
    except soundfile.LibsndfileError:
        part = None  # Reading from the beginning tells what is wrong, or asks ffmpeg.
    if part is None:
        part = _cut(read_blocks(path, block_seconds=_BLOCK_SECONDS), 0, begin, end)
    return part


def _seek_part(path: Path, second: int, begin: int, end: int | None) -> np.ndarray | None:
    """The part, decoded from `second` on; None where that might not give the same samples."""
    with open_with_libsndfile(str(path)) as (sound, _):
        is_exact = sound.format in _EXACT_FORMATS and sound.subtype.startswith(_EXACT_SUBTYPES)
        first = second * sound.samplerate
        if not (is_exact and has_known_length(sound) and first < sound.frames):
            return None
        sound.seek(first)
        source = SoundInfo(name=str(path), rate=sound.samplerate, channels=sound.channels)
        blocks = mono_blocks(_frames(sound), source, sample_rate=SAMPLE_RATE, channel=None)
        return _cut(blocks, second * SAMPLE_RATE, begin, end)


def _frames(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    size = max(1, int(_BLOCK_SECONDS * sound.samplerate))
    while len(block := sound.read(size, dtype="float32", always_2d=True)):
        yield block


def _cut(blocks: Iterable[np.ndarray], position: int, begin: int, end: int | None) -> np.ndarray:
    """Samples `begin` to `end` of blocks that start at sample `position`."""
    parts = []
    for block in blocks:
        parts.append(block[max(0, begin - position) :])
        position += len(block)
        if end is not None and position >= end:
            break
    part = np.concatenate(parts)
    return part if end is None else part[: end - begin]
