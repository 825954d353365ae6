"""Raw 16-bit PCM."""

from collections.abc import Iterable, Iterator

import numpy as np

_INT16_SCALE = np.float32(1 / 32_768)


def pcm_frames(pieces: Iterable[bytes], channels: int) -> Iterator[np.ndarray]:
    """Turns little-endian 16-bit PCM into blocks. An incomplete last frame is dropped.

    Args:
      pieces: bytes, cut anywhere.
      channels: number of interleaved channels.

    Yields:
      float32 [s, channels] in [-1, 1).
    """
    frame_bytes = 2 * channels
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        if whole:
            samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) * _INT16_SCALE
            yield samples.reshape(-1, channels)
