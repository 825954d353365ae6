"""From a clip's answers to one, and to what is heard when."""

import numpy as np

from sat_jax.evaluation.store import ScoredClips
from sat_jax.streaming.pieces import Aggregation


def aggregate_clips(scored: ScoredClips, how: Aggregation) -> np.ndarray:
    """One answer a clip: float32 [n, y]. In clip mode there is but one already."""
    scores = np.empty((len(scored.clips), scored.rows.shape[1]), np.float32)
    for row, answers in zip(scores, scored.answers(), strict=True):
        if how == "last":
            row[:] = answers[-1]
        else:
            row[:] = answers.max(0) if how == "max" else answers.mean(0, dtype=np.float64)
    return scores


def answer_times(
    num_answers: int, num_samples: int, *, hop: int, rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """When a clip's answers begin and end, seconds: float64 [k] each.

    An answer stands for the time since the one before, however much is heard for it. Seamless
    framing may hear the very end twice: such an answer lasts no time.

    Args:
      num_answers: k.
      num_samples: length of the clip.
      hop: samples from one answer to the next.
      rate: samples per second.
    """
    starts = np.minimum(np.arange(num_answers) * hop, num_samples)
    ends = np.minimum(starts + hop, num_samples)
    return starts / rate, ends / rate
