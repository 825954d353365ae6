"""From interleaved blocks at any rate to checked mono blocks at the wanted rate."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from sat_jax.config import MAX_RATE, MIN_RATE
from sat_jax.errors import SatError

LOUDEST = 1e9
"""Far above any file's full scale; its square is still far below float32's limit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What blocks of samples came from.

    Attributes:
      name: the file's path, or other words for errors to begin with.
      rate: samples per second and channel.
      channels: samples per frame.
    """

    name: str
    rate: int
    channels: int


def mono_blocks(
    blocks: Iterable[np.ndarray], source: Source, *, sample_rate: int, channel: int | None
) -> Iterator[np.ndarray]:
    """Mixes down, checks and resamples; the result does not depend on where blocks are cut.

    Args:
      blocks: float32 [s, channels] at `source.rate`.
      source: where the blocks come from.
      sample_rate: samples per second of the result; blocks already at this rate pass unfiltered.
      channel: the one to keep, from 0; None for the mean of all.

    Yields:
      float32 [s], never empty.

    Raises:
      SatError: the rate, the channel count or `channel` is out of range, a sample is NaN or
        Inf, or there is no sample at all.
    """
    _check_source(source, channel)
    mono = _finite(_mixed(blocks, channel), source)
    empty = True
    for block in _resampled(mono, source.rate, sample_rate):
        empty = False
        yield block
    if empty:
        raise SatError(f"{source.name}: holds no audio: give a longer recording")


def _check_source(source: Source, channel: int | None) -> None:
    if not MIN_RATE <= source.rate <= MAX_RATE:
        raise SatError(
            f"{source.name}: a sample rate of {source.rate} Hz is outside {MIN_RATE} to {MAX_RATE} "
            "Hz: correct the rate, or resample the audio"
        )
    if source.channels < 1:
        raise SatError(f"{source.name}: has {source.channels} channels: at least 1 is needed")
    if channel is not None and channel not in range(source.channels):
        raise SatError(
            f"{source.name}: has no channel {channel}: it has {source.channels}, counted from 0 "
            f"to {source.channels - 1}"
        )


def _mixed(blocks: Iterable[np.ndarray], channel: int | None) -> Iterator[np.ndarray]:
    for block in blocks:
        if block.shape[1] == 1:
            yield block[:, 0]
        elif channel is not None:
            yield np.ascontiguousarray(block[:, channel])
        else:
            yield block.mean(axis=1)


def _finite(blocks: Iterable[np.ndarray], source: Source) -> Iterator[np.ndarray]:
    position = 0
    for block in blocks:
        sane = np.abs(block) < LOUDEST  # False for NaN too.
        if not sane.all():
            worst = int(np.argmin(sane))
            if worst:
                yield block[:worst]
            seconds, value = (position + worst) / source.rate, block[worst]
            what = f"{value:.3g}, which no sound is" if np.isfinite(value) else "NaN or Inf"
            raise SatError(
                f"{source.name}: the sample at {seconds:.3f} s is {what}: repair the file or "
                "leave it out"
            )
        position += len(block)
        yield block


def _resampled(
    blocks: Iterable[np.ndarray], source_rate: int, sample_rate: int
) -> Iterator[np.ndarray]:
    if source_rate == sample_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
    shortest = math.ceil(source_rate / sample_rate)
    heard = 0
    for block in blocks:
        heard += len(block)
        resampled = resampler.resample_chunk(block)
        if resampled.size:
            yield resampled
    # What is shorter than one sample of the result is filled up to one with silence.
    padding = max(0, shortest - heard) if heard else 0
    rest = resampler.resample_chunk(np.zeros(padding, np.float32), last=True)
    if rest.size:
        yield rest
