"""Finds recordings that share a part, by cross-correlation.

A filter first removes low frequencies, in which all drums are alike. Then the loudest block of each
recording is slid along all others. At each lag that matches, all blocks of both recordings are
whitened and compared: a copy matches at all frequencies, a tone of the same pitch at one only.

The thresholds were chosen by looking at pairs. Without whitening, unrelated recordings reach 0.94
(a tick and a beep; two kicks 0.92); whitened, these are below 0.25. The highest whitened value of a
single block that is surely not a copy is 0.57 (a tabla and rain); of two blocks, at most one
reaches 0.5.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import fft, linalg, signal

RATE = 8_000
"""Sample rate of the comparison."""
FITS = 0.6
"""Correlation of a slid block from which the pair is compared."""
COPY = 0.5
"""Whitened correlation from which one of several blocks is a copy."""
LEAST = 0.3
"""Share of the loud common blocks that must be copies; at least two must be."""
ALONE = (0.7, 0.6)
"""Correlations that a single common block needs, before and after whitening."""
SAME = 0.95
"""Correlation of the slid block from which one copy, or a whitened mean of `FITS`, is enough."""

_LENGTHS = (2_048, 1_024, 512)
"""Lengths of a block: the first one that fits into the recording."""
_SPAN = 16_384
"""Length of a Fourier transform."""
_BATCH = 64
_ORDER = 16
"""Order of the whitening filter."""
_FLOOR = 1e-3
"""Whitening does not raise frequencies below this share of the power."""
_QUIET = 1e-3
"""Silence is below this share of the power of the loudest block."""


class Match(NamedTuple):
    """Two recordings that share a part.

    Attributes:
      first: index of the recording whose block was slid.
      second: index of the recording in which it was found.
      lag: seconds from the start of the first to the start of the second.
      slid: correlation of the slid block.
      copied: loud common blocks that are copies at this lag.
      blocks: loud common blocks.
      whitened: mean whitened correlation of these.
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
        """Whether enough blocks agree; see the constants above."""
        if self.slid >= SAME:
            return self.copied > 0 or self.whitened >= FITS
        if self.blocks == 1:
            return self.slid >= ALONE[0] and self.whitened >= ALONE[1]
        return self.copied >= max(2, LEAST * self.blocks)


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
    """Finds pairs of recordings with a block that matches (`FITS`).

    Args:
      recordings: each float32 [s] at `RATE`.
      related: whether two recordings, given by index, need no comparison.
      workers: number of threads.

    Returns:
      The best match of each pair, ordered by index; see `Match.is_copy`.
    """
    bright = [np.diff(one, prepend=one[:1]).astype(np.float32) for one in recordings]
    batches = _to_batches(block for i, one in enumerate(bright) for block in _loudest(i, one))

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
    """Yields the loudest block, scaled to power 1; nothing if the recording is short or silent."""
    length = next((n for n in _LENGTHS if n <= len(samples)), 0)
    energy = _energies(samples, length) if length else np.zeros(1)
    start = int(energy.argmax())
    if energy[start] > 1e-7 * length:
        block = samples[start : start + length] / np.sqrt(energy[start])
        yield _Block(place, start, block.astype(np.float32))


def _energies(samples: np.ndarray, length: int) -> np.ndarray:
    """Returns the energy under a block at each of its positions."""
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return sums[length:] - sums[:-length]


class _Batch(NamedTuple):
    """Blocks of one length, and their spectra."""

    blocks: Sequence[_Block]
    length: int
    spectra: np.ndarray


def _to_batches(blocks: Iterable[_Block]) -> list[_Batch]:
    batches, every = [], list(blocks)
    for length in _LENGTHS:
        alike = [block for block in every if len(block.samples) == length]
        for begin in range(0, len(alike), _BATCH):
            part = alike[begin : begin + _BATCH]
            spectra = fft.rfft(np.stack([block.samples for block in part]), _SPAN)
            batches.append(_Batch(part, length, np.conj(spectra)))
    return batches


def _search(
    bright: Sequence[np.ndarray],
    place: int,
    batches: Sequence[_Batch],
    related: Callable[[int, int], bool],
) -> Iterator[Match]:
    """Slides all blocks along one recording."""
    samples = bright[place]
    for batch in batches:
        unknown = [i for i, b in enumerate(batch.blocks) if not related(b.recording, place)]
        if not unknown or len(samples) < batch.length:
            continue
        for row, at, slid in _fits(samples, batch.spectra[unknown], batch.length):
            block = batch.blocks[unknown[row]]
            lag = at - block.start
            compared = compare(bright[block.recording], samples, lag)
            yield Match(block.recording, place, lag / RATE, slid, *compared)


def _fits(
    samples: np.ndarray, spectra: np.ndarray, length: int
) -> Iterator[tuple[int, int, float]]:
    """Yields row, position and correlation of blocks that match."""
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
    """Compares the common part of two recordings at a lag.

    Returns:
      The number of loud blocks that are copies, the number of loud blocks, and their mean
      correlation.
    """
    begin, end = max(0, -lag), min(len(first), len(second) - lag)
    one, two = _whiten_alike(first[begin:end], second[begin + lag : end + lag])
    length = next((n for n in _LENGTHS if n <= len(one)), len(one))
    count = len(one) // length
    one, two = (part[: count * length].reshape(count, length) for part in (one, two))
    power, other = np.square(one).sum(axis=1), np.square(two).sum(axis=1)
    loud = np.maximum(power / power.max(), other / max(other.max(), 1e-30)) > 0.03
    # A copy at a slightly different rate drifts by some samples.
    near = [np.abs((one * np.roll(two, shift, axis=1)).sum(axis=1)) for shift in range(-4, 5)]
    r = (np.max(near, axis=0) / np.sqrt(np.maximum(power * other, 1e-30)))[loud]
    return int((r >= COPY).sum()), len(r), float(r.mean())


def _whiten_alike(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Filters both with the linear-prediction filter that whitens the first."""
    if len(one) < 2 * _ORDER:
        return one.astype(float), two.astype(float)
    power = signal.fftconvolve(one, one[::-1])[len(one) - 1 :][: _ORDER + 1].astype(float)
    power[0] = power[0] * (1 + _FLOOR) + 1e-12
    ahead = linalg.solve_toeplitz(power[:-1], power[1:])
    whitener = np.concatenate([[1.0], -ahead])
    # "valid" drops the start, where the filter lacks samples.
    return np.convolve(one, whitener, "valid"), np.convolve(two, whitener, "valid")
