"""How good scores are for sounds that go on, and for sounds that begin.

A class that is heard in a chunk is continuing where it was also heard in the chunk before, else
new. Average precision over chunks is measured with one kind as positives, and all chunks without
the class as negatives.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from sat_jax.metrics.rows import Scores
from sat_jax.metrics.strong import TimedClip, clip_rows, column_blocks, overlapped

LEAST_POSITIVES = 10
"""Chunks of a kind that a class needs to be measured; fewer tell nothing."""
_BLOCK_VALUES = 2**25  # Scores read at once: 128 MiB of float32.


def continuing_and_new(clips: Sequence[TimedClip], scores: Scores) -> dict[str, Any]:
    """Segment mAP by kind of positives.

    Args:
      clips: which chunks there are, one behind another, and what is heard in them.
      scores: float [n, y], chunk after chunk of clip after clip.

    Returns:
      JSON-ready, for "continuing" and "new": `classes` that have `LEAST_POSITIVES` and `mAP`, their
      mean average precision, None if there are none.
    """
    from sklearn.metrics import average_precision_score

    heard, before = _heard(clips, scores)
    precisions: dict[str, list[float]] = {"continuing": [], "new": []}
    classes = np.flatnonzero(heard.any(0))
    for block in column_blocks(classes, len(scores), _BLOCK_VALUES):
        for column, index in zip(scores[:, block].T, block, strict=True):
            now, earlier = heard[:, index], before[:, index]
            for kind, positive in (("continuing", now & earlier), ("new", now & ~earlier)):
                if positive.sum() >= LEAST_POSITIVES:
                    chosen = positive | ~now
                    value = average_precision_score(positive[chosen], column[chosen])
                    precisions[kind].append(float(value))
    return {
        kind: {"classes": len(values), "mAP": statistics.mean(values) if values else None}
        for kind, values in precisions.items()
    }


def _heard(clips: Sequence[TimedClip], scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Whether each class is heard in each chunk, and in that before it in its clip: bool [n, y]."""
    heard, before = np.zeros(scores.shape, bool), np.zeros(scores.shape, bool)
    for clip, rows in clip_rows(clips, scores):
        for event in clip.events:
            heard[rows, event.class_index] |= overlapped(event, clip.start, clip.end)
        before[rows][1:] = heard[rows][:-1]
    return heard, before
