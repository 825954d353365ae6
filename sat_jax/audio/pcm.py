"""Reads raw 16-bit PCM from a pipe."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from sat_jax.audio.mono import SoundInfo, mono_blocks
from sat_jax.audio.sound_warnings import Warn, warn_in_python

_READ_BYTES = 1 << 16
_INT16_SCALE = np.float32(1 / 32_768)


def read_pcm_blocks(
    stream: BinaryIO,
    *,
    rate: int,
    channels: int,
    sample_rate: int = 16_000,
    channel: int | None = None,
    full_scale: float = 1.0,
    warn: Warn = warn_in_python,
    name: str = "standard input",
) -> Iterator[np.ndarray]:
    """Reads headerless little-endian 16-bit PCM, and yields samples as soon as they arrive.

    Resampling adds a few milliseconds of delay. An incomplete last frame is dropped.

    Args:
      stream: a binary pipe, such as ``sys.stdin.buffer``.
      rate: sample rate of the stream, Hz.
      channels: number of interleaved channels.
      sample_rate: sample rate of the result, Hz.
      channel: the channel to keep, counted from 0; None for the mean of all channels.
      full_scale: the number that all samples are divided by, after 16-bit samples became [-1, 1).
      warn: receives a line if channels cancel each other or the sound is improbably quiet.
      name: the stream's name in error messages.

    Yields:
      float32 [s] in [-1, 1), mono at `sample_rate`, of varying length, never empty.

    Raises:
      SatError: while iterating; `rate`, `channels` or `channel` is out of range, or the stream
        ends without a sample.
    """
    info = SoundInfo(name=name, rate=rate, channels=channels)
    frames = _frames(stream, channels)
    yield from mono_blocks(
        frames, info, sample_rate=sample_rate, channel=channel, full_scale=full_scale, warn=warn
    )


def _frames(stream: BinaryIO, channels: int) -> Iterator[np.ndarray]:
    # read1 returns the bytes that are there; read would wait for the full number.
    read = getattr(stream, "read1", stream.read)
    frame_bytes = 2 * channels
    rest = b""
    while data := read(_READ_BYTES):
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        if whole:
            samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) * _INT16_SCALE
            yield samples.reshape(-1, channels)
