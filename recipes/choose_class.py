r"""How often a model is right when it may only choose among the classes of a table.

python -m recipes.choose_class -m SAT_XS_2s --clips esc10.csv --columns file,audioset_names \
    --output accuracy.json

Each clip's labels are the names of one class of the table, which may be several of the model's
(Bark;Dog). A class's score is the mean over the chunks of a clip, of its strongest name; that with
the highest is chosen. No class is trained: this is zero-shot, where the model never heard the set.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from recipes.accuracy import summarize
from sat_jax.command_line import Program, need, refuse_arguments

_MODEL = flags.DEFINE_string("model", "", "The model. Needed.", short_name="m")
_CLIPS = flags.DEFINE_string("clips", "", "CSV table of clips. Needed.")
_COLUMNS = flags.DEFINE_string("columns", "file,labels", "Its columns: FILE,LABELS.")
_GROUP = flags.DEFINE_string("group", "", "A column by whose values accuracy is told too.")
_OUTPUT = flags.DEFINE_string("output", "", "JSON file for the result. Needed.")


def main(arguments: Sequence[str]) -> bool:
    """Scores the clips, and writes accuracy and the confusions."""
    del arguments
    from data_pipeline.sources.class_finder import ClassFinder
    from data_pipeline.sources.clips import parse_columns
    from sat_jax.report.files import replacing_file
    from sat_jax.tagger import Tagger

    columns = parse_columns(_COLUMNS.value)
    tagger = Tagger.load(_MODEL.value)
    table = Path(_CLIPS.value)
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    finder = ClassFinder(tagger.labels)
    names = sorted({row[columns.labels] for row in rows})
    indices = {name: finder.find_all(name, _CLIPS.value) for name in names}
    chosen = [_choose(tagger, table.parent / row[columns.file], indices) for row in rows]
    result = summarize(
        [row[columns.labels] for row in rows],
        chosen,
        [row[_GROUP.value] for row in rows] if _GROUP.value else None,
    )
    with replacing_file(_OUTPUT.value) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{_MODEL.value}: {result['accuracy']:.3f} of {len(rows)} clips")
    return False


def _choose(tagger: "object", path: Path, indices: Mapping[str, Sequence[int]]) -> str:
    probs = np.stack([chunk.probs for chunk in tagger.tag_file(path)])  # type: ignore[attr-defined]
    scores = {name: probs[:, list(of_name)].max(1).mean() for name, of_name in indices.items()}
    return max(scores, key=lambda name: scores[name])


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments("the table of clips is named by --clips")(arguments)
    need(_MODEL, _CLIPS, _OUTPUT)


PROGRAM = Program(
    name="choose_class", main=main, check=_check, call="python -m recipes.choose_class"
)

if __name__ == "__main__":
    PROGRAM.run()
