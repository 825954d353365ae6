"""How often the right one of some classes was chosen (floor 6)."""

import collections
from collections.abc import Sequence

import numpy as np


def summarize(truth: Sequence[str], chosen: Sequence[str]) -> dict[str, object]:
    """Accuracy of all clips and by class, and what was taken for what.

    Args:
      truth: the class of each clip.
      chosen: what was chosen.
    """
    right = np.array([a == b for a, b in zip(truth, chosen, strict=True)])
    by_class = {
        value: float(right[[each == value for each in truth]].mean())
        for value in sorted(set(truth))
    }
    confused = collections.Counter(
        f"{a} -> {b}" for a, b in zip(truth, chosen, strict=True) if a != b
    )
    return {
        "accuracy": float(right.mean()),
        "by_class": by_class,
        "confused": dict(confused.most_common()),
    }
