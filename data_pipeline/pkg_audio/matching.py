"""Which recordings hold the same piece of sound, by their waveforms. Pure NumPy and SciPy (floor 0).

The loudest blocks of each recording are slid along all others, after a filter that takes away low
frequencies, in which any two drums are alike. Where one fits, all blocks of both are compared at
that lag, whitened: a copy fits in all frequencies, a tone of the same pitch in its own alone.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import fft, linalg, signal

RATE = 8_000
"""Samples per second of what is compared."""
BLOCKS = 2
"""Loudest blocks of each recording that are slid."""
FITS = 0.6
"""Correlation from which a slid block is looked at again."""
COPY = 0.7
"""Whitened correlation from which a block is taken for a copy."""
LEAST = 0.3
"""Share of the loud blocks in common that must be copies, and at least two, or all there are."""

_LENGTHS = (2_048, 1_024, 512)
"""Of a block: the first that a recording has room for."""
_SPAN = 16_384
"""Samples that are transformed at once."""
_BATCH = 64
_ORDER = 16
"""Of the filter that whitens."""
_QUIET = 1e-3
"""What counts as silence: this part of the power of the loudest block."""


class Match(NamedTuple):
    """Two recordings with a piece in common.

    Attributes:
      first: place of the recording that a block is of.
      second: place of the recording that it was found in.
      lag: seconds from the first's begin to the second's.
      slid: correlation of that block.
      copied: how many of the loud blocks in common are copies, at that lag.
      blocks: how many there are.
      whitened: their mean whitened correlation.
    """

    first: int
    second: int
    lag: float
    slid: float
    copied: int
    blocks: int
    whitened: float

    @property
    def is_copy(self) -> bool:
        """Whether enough blocks agree."""
        return self.copied >= max(min(2, self.blocks), LEAST * self.blocks)


class _Block(NamedTuple):
    recording: int
    start: int
    samples: np.ndarray


def find_matches(
    recordings: Sequence[np.ndarray],
    related: Callable[[int, int], bool],
    *,
    workers: int = 1,
) -> list[Match]:
    """Looks for a piece in common of any two recordings.

    Args:
      recordings: each float32 [s] at `RATE`.
      related: whether two recordings, by place, need no comparison.
      workers: threads.

    Returns:
      The best one of each two that have a block that fits (`FITS`), by place; see `Match.is_copy`.
    """
    bright = [np.diff(one, prepend=one[:1]).astype(np.float32) for one in recordings]
    blocks = [block for place, one in enumerate(bright) for block in _loudest(place, one)]
    by_length = [[b for b in blocks if len(b.samples) == length] for length in _LENGTHS]
    batches = [
        _Batch(part[i : i + _BATCH]) for part in by_length for i in range(0, len(part), _BATCH)
    ]

    def search(place: int) -> list[Match]:
        return list(_search(bright, place, batches, related))

    best: dict[tuple[int, int], Match] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="find-copies") as pool:
        for matches in pool.map(search, range(len(bright))):
            for match in matches:
                pair = (min(match.first, match.second), max(match.first, match.second))
                if pair not in best or _strength(match) > _strength(best[pair]):
                    best[pair] = match
    return [best[pair] for pair in sorted(best)]


def _strength(match: Match) -> tuple[bool, int, float]:
    return match.is_copy, match.copied, match.whitened


def _loudest(place: int, samples: np.ndarray) -> Iterator[_Block]:
    length = next((n for n in _LENGTHS if n <= len(samples)), 0)
    energy = _energies(samples, length) if length else np.zeros(0)
    for _ in range(BLOCKS):
        if not len(energy) or energy.max() < 1e-7 * length:
            return
        start = int(energy.argmax())
        block = samples[start : start + length]
        yield _Block(place, start, block / np.sqrt(np.square(block, dtype=float).sum()))
        energy[max(0, start - length) : start + length] = 0.0


def _energies(samples: np.ndarray, length: int) -> np.ndarray:
    """Of what is under a block, at each of its places."""
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return sums[length:] - sums[:-length]


class _Batch:
    """Blocks of one length, transformed."""

    def __init__(self, blocks: Sequence[_Block]) -> None:
        self.blocks = blocks
        self.length = len(blocks[0].samples)
        stacked = np.stack([block.samples for block in blocks]).astype(np.float32)
        self.spectra = np.conj(fft.rfft(stacked, _SPAN))


def _search(
    bright: Sequence[np.ndarray],
    place: int,
    batches: Sequence[_Batch],
    related: Callable[[int, int], bool],
) -> Iterator[Match]:
    """Slides blocks along one recording."""
    samples, seen = bright[place], set[tuple[int, int]]()
    for batch in batches:
        unknown = [i for i, b in enumerate(batch.blocks) if not related(b.recording, place)]
        if not unknown or len(samples) < batch.length:
            continue
        for row, at, slid in _fits(samples, batch.spectra[unknown], batch.length):
            block = batch.blocks[unknown[row]]
            lag = at - block.start
            if (block.recording, lag) not in seen:
                seen.add((block.recording, lag))
                compared = compare(bright[block.recording], samples, lag)
                yield Match(block.recording, place, lag / RATE, slid, *compared)


def _fits(
    samples: np.ndarray, spectra: np.ndarray, length: int
) -> Iterator[tuple[int, int, float]]:
    """Which blocks fit anywhere: their row, the place and the correlation."""
    energy = _energies(samples, length)
    floor = max(_QUIET * energy.max(), 1e-9)
    scale = (1.0 / np.sqrt(np.maximum(energy, floor))).astype(np.float32)
    hop = _SPAN - length + 1
    for begin in range(0, len(scale), hop):
        width = min(hop, len(scale) - begin)
        spectrum = fft.rfft(samples[begin : begin + _SPAN], _SPAN)
        slid = np.abs(fft.irfft(spectra * spectrum, _SPAN, axis=1)[:, :width])
        slid *= scale[begin : begin + width]
        at = slid.argmax(axis=1)
        top = slid[np.arange(len(slid)), at]
        for row in np.flatnonzero(top > FITS):
            yield int(row), begin + int(at[row]), float(top[row])


def compare(first: np.ndarray, second: np.ndarray, lag: int) -> tuple[int, int, float]:
    """Compares all that two recordings have in common at a lag.

    Returns:
      How many of the loud blocks are copies, how many there are, and their mean correlation.
    """
    begin, end = max(0, -lag), min(len(first), len(second) - lag)
    one, two = _whiten_alike(first[begin:end], second[begin + lag : end + lag])
    length = next((n for n in _LENGTHS if n <= len(one)), len(one))
    count = len(one) // length
    one, two = (part[: count * length].reshape(count, length) for part in (one, two))
    power, other = np.square(one).sum(axis=1), np.square(two).sum(axis=1)
    loud = np.maximum(power / power.max(), other / max(other.max(), 1e-30)) > 0.03
    # A copy at a slightly other rate drifts by some samples.
    near = [np.abs((one * np.roll(two, shift, axis=1)).sum(axis=1)) for shift in range(-4, 5)]
    r = (np.max(near, axis=0) / np.sqrt(np.maximum(power * other, 1e-30)))[loud]
    return int((r >= COPY).sum()), len(r), float(r.mean())


def _whiten_alike(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Filters two pieces, both in the same way, so that the first has all frequencies alike."""
    if len(one) < 2 * _ORDER:
        return one.astype(float), two.astype(float)
    power = signal.fftconvolve(one, one[::-1])[len(one) - 1 :][: _ORDER + 1].astype(float)
    power[0] = power[0] * (1 + 1e-3) + 1e-12
    ahead = linalg.solve_toeplitz(power[:-1], power[1:])
    whitener = np.concatenate([[1.0], -ahead])
    return signal.lfilter(whitener, 1.0, one), signal.lfilter(whitener, 1.0, two)
