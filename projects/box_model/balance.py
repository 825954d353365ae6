r"""Balances the classes of the bundled model: common ones no longer push rare ones off the top.

python -m projects.box_model.balance --tfds pkg_audio:sounds_validation --data_dir data/tfds

A model gives classes that were common in training high scores everywhere. This subtracts a share of
each class's mean logit from its head's bias (logit adjustment, https://arxiv.org/abs/2007.07314).
The share is the one with the best lwlrap on the given recordings, where each class counts the same.
Classes without training sounds stay as they are.

Only the order of classes within a chunk changes, not the order of chunks within a class. Thresholds
must be found again.
"""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from scipy.special import expit, logit

from data_pipeline.sources.registry import (
    define_source_flags,
    open_source,
    source_choices,
    source_flags,
)
from projects.box_model.bundle import replace_bundled
from projects.box_model.unlearned import unlearned_classes
from sat_jax.runtime.command_line import Program, refuse_arguments
from sat_jax.tagger import Tagger
from sat_jax.weights.catalog import BUNDLED, DEFAULT_MODEL
from sat_jax.weights.checkpoint import load_checkpoint

FLAGS = flags.FlagValues()
define_source_flags(FLAGS)

SHARES = np.arange(0.0, 1.01, 0.05)
"""Shares of the mean logits that are tried."""


def main(arguments: Sequence[str]) -> bool:
    """Scores all recordings, chooses the share, and replaces the bundled model."""
    del arguments
    checkpoint = load_checkpoint(BUNDLED / DEFAULT_MODEL)
    tagger = Tagger(checkpoint)
    source = open_source(tagger.labels, **source_flags(FLAGS) or {})
    count = len(source.clips.ids)
    sounds = (source.read(i, num_samples=None, place=0.0, start=0.0) for i in range(count))
    logits = [_logits([chunk.probs for chunk in tagger.tag(sound)]) for sound in sounds]
    truth = source.clips.targets(np.arange(count), len(tagger.labels)) > 0
    is_learned = ~np.isin(tagger.labels, unlearned_classes())
    share, shift, found = choose_shift(truth, logits, is_learned)
    head = checkpoint.variables["params"]["head"]
    head = {**head, "bias": head["bias"] - shift}
    params = {**checkpoint.variables["params"], "head": head}
    balanced = dataclasses.replace(checkpoint, variables={**checkpoint.variables, "params": params})
    replace_bundled(balanced, DEFAULT_MODEL)
    print(
        f"subtracted {share:.2f} of the mean logits: lwlrap over classes is {found[share]:.3f} "
        f"instead of {found[0.0]:.3f} on {count} recordings"
    )
    return False


def _logits(probs: Sequence[np.ndarray]) -> np.ndarray:
    limits = np.finfo(np.float32)  # It may round a probability to 0 or 1.
    return np.asarray(logit(np.clip(probs, limits.tiny, 1.0 - limits.eps)))


def choose_shift(
    truth: np.ndarray, logits: Sequence[np.ndarray], is_learned: np.ndarray
) -> tuple[float, np.ndarray, dict[float, float]]:
    """Chooses what to subtract from the logits of each class.

    Args:
      truth: bool [n, y], the classes of each recording.
      logits: float [chunks, y] of each recording.
      is_learned: bool [y]; the others stay as they are.

    Returns:
      The best share, the shift float32 [y], and the lwlrap of each share.
    """
    mean = np.concatenate(logits).mean(0)
    habit = np.where(is_learned, mean - mean[is_learned].mean(), 0.0)
    found = {
        float(share): lwlrap_over_classes(
            truth, np.stack([expit(chunks - share * habit).mean(0) for chunks in logits])
        )
        for share in SHARES
    }
    best = max(found, key=lambda share: found[share])
    return best, (best * habit).astype(np.float32), found


def lwlrap_over_classes(truth: np.ndarray, scores: np.ndarray) -> float:
    """Computes lwlrap with each class counting the same, where `lwlrap` counts each label.

    Args:
      truth: bool [n, y], the classes of each recording.
      scores: float [n, y].
    """
    precision = np.full(truth.shape, np.nan)
    for row, (labels, values) in enumerate(zip(truth, scores, strict=True)):
        for index in np.flatnonzero(labels):
            is_above = values >= values[index]
            precision[row, index] = labels[is_above].mean()
    has_labels = truth.any(0)
    return float(np.nanmean(precision[:, has_labels], axis=0).mean())


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, f"name the recordings with {source_choices()}")
    if source_flags(FLAGS) is None:
        raise flags.Error(f"give one of {source_choices()}")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.balance", sys.argv[1:])
