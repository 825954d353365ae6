r"""Counts in which classes a model can be trusted: on recordings that it did not learn from.

python -m projects.box_model.trust -m sat_jax/data/models/SAT_XS_2s --output trust.md \
    --tfds pkg_audio:sounds_test --data_dir data/tfds

A class is shown for a recording if it reaches its threshold (`sat-jax tag --threshold auto`) in a
chunk. Precision is the share of these recordings that have the class, recall the share of the
recordings with the class for which it is shown. A "Bark" without the class "Howl" counts as wrong
for "Howl", even if someone could hear one: labels are not complete.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from data_pipeline.sources.registry import (
    define_source_flags,
    open_source,
    source_choices,
    source_flags,
)
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.runtime.files import atomic_write, explain_write_errors

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string("model", "", "Model. Required.", short_name="m", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", "", "Markdown output file. Required.", flag_values=FLAGS)
define_source_flags(FLAGS)

MIN_RECORDINGS = 3
"""A class with fewer recordings is not judged."""


def main(arguments: Sequence[str]) -> bool:
    """Tags all recordings, and writes the table."""
    del arguments
    from sat_jax.find_model import find_checkpoint
    from sat_jax.tagger import Tagger
    from sat_jax.weights.thresholds_file import load_thresholds

    tagger = Tagger.load(_MODEL.value)
    thresholds = load_thresholds(_MODEL.value, find_checkpoint(_MODEL.value))
    source = open_source(tagger.labels, **source_flags(FLAGS) or {})
    count = len(source.clips.ids)
    sounds = (source.read(i, num_samples=None, place=0.0, start=0.0) for i in range(count))
    highest = np.stack(
        [np.max([chunk.probs for chunk in tagger.tag(sound)], axis=0) for sound in sounds]
    )
    truth = source.clips.targets(np.arange(count), len(tagger.labels)) > 0
    text = write_table(truth, highest >= thresholds, tagger.labels)
    output = Path(_OUTPUT.value)
    with explain_write_errors(output), atomic_write(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    return False


def write_table(truth: np.ndarray, shown: np.ndarray, labels: Sequence[str]) -> str:
    """Formats precision and recall of each class, the most precise first.

    Args:
      truth: bool [n, y], the classes of each recording.
      shown: bool [n, y], the classes that reach their thresholds.
      labels: the names of the classes.
    """
    recordings, detected, right = truth.sum(0), shown.sum(0), (truth & shown).sum(0)
    rows = [
        (-right[i] / max(detected[i], 1), -recordings[i], i)
        for i in np.flatnonzero(recordings >= MIN_RECORDINGS).tolist()
    ]
    few = np.flatnonzero(recordings < MIN_RECORDINGS)
    lines = [
        "# Which classes can be trusted",
        "",
        f"Of {detected.sum()} classes shown for {len(truth)} held-out recordings, "
        f"{right.sum() / max(detected.sum(), 1):.2f} are right; of {truth.sum()} labels, "
        f"{right.sum() / max(truth.sum(), 1):.2f} are shown.",
        "",
        f"Classes of at least {MIN_RECORDINGS} of these recordings, the most precise first:",
        "",
        "| class | recordings | shown | precision | recall |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {labels[i]} | {recordings[i]} | {detected[i]} | "
            f"{f'{-precision:.2f}' if detected[i] else '-'} | {right[i] / recordings[i]:.2f} |"
            for precision, _, i in sorted(rows)
        ),
        "",
        f"The other {len(few)} classes were shown {detected[few].sum()} times, "
        f"{right[few].sum()} of them rightly.",
        "",
    ]
    return "\n".join(lines)


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, f"name the clips with {source_choices()}")
    require_flags(_MODEL, _OUTPUT)
    if source_flags(FLAGS) is None:
        raise flags.Error(f"give one of {source_choices()}")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.trust", sys.argv[1:])
