r"""How often a model is right when it may only choose among the classes of a table.

python -m projects.box_model.choose_class -m SAT_XS_2s \
    --clips esc10.csv --columns file,audioset_names --output accuracy.json

Each clip's labels are the names of one class of the table, which may be several of the model's
(Bark;Dog). A class's score is the mean over the chunks of a clip, of its strongest name; that with
the highest is chosen. No class is trained: this is zero-shot, where the model never heard the set.
Told is also how often a name of a clip's class is among the five likeliest of all the model's, by
their means.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from projects.box_model.accuracy import choose, summarize
from projects.box_model.stage_log import write_json
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string("model", "", "The model. Needed.", short_name="m", flag_values=FLAGS)
_CLIPS = flags.DEFINE_string("clips", "", "CSV table of clips. Needed.", flag_values=FLAGS)
_COLUMNS = flags.DEFINE_string(
    "columns", "file,labels", "Its columns: FILE,LABELS.", flag_values=FLAGS
)
_WHERE = flags.DEFINE_string(
    "where", None, "Only its rows with COLUMN=VALUE,VALUE; all.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON file for the result. Needed.", flag_values=FLAGS)


def main(arguments: Sequence[str]) -> bool:
    """Scores the clips, and writes accuracy and the confusions."""
    del arguments
    from data_pipeline.sources.clips import parse_columns, parse_where, read_clips
    from sat_jax.tagger import Tagger

    columns, where = parse_columns(_COLUMNS.value), parse_where(_WHERE.value)
    tagger = Tagger.load(_MODEL.value)
    every = read_clips(_CLIPS.value, tagger.labels, columns=columns)
    clips = read_clips(_CLIPS.value, tagger.labels, columns=columns, where=where)
    if without := [clip.id for clip in every if not clip.labels]:
        raise SatError(f"{without[0]} in {_CLIPS.value} has no class: give it one, or remove it")
    # Rows that don't count have classes too, which may be chosen.
    classes = sorted({clip.labels for clip in every})
    choices = [choose(tagger, clip, classes) for clip in clips]
    names = {labels: ";".join(tagger.labels[index] for index in labels) for labels in classes}
    result = summarize(
        [names[clip.labels] for clip in clips], [names[choice.labels] for choice in choices]
    )
    result["among_first_five"] = float(np.mean([choice.is_among_first for choice in choices]))
    write_json(Path(_OUTPUT.value), result)
    print(f"{_MODEL.value}: {result['accuracy']:.3f} of {len(clips)} clips")
    return False


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "the table of clips is named by --clips")
    require_flags(_MODEL, _CLIPS, _OUTPUT)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.choose_class", sys.argv[1:])
