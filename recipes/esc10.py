r"""ESC-10 by a trained model: as it is, and after fine-tuning, a fold at a time.

python -m recipes.esc10 -m SAT_XS_2s --clips esc10.csv --workdir runs/esc10

The table has the columns file, fold, class, and audioset_names (Bark;Dog). As it is, the model
chooses among those names (recipes.choose_class). Then it is fine-tuned once for each fold, on all
others, with configs/finetune.py; the fold that it never heard is what it is measured on, once, at
the end. What came of it stands in WORKDIR/results.json. Flags behind a `--` go to every train.py.
"""

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from recipes.stages import run_stage, use_two_cores_well
from sat_jax.bundled import DEFAULT_MODEL
from sat_jax.command_line import Program, need
from sat_jax.report.files import naming_file, replacing_file

FINETUNE = (
    "--config=configs/finetune.py",
    "--config.data.batch_size=16",
    # Drawing 6400 of 240 clips: two to three minutes on two cores.
    "--config.num_steps=400",
    "--config.optimizer.learning_rate=5e-4",
)

_MODEL = flags.DEFINE_string("model", DEFAULT_MODEL, "The model to measure.", short_name="m")
_CLIPS = flags.DEFINE_string("clips", "", "CSV table of ESC-10. Needed.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of all runs and results. Needed.")


def main(arguments: Sequence[str]) -> bool:
    """Measures the model, and what fine-tuning makes of it."""
    table, work = Path(_CLIPS.value).absolute(), Path(_WORKDIR.value).absolute()
    use_two_cores_well()
    model, folds = _absolute(_MODEL.value), _folds(table)
    before = {
        fold: _choose(work, fold, table, "audioset_names", model, work / f"zero_shot{fold}.json")
        for fold in folds
    }
    after = {fold: _without(fold, folds, model, work, table, arguments) for fold in folds}
    result = {
        "model": model,
        "zero_shot": {"accuracy": statistics.mean(before.values()), "by_fold": before},
        "fine_tuned": {"accuracy": statistics.mean(after.values()), "by_fold": after},
    }
    with replacing_file(work / "results.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name in ("zero_shot", "fine_tuned"):
        print(f"{name}: {json.dumps(result[name])}")
    return False


def _absolute(model: str) -> str:
    """The commands run elsewhere, so a path must hold there too."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _folds(table: Path) -> list[str]:
    with naming_file(table), table.open(encoding="utf-8-sig", newline="") as file:
        return sorted({row["fold"] for row in csv.DictReader(file)})


def _without(
    fold: str, folds: Sequence[str], model: str, work: Path, table: Path, more: Sequence[str]
) -> float:
    """Accuracy on a fold of a model that was fine-tuned on the others."""
    run = work / f"fold{fold}"
    others = ",".join(other for other in folds if other != fold)
    clips = (f"--clips={table}", "--columns=file,class", f"--where=fold={others}")
    command = ("train.py", *FINETUNE, f"--init={model}", *clips, f"--workdir={run}", *more)
    run_stage(work, "fine-tuning", run / "model", command)
    return _choose(work, fold, table, "class", run / "model", run / "chosen.json")


def _choose(
    work: Path, fold: str, table: Path, column: str, model: str | Path, output: Path
) -> float:
    """Accuracy of a model on a fold, its classes being those in a column."""
    command = ("-m", "recipes.choose_class", f"--model={model}", f"--clips={table}")
    rows = (f"--columns=file,{column}", f"--where=fold={fold}", f"--output={output}")
    run_stage(work, "choosing", output, (*command, *rows))
    return json.loads(output.read_text(encoding="utf-8"))["accuracy"]


def _check(arguments: Sequence[str]) -> None:
    if strange := [word for word in arguments if not word.startswith("--")]:
        raise flags.Error(f"{strange[0]} is no flag")
    need(_CLIPS, _WORKDIR)


PROGRAM = Program(name="esc10", main=main, check=_check, call="python -m recipes.esc10")

if __name__ == "__main__":
    PROGRAM.run()
