r"""Measures a model on ESC-10: zero-shot, and fine-tuned for each fold.

python -m projects.box_model.esc10 -m SAT_XS_2s --clips esc10.csv --workdir runs/esc10

The table has the columns file, fold, class, and audioset_names (Bark;Dog). Zero-shot, the model
chooses among those names (choose_class). For each fold, it is also fine-tuned on all other folds
with configs/finetune.py, and measured on that fold once, at the end. Results are
WORKDIR/results.md and results.json. Flags after a `--` go to every train.py.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline.sources.clips import column_values
from projects.box_model.esc10_results import read_choice, summarize_folds, write_tables
from projects.box_model.stage_log import write_json
from projects.box_model.stages import run_stage
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, require_flags
from sat_jax.runtime.files import atomic_write
from sat_jax.weights.catalog import DEFAULT_MODEL

FINETUNE = (
    "--config=configs/finetune.py",
    "--config.data.batch_size=16",
    # 6400 draws of 240 clips: some minutes on two cores.
    "--config.num_steps=400",
    # No mixup or masks, a fast head, and slower learning in deeper layers were best in a comparison
    # on two folds: see docs/history.md.
    "--config.optimizer.layer_decay=0.4",
    "--config.optimizer.learning_rate=3e-3",
    "--config.augment.mixup=0",
    "--config.augment.time_masks=0",
    "--config.augment.freq_masks=0",
)

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string(
    "model", DEFAULT_MODEL, "The model to measure.", short_name="m", flag_values=FLAGS
)
_CLIPS = flags.DEFINE_string("clips", "", "CSV table of ESC-10. Required.", flag_values=FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of all runs and results. Required.", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Measures the model, zero-shot and fine-tuned."""
    course = _Course(arguments)
    before = {fold: course.choose_zero_shot(fold) for fold in course.folds}
    after = {fold: course.choose_fine_tuned(fold) for fold in course.folds}
    result = summarize_folds(before, after)
    write_json(course.work / "results.json", {"model": course.model} | result)
    path, text = course.work / "results.md", write_tables(result)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text, end="")
    return False


class _Course:
    """The stages, and what they share."""

    def __init__(self, arguments: Sequence[str]) -> None:
        # Imported late, so that wrong flags and --help are answered at once.
        from sat_jax.tagger import Tagger
        from sat_jax.weights.checkpoint import fingerprint

        self.table, self.work = Path(_CLIPS.value).absolute(), Path(_WORKDIR.value).absolute()
        self.folds = _folds(self.table)
        self.model = _absolute(_MODEL.value)
        tagger = Tagger.load(self.model)
        self._more = arguments
        # The same name or table may mean other weights or clips later.
        weights = fingerprint(tagger.config, tagger.variables)
        self._inputs = (f"the weights {weights}", f"the clips {clips_fingerprint(self.table)}")

    def choose_zero_shot(self, fold: str) -> Any:
        """Chooses classes of a fold by their AudioSet names."""
        output = self.work / f"zero_shot{fold}.json"
        return self._choose(fold, "audioset_names", self.model, output)

    def choose_fine_tuned(self, fold: str) -> Any:
        """Fine-tunes a model on the other folds, and chooses classes of a fold with it."""
        run = self.work / f"fold{fold}"
        others = ",".join(other for other in self.folds if other != fold)
        clips = (f"--clips={self.table}", "--columns=file,class", f"--where=fold={others}")
        start = (f"--init={self.model}", *clips, f"--workdir={run}")
        self._run("fine-tuning", run / "model", ("train.py", *FINETUNE, *start, *self._more))
        return self._choose(fold, "class", str(run / "model"), run / "chosen.json")

    def _choose(self, fold: str, column: str, model: str, output: Path) -> Any:
        """Chooses among the classes in a column."""
        command = (
            "-m",
            "projects.box_model.choose_class",
            f"--model={model}",
            f"--clips={self.table}",
        )
        rows = (f"--columns=file,{column}", f"--where=fold={fold}", f"--output={output}")
        self._run("choosing", output, (*command, *rows))
        return read_choice(output)

    def _run(self, stage: str, result: Path, command: Sequence[str]) -> None:
        run_stage(self.work, stage, result, command, inputs=self._inputs)


def clips_fingerprint(table: Path) -> str:
    """Returns a short hash of a table and the sizes of the recordings in its column "file".

    Raises:
      SatError: the table can't be read.
    """
    names = sorted(column_values(table, "file"))
    digest = hashlib.sha256(table.read_bytes())
    for name in names:
        path = table.parent / name
        digest.update(f"{name} {path.stat().st_size if path.is_file() else None}\n".encode())
    return digest.hexdigest()[:16]


def _absolute(model: str) -> str:
    """Makes a path absolute, because the commands run in another folder; keeps names."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _folds(table: Path) -> list[str]:
    folds = sorted(column_values(table, "fold"))
    if len(folds) < 2:
        raise SatError(
            f"{table} has {len(folds)} fold; two are needed, one to train and one to measure"
        )
    return folds


def _check(arguments: Sequence[str]) -> None:
    if strange := [word for word in arguments if not word.startswith("--")]:
        raise flags.Error(f"unexpected argument {strange[0]}: leave it out")
    require_flags(_CLIPS, _WORKDIR)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.esc10", sys.argv[1:])
