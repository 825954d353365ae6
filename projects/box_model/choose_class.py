r"""Measures how often a model chooses the right class among those of a table.

python -m projects.box_model.choose_class -m SAT_XS_2s \
    --clips esc10.csv --columns file,audioset_names --output accuracy.json

The table gives each class by one or more of the model's class names (Bark;Dog). In each chunk the
most probable of these names counts; the mean over a clip's chunks is the score of the class. The
program trains nothing: the result is zero-shot if the model was not trained on the data set. It
also counts how often a name of a clip's class is among the model's five most probable classes.
"""

import collections
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags

from projects.box_model.stage_log import write_json
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

if TYPE_CHECKING:
    from data_pipeline.sources.clips import Clip
    from sat_jax.tagger import Tagger

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string("model", "", "Model. Required.", short_name="m", flag_values=FLAGS)
_CLIPS = flags.DEFINE_string("clips", "", "CSV table of clips. Required.", flag_values=FLAGS)
_COLUMNS = flags.DEFINE_string(
    "columns", "file,labels", "Its columns: FILE,LABELS.", flag_values=FLAGS
)
_WHERE = flags.DEFINE_string(
    "where", None, "Use only rows with COLUMN=VALUE,VALUE.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON output file. Required.", flag_values=FLAGS)

_TOP = 5


class Choice(NamedTuple):
    """The result of one clip.

    Attributes:
      labels: the chosen class, as indices of its names.
      in_top_five: whether a name of the clip's class is among the five most likely names.
    """

    labels: tuple[int, ...]
    in_top_five: bool


def main(arguments: Sequence[str]) -> bool:
    """Scores the clips, and writes accuracy and confusions."""
    del arguments
    from data_pipeline.sources.clips import parse_columns, parse_where, read_clips
    from sat_jax.tagger import Tagger

    columns, where = parse_columns(_COLUMNS.value), parse_where(_WHERE.value)
    tagger = Tagger.load(_MODEL.value)
    every = read_clips(_CLIPS.value, tagger.labels, columns=columns)
    clips = read_clips(_CLIPS.value, tagger.labels, columns=columns, where=where)
    if without := [clip.id for clip in every if not clip.labels]:
        raise SatError(f"{without[0]} in {_CLIPS.value} has no class: add one, or remove the row")
    # The classes of all rows can be chosen, also of those that --where leaves out.
    classes = sorted({clip.labels for clip in every})
    choices = [choose(tagger, clip, classes) for clip in clips]
    names = {labels: ";".join(tagger.labels[index] for index in labels) for labels in classes}
    result = summarize(
        [names[clip.labels] for clip in clips], [names[choice.labels] for choice in choices]
    )
    result["among_first_five"] = float(np.mean([choice.in_top_five for choice in choices]))
    write_json(Path(_OUTPUT.value), result)
    print(f"{_MODEL.value}: {result['accuracy']:.3f} of {len(clips)} clips")
    return False


def choose(tagger: "Tagger", clip: "Clip", classes: Sequence[tuple[int, ...]]) -> Choice:
    """Chooses one of `classes`; each is a tuple of indices of class names."""
    probs = np.stack([chunk.probs for chunk in tagger.tag_file(clip.path)])
    chosen = max(classes, key=lambda labels: probs[:, list(labels)].max(1).mean())
    top = np.argsort(-probs.mean(0), kind="stable")[:_TOP]
    return Choice(chosen, not set(clip.labels).isdisjoint(top.tolist()))


def summarize(truth: Sequence[str], chosen: Sequence[str]) -> dict[str, Any]:
    """Computes the accuracy of all clips and by class, and counts confusions.

    Args:
      truth: the class of each clip.
      chosen: the chosen class of each clip.

    Returns:
      "accuracy", "by_class" and "confused" ("a -> b": count).
    """
    is_right = np.array([a == b for a, b in zip(truth, chosen, strict=True)])
    by_class = {
        value: float(is_right[[each == value for each in truth]].mean())
        for value in sorted(set(truth))
    }
    confused = collections.Counter(
        f"{a} -> {b}" for a, b in zip(truth, chosen, strict=True) if a != b
    )
    return {
        "accuracy": float(is_right.mean()),
        "by_class": by_class,
        "confused": dict(confused.most_common()),
    }


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the table of clips with --clips")
    require_flags(_MODEL, _CLIPS, _OUTPUT)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.choose_class", sys.argv[1:])
