"""All three stages of training on a few hundred real recordings, in minutes on two CPU cores.

python -m recipes.real_audio --data data/real_audio --workdir runs/real_audio

The recordings come from `python -m data_pipeline.packages --output data/real_audio`. A run that
was stopped goes on by the same command: train.py where it was, the other steps if their result is
not there yet. What came of it stands in WORKDIR/results.md and results.json. Flags behind a `--`
go to every train.py, such as `-- --config.num_steps=2` for a look at the course of events.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from data_pipeline.packages import HELD_OUT, TRAIN
from recipes.summary import add_seconds, first_clip_of, write_summary
from sat_jax.errors import SatError

ROOT = Path(__file__).parent.parent
FAILED, WRONG_FLAGS = 1, 2
CLIP_MODEL, MODEL = "audiotransformer_xs", "SAT_XS_2s"
SHOWN = ("Speech", "Cymbal")

# With so few steps, every stage needs larger ones than published.
COMMON = (
    "--config.optimizer.warmup_fraction=0.1",
    "--config.checkpoint_minutes=2",
    "--config.log_every=1",
)
MAE = (
    "--config=configs/mae.py:xs",
    # The encoder is what counts: a small decoder halves the time.
    "--config.model.decoder_width=128",
    "--config.model.decoder_depth=2",
    "--config.data.batch_size=16",
    "--config.num_steps=150",
    "--config.optimizer.learning_rate=1e-3",
)
VIT = (
    "--config=configs/vit.py:xs",
    # Short clips fill 10 s by being repeated, so half of the columns tell nearly all.
    "--config.model.time_patchout=0.5",
    "--config.data.batch_size=8",
    "--config.num_steps=300",
    "--config.optimizer.learning_rate=5e-4",
    # An encoder that has heard so little has lower layers to learn as well.
    "--config.optimizer.layer_decay=1.0",
    # Each clip is seen ten times: no time for what keeps long runs from learning by heart.
    "--config.augment.mixup=0.0",
    "--config.augment.time_masks=0",
    "--config.augment.freq_masks=0",
)
PSL = ("--window=4", "--hop=2", "--batch_size=8")
SAT = (
    f"--config=configs/sat.py:{MODEL}",
    "--config.data.batch_size=8",
    "--config.num_steps=300",
    "--config.optimizer.learning_rate=5e-4",
    # The teacher has learned for minutes only: three quarters of the targets are the labels
    # themselves.
    "--config.data.psl_share=0.25",
)

_DATA = flags.DEFINE_string("data", "", "Folder of data_pipeline.packages. Needed.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of all stages and results. Needed.")


def main(argv: Sequence[str]) -> None:
    """Runs all stages, then measures."""
    try:
        _check(Path(_DATA.value))
        # Two cores are meant; an accelerator is used where the environment names it.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        _train(Path(_DATA.value).absolute(), Path(_WORKDIR.value).absolute(), argv[1:])
    except SatError as error:
        _report(error)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(130)


def _check(data: Path) -> None:
    for table in (TRAIN, HELD_OUT):
        if not (data / table).is_file():
            raise SatError(
                f"{data / table} is missing: run python -m data_pipeline.packages --output {data}"
            )


def _train(data: Path, work: Path, more: Sequence[str]) -> None:
    train, held_out = data / TRAIN, data / HELD_OUT
    common = (f"--clips={train}", *COMMON)
    mae, vit, psl, sat = (work / name for name in ("mae", "vit", "psl.parquet", "sat"))
    _stage(work, "mae", mae / "model", ("train.py", *MAE, *common, f"--workdir={mae}", *more))
    first = work / "vit_start"
    starts = ("-m", "recipes.first_models")
    _stage(work, "start", first, (*starts, "clip", CLIP_MODEL, str(mae / "model"), str(first)))
    start: tuple[str, ...] = ("--init", str(first))
    _stage(
        work, "vit", vit / "model", ("train.py", *VIT, *common, *start, f"--workdir={vit}", *more)
    )
    teacher = ("-m", "data_pipeline.psl", "-m", str(vit / "model"))
    _stage(work, "psl", psl, (*teacher, *PSL, f"--clips={train}", f"--output={psl}"))
    start = ("--init", str(vit / "model"), f"--psl={psl}")
    _stage(
        work, "sat", sat / "model", ("train.py", *SAT, *common, *start, f"--workdir={sat}", *more)
    )

    first = work / "start"
    _stage(work, "start", first, (*starts, "stream", MODEL, str(vit / "model"), str(first)))
    for name, model in (
        ("random", work / "start" / "random"),
        ("vit_as_sat", work / "start" / "warm"),
        ("sat", sat / "model"),
    ):
        _measure(work, held_out, name, model)
    _measure(work, held_out, "vit", vit / "model", "--mode=clip")
    for label in SHOWN:
        _run("infer.py", "-m", str(sat / "model"), str(first_clip_of(held_out, label)))
    print(write_summary(work), flush=True)


def _measure(work: Path, clips: Path, name: str, model: Path, *more: str) -> None:
    folder = work / "measured" / name
    command = ("evaluate.py", "-m", str(model), f"--clips={clips}", f"--workdir={folder}", *more)
    _stage(work, "measuring", folder / "metrics.json", command)


def _stage(work: Path, name: str, result: Path, command: Sequence[str]) -> None:
    """Runs a command unless its result is there, and adds up the time it takes."""
    if result.exists():
        return
    wall, cpu = time.perf_counter(), _cpu_seconds()
    try:
        _run(*command)
        if not result.exists():
            raise SatError(f"{name} was stopped before its end: the same command goes on")
    finally:
        add_seconds(work, name, time.perf_counter() - wall, _cpu_seconds() - cpu)


def _run(*command: str) -> None:
    print(f"$ python {' '.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if code:
        raise SatError(f"{' '.join(command[:3])} ended with exit code {code}; see above")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(problem: object) -> None:
    print(f"real_audio: {problem}", file=sys.stderr, flush=True)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if strange := [word for word in rest[1:] if not word.startswith("--")]:
            raise flags.Error(f"{strange[0]} is no flag")
        for flag in (_DATA, _WORKDIR):
            if not flag.value:
                raise flags.Error(f"--{flag.name} is needed")
        return rest
    except flags.Error as error:
        _report(f"{error}; see python -m recipes.real_audio --help")
        sys.exit(WRONG_FLAGS)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
