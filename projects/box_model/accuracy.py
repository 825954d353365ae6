"""Choosing among some classes, and how often the right one was chosen."""

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from data_pipeline.sources.clips import Clip
    from sat_jax.tagger import Tagger

FIRST = 5
"""Of so many of the likeliest names is told how often a clip's own is among them."""


class Choice(NamedTuple):
    """What a model makes of a clip.

    Attributes:
      labels: the class that is chosen, as the indices of its names.
      is_among_first: whether a name of the clip's own is among the `FIRST` likeliest of all.
    """

    labels: tuple[int, ...]
    is_among_first: bool


def choose(tagger: "Tagger", clip: "Clip", classes: Sequence[tuple[int, ...]]) -> Choice:
    """Chooses among classes, each the indices of its names, by means over a clip's chunks."""
    probs = np.stack([chunk.probs for chunk in tagger.tag_file(clip.path)])
    chosen = max(classes, key=lambda labels: probs[:, list(labels)].max(1).mean())
    first = np.argsort(-probs.mean(0), kind="stable")[:FIRST]
    return Choice(chosen, not set(clip.labels).isdisjoint(first.tolist()))


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
