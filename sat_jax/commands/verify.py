"""Checks the published models against the scores in the README of their authors.

sat-jax verify --recordings samples
sat-jax verify --recordings samples --weights weights --models SAT_T_2s

--recordings is a folder with jkLRith2wcc.wav and mg4kDY_hy6o.wav, from samples/ of
github.com/RicherMans/SAT. The weights (0.4 GB) are downloaded, unless --weights is a folder with
the published .pt files. The exit code is 1 if a score differs.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sat_jax.evaluation.published_scores import (
    check_recordings,
    compare,
    published_scores,
    tagger_scores,
)
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

FLAGS = flags.FlagValues()

_RECORDINGS = flags.DEFINE_string(
    "recordings",
    "",
    "Folder with jkLRith2wcc.wav and mg4kDY_hy6o.wav. Required.",
    flag_values=FLAGS,
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Folder with the published .pt files; default: download.", flag_values=FLAGS
)
_NAMES = sorted({line.model for line in published_scores()})
_MODELS = flags.DEFINE_multi_enum(
    "models", None, _NAMES, "Model to check, by default all", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Runs the command; returns whether a score differs."""
    del arguments
    models = _MODELS.value or _NAMES
    published = [line for line in published_scores() if line.model in models]
    folder = Path(_RECORDINGS.value)
    check_recordings(folder, published)  # Before a download that may take an hour.
    score_recording = tagger_scores(folder, Path(_WEIGHTS.value) if _WEIGHTS.value else None)
    num_same = 0
    for comparison in compare(score_recording, published):
        print(comparison, flush=True)
        num_same += comparison.same
    print(f"{num_same} of {len(published)} published scores are the same here")
    return num_same < len(published)


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the folder of the recordings with --recordings")
    require_flags(_RECORDINGS)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
