"""How often the right one of some classes was chosen (floor 6)."""

import collections
from collections.abc import Sequence

import numpy as np


def summarize(
    truth: Sequence[str], chosen: Sequence[str], groups: Sequence[str] | None
) -> dict[str, object]:
    """Accuracy of all clips, by class and by group, and what was taken for what.

    Args:
      truth: the class of each clip.
      chosen: what was chosen.
      groups: a value for each clip, such as its fold; None for none.
    """
    right = np.array([a == b for a, b in zip(truth, chosen, strict=True)])

    def by(values: Sequence[str]) -> dict[str, float]:
        return {
            value: float(right[[each == value for each in values]].mean())
            for value in sorted(set(values))
        }

    confused = collections.Counter(
        f"{a} -> {b}" for a, b in zip(truth, chosen, strict=True) if a != b
    )
    result: dict[str, object] = {"accuracy": float(right.mean()), "by_class": by(truth)}
    if groups is not None:
        result["by_group"] = by(groups)
    return result | {"confused": dict(confused.most_common())}
