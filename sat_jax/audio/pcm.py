"""Raw 16-bit samples from a pipe."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from sat_jax.audio.mono import Source, mono_blocks

_READ_BYTES = 1 << 16
_INT16_SCALE = np.float32(1 / 32_768)


def read_pcm_blocks(
    stream: BinaryIO,
    *,
    rate: int,
    channels: int,
    sample_rate: int = 16_000,
    channel: int | None = None,
    name: str = "standard input",
) -> Iterator[np.ndarray]:
    """Reads headerless little-endian 16-bit PCM, handing on what arrives as it arrives.

    At `sample_rate` nothing is held back; at other rates the resampler lags by some
    milliseconds. A pipe that ends inside a frame loses that frame.

    Args:
      stream: a binary pipe, such as ``sys.stdin.buffer``.
      rate: samples per second and channel of the stream, Hz.
      channels: interleaved channels of the stream.
      sample_rate: samples per second of the result, Hz.
      channel: the one to keep, counted from 0; None for the mean of all.
      name: what error messages call the stream.

    Yields:
      float32 [s] in [-1, 1), mono at `sample_rate`, of varying length, never empty.

    Raises:
      SatError: while iterating; `rate`, `channels` or `channel` is out of range, or the stream
        ends without a sample.
    """
    source = Source(name=name, rate=rate, channels=channels)
    frames = _frames(stream, channels)
    yield from mono_blocks(frames, source, sample_rate=sample_rate, channel=channel)


def _frames(stream: BinaryIO, channels: int) -> Iterator[np.ndarray]:
    # read1 returns what a pipe holds; read would wait until all bytes asked for are there.
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
