"""The probabilities of a chunk."""

import dataclasses

import numpy as np

from sat_jax.errors import SatError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoredChunk:
    """A part of a recording and the probability of each class in it.

    Attributes:
      start: start of the chunk, seconds from the start of the recording.
      end: end of the chunk, seconds.
      probs: float32 [y], the probability of each class.
    """

    start: float
    end: float
    probs: np.ndarray

    def __repr__(self) -> str:
        """Shows the times, the number of classes and the most probable one."""
        top = int(np.argmax(self.probs))
        return (
            f"ScoredChunk(start={self.start:g}, end={self.end:g}, "
            f"probs=[{len(self.probs)} classes, highest {self.probs[top]:.3f} at {top}])"
        )


def check_finite(probs: np.ndarray) -> np.ndarray:
    """Returns probabilities unchanged if all are finite.

    Raises:
      SatError: one is NaN or infinite.
    """
    if not np.isfinite(probs).all():
        raise SatError("scores are not finite: the weights are damaged, use another model")
    return probs
