r"""ESC-10 by a trained model: as it is, and after fine-tuning, a fold at a time.

python -m projects.box_model.esc10 -m SAT_XS_2s --clips esc10.csv --workdir runs/esc10

The table has the columns file, fold, class, and audioset_names (Bark;Dog). As it is, the model
chooses among those names (choose_class). Then it is fine-tuned once for each fold on all others,
with configs/finetune.py, and measured once, at the end, on the fold it never heard. Results go to
WORKDIR/results.md and results.json. Flags after a `--` go to every train.py.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline.sources.clips import column_values
from projects.box_model.clips_fingerprint import clips_fingerprint
from projects.box_model.esc10_results import read_choice, summarize_folds, write_tables
from projects.box_model.stage_log import write_json
from projects.box_model.stages import run_stage, use_two_cores_well
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, require_flags
from sat_jax.runtime.files import atomic_write
from sat_jax.weights.catalog import DEFAULT_MODEL

FINETUNE = (
    "--config=configs/finetune.py",
    "--config.data.batch_size=16",
    # Drawing 6400 of 240 clips: some minutes on two cores.
    "--config.num_steps=400",
    # Of clips neither mixed nor hidden in part, a head that learns fast and layers that learn the
    # slower the deeper they are: the best when trained on two folds, see docs/pkg_audio_history.md.
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
_CLIPS = flags.DEFINE_string("clips", "", "CSV table of ESC-10. Needed.", flag_values=FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of all runs and results. Needed.", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Measures the model, and what fine-tuning makes of it."""
    use_two_cores_well()
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
    """What the flags ask for, and its stages."""

    def __init__(self, arguments: Sequence[str]) -> None:
        # Imported late: a wrong flag or --help should be answered at once.
        from sat_jax.tagger import Tagger
        from sat_jax.weights.checkpoint import fingerprint

        self.table, self.work = Path(_CLIPS.value).absolute(), Path(_WORKDIR.value).absolute()
        self.folds = _folds(self.table)
        self.model = _absolute(_MODEL.value)
        tagger = Tagger.load(self.model)
        self._more = arguments
        # A name may mean other weights tomorrow, and a table's other clips.
        weights = fingerprint(tagger.config, tagger.variables)
        self._inputs = (f"the weights {weights}", f"the clips {clips_fingerprint(self.table)}")

    def choose_zero_shot(self, fold: str) -> Any:
        """What is chosen on a fold, among AudioSet's names of its classes."""
        output = self.work / f"zero_shot{fold}.json"
        return self._choose(fold, "audioset_names", self.model, output)

    def choose_fine_tuned(self, fold: str) -> Any:
        """What is chosen on a fold by a model that was fine-tuned on the others."""
        run = self.work / f"fold{fold}"
        others = ",".join(other for other in self.folds if other != fold)
        clips = (f"--clips={self.table}", "--columns=file,class", f"--where=fold={others}")
        start = (f"--init={self.model}", *clips, f"--workdir={run}")
        self._run("fine-tuning", run / "model", ("train.py", *FINETUNE, *start, *self._more))
        return self._choose(fold, "class", str(run / "model"), run / "chosen.json")

    def _choose(self, fold: str, column: str, model: str, output: Path) -> Any:
        """What a model chooses on a fold, its classes being those in a column."""
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


def _absolute(model: str) -> str:
    """The commands run elsewhere, so a path must hold there too."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _folds(table: Path) -> list[str]:
    folds = sorted(column_values(table, "fold"))
    if len(folds) < 2:
        raise SatError(
            f"{table} has clips of {len(folds)} fold: two are needed, to learn and to measure"
        )
    return folds


def _check(arguments: Sequence[str]) -> None:
    if strange := [word for word in arguments if not word.startswith("--")]:
        raise flags.Error(f"{strange[0]} is no flag")
    require_flags(_CLIPS, _WORKDIR)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.esc10", sys.argv[1:])
