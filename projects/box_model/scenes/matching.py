"""Which recordings hold the same piece of sound, by their waveforms.

The loudest block of each recording is slid along all others, after a filter that takes away low
frequencies, in which any two drums are alike. Where it fits, all blocks of both are compared at
that lag, whitened: a copy fits in all frequencies, a tone of the same pitch in its own alone.

How well it must fit was chosen by looking at pairs. Without whitening, recordings that have nothing
in common reach 0.94 (a tick and a beep; two kicks 0.92); whitened, those have less than 0.25. Of
single blocks whitened, the highest that are surely no copies have 0.57 (a tabla and a clip of
rain); of two blocks, one at most has 0.5.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import fft, linalg, signal

RATE = 8_000
"""Samples per second of what is compared."""
FITS = 0.6
"""Correlation from which a slid block is looked at again."""
COPY = 0.5
"""Whitened correlation from which a block is a copy, where others are, too."""
LEAST = 0.3
"""Share of the loud blocks in common that must be copies, and two at least."""
ALONE = (0.7, 0.6)
"""What a single block in common must have without whitening, and whitened."""
SAME = 0.95
"""Correlation of the slid block from which one copied block is enough, or whitening to `FITS`."""

_LENGTHS = (2_048, 1_024, 512)
"""Of a block: the first that a recording has room for."""
_SPAN = 16_384
"""Samples that are transformed at once."""
_BATCH = 64
_ORDER = 16
"""Of the filter that whitens."""
_FLOOR = 1e-3
"""What is weaker than this part of the power is not brought up by whitening."""
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
    """Looks for a piece in common of any two recordings.

    Args:
      recordings: each float32 [s] at `RATE`.
      related: whether two recordings, by place, need no comparison.
      workers: threads.

    Returns:
      The best one of each two that have a block that fits (`FITS`), by place; see `Match.is_copy`.
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
    """The loudest block of a recording, of power 1; none of one that is short or silent."""
    length = next((n for n in _LENGTHS if n <= len(samples)), 0)
    energy = _energies(samples, length) if length else np.zeros(1)
    start = int(energy.argmax())
    if energy[start] > 1e-7 * length:
        block = samples[start : start + length] / np.sqrt(energy[start])
        yield _Block(place, start, block.astype(np.float32))


def _energies(samples: np.ndarray, length: int) -> np.ndarray:
    """Of what is under a block, at each of its places."""
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
    """Slides blocks along one recording."""
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
    power[0] = power[0] * (1 + _FLOOR) + 1e-12
    ahead = linalg.solve_toeplitz(power[:-1], power[1:])
    whitener = np.concatenate([[1.0], -ahead])
    # Without the begin, where the filter has not heard enough yet.
    return np.convolve(one, whitener, "valid"), np.convolve(two, whitener, "valid")
