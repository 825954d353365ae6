"""Where a window of a clip begins and ends, for every source alike."""

from sat_jax.errors import SatError

SAMPLE_RATE = 16_000
"""Samples per second of what a source gives, Hz."""


def check_rate(rate: int) -> None:
    """Refuses models that hear another rate than sources give.

    Args:
      rate: the model's, Hz.

    Raises:
      SatError: it is not `SAMPLE_RATE`.
    """
    if rate != SAMPLE_RATE:
        raise SatError(f"the model hears {rate} Hz, clips have {SAMPLE_RATE}: choose another")


def window_bounds(
    length: int, *, num_samples: int | None, place: float, start: float | None, name: str
) -> tuple[int, int]:
    """Turns what `Source.read` is asked for into samples.

    Args:
      length: samples in the clip.
      num_samples: see `Source.read`.
      place: see `Source.read`.
      start: see `Source.read`.
      name: what messages call the clip.

    Returns:
      The window's first sample and one past its last, at most `length`.

    Raises:
      SatError: the clip ends before the window begins.
    """
    if start is not None:
        first = round(start * SAMPLE_RATE)
    elif num_samples is None:
        first = 0
    else:
        first = int(place * max(1, length - num_samples + 1))
    last = length if num_samples is None else min(length, first + num_samples)
    if not length:
        raise SatError(f"{name}: holds no audio: leave it out")
    if first >= last:
        raise SatError(
            f"{name}: has nothing at {first / SAMPLE_RATE:g} s, it is {length / SAMPLE_RATE:g} s "
            "long: correct the times, or leave it out"
        )
    return first, last
