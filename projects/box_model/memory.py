"""How good scores are for sounds that go on, and for sounds that begin.

A class that is heard in a chunk is continuing where it was also heard in the chunk before, else
new. Average precision over chunks is measured with one kind as positives, and all chunks without
the class as negatives.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from sat_jax.metrics.strong import TimedClip, class_columns, overlaps

LEAST_POSITIVES = 10
"""Chunks of a kind that a class needs to be measured; fewer tell nothing."""


def continuing_and_new(clips: Sequence[TimedClip]) -> dict[str, Any]:
    """Segment mAP by kind of positives.

    Args:
      clips: their chunks, scores and events.

    Returns:
      JSON-ready, for "continuing" and "new": `classes` that have `LEAST_POSITIVES` and `mAP`, their
      mean average precision, None if there are none.
    """
    from sklearn.metrics import average_precision_score

    heard, before = _heard(clips)
    precisions: dict[str, list[float]] = {"continuing": [], "new": []}
    for index, column in class_columns(clips, np.flatnonzero(heard.any(0))):
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


def _heard(clips: Sequence[TimedClip]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each class is heard in each chunk, and in that before it in its clip: bool [n, y]."""
    parts = []
    for clip in clips:
        heard = np.zeros(clip.scores.shape, bool)
        for event in clip.events:
            heard[:, event.class_index] |= overlaps(event, clip.start, clip.end)
        parts.append((heard, np.concatenate([np.zeros_like(heard[:1]), heard[:-1]])))
    return np.concatenate([now for now, _ in parts]), np.concatenate([last for _, last in parts])
