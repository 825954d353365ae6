"""All three stages of training on a few hundred real recordings, in minutes on two CPU cores.

python -m recipes.real_audio --data data/real_audio --workdir runs/real_audio

The recordings come from `python -m data_pipeline.packages --output data/real_audio`. A run that
was stopped goes on by the same command: train.py where it was, the other steps if their result is
not there yet. What came of it stands in WORKDIR/results.md and results.json. Flags behind a `--`
go to every train.py, such as `-- --config.num_steps=2` for a look at the course of events.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline.packages import HELD_OUT, TRAIN
from recipes.clips_fingerprint import clips_fingerprint
from recipes.stages import run, run_stage, use_two_cores_well
from recipes.summary import first_clip_of, write_summary
from sat_jax.command_line import Program, need
from sat_jax.errors import SatError

MODEL = "SAT_XS_2s"
SHOWN = ("Speech", "Cymbal")

# With so few steps, every stage needs larger ones than published.
COMMON = (
    "--config.optimizer.warmup_fraction=0.1",
    "--config.checkpoint_minutes=2",
    "--config.log_every=1",
)
# Most clips are shorter than 2 s: windows of 4 s hold them whole, at a third of the cost of 10 s.
MAE = (
    "--config=configs/mae.py:xs",
    "--config.data.window_seconds=4",
    "--config.model.encoder.target_length=400",
    # The encoder is what counts: a small decoder halves the time.
    "--config.model.decoder_width=128",
    "--config.model.decoder_depth=2",
    "--config.data.batch_size=16",
    "--config.num_steps=50",
    "--config.optimizer.learning_rate=1e-3",
)
VIT = (
    "--config=configs/vit.py:xs",
    "--config.data.window_seconds=4",
    "--config.model.target_length=400",
    # Short clips fill the window by being repeated, so half of the columns tell nearly all.
    "--config.model.time_patchout=0.5",
    "--config.data.batch_size=32",
    "--config.num_steps=200",
    "--config.optimizer.learning_rate=1e-3",
    # One class of 527 in a clip; the steps are too few to get there from probabilities of 0.5.
    "--config.head_bias=-6.3",
    # An encoder that has heard so little has lower layers to learn as well.
    "--config.optimizer.layer_decay=1.0",
    # No time for what keeps long runs from learning by heart.
    "--config.augment.mixup=0.0",
    "--config.augment.time_masks=0",
    "--config.augment.freq_masks=0",
)
PSL = ("--window=4", "--hop=2", "--batch_size=8")
SAT = (
    f"--config=configs/sat.py:{MODEL}",
    "--config.data.batch_size=16",
    "--config.num_steps=300",
    "--config.optimizer.learning_rate=1e-3",
    # As streams are heard: silence before a clip, and behind one that is shorter than the window.
    "--config.data.fill=zeros",
    "--config.silence_share=1.0",
    "--config.augment.gain_db=6.0",
    # The teacher has learned for minutes only: nearly all of a target are the labels themselves.
    "--config.data.psl_share=0.1",
)

_DATA = flags.DEFINE_string("data", "", "Folder of data_pipeline.packages. Needed.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of all stages and results. Needed.")


def main(arguments: Sequence[str]) -> bool:
    """Runs all stages, then measures; returns whether something failed, which is told otherwise."""
    _check(Path(_DATA.value))
    use_two_cores_well()
    _train(Path(_DATA.value).absolute(), Path(_WORKDIR.value).absolute(), arguments)
    return False


def _check(data: Path) -> None:
    for table in (TRAIN, HELD_OUT):
        if not (data / table).is_file():
            raise SatError(
                f"{data / table} is missing: run python -m data_pipeline.packages --output {data}"
            )


def _train(data: Path, work: Path, more: Sequence[str]) -> None:
    train, held_out = data / TRAIN, data / HELD_OUT
    # Other recordings may lie at the same place tomorrow.
    inputs = [f"the clips {clips_fingerprint(table)}" for table in (train, held_out)]
    run_once = functools.partial(run_stage, work, inputs=inputs)
    common = (f"--clips={train}", *COMMON)
    mae, vit, psl, sat = (work / name for name in ("mae", "vit", "psl.parquet", "sat"))
    run_once("mae", mae / "model", ("train.py", *MAE, *common, f"--workdir={mae}", *more))
    start = (f"--init={mae / 'model'}", f"--workdir={vit}")
    run_once("vit", vit / "model", ("train.py", *VIT, *common, *start, *more))
    teacher = ("-m", "data_pipeline.psl", "-m", str(vit / "model"))
    run_once("psl", psl, (*teacher, *PSL, f"--clips={train}", f"--output={psl}"))
    start = (f"--init={vit / 'model'}", f"--workdir={sat}")
    run_once("sat", sat / "model", ("train.py", *SAT, *common, *start, f"--psl={psl}", *more))

    first = work / "start"
    starts = ("-m", "recipes.first_models", MODEL, str(vit / "model"), str(first))
    run_once("start", first, starts)
    for name, model, mode in (
        ("random", first / "random", "stream"),
        ("vit_as_sat", first / "warm", "stream"),
        ("sat", sat / "model", "stream"),
        ("vit", vit / "model", "clip"),
    ):
        folder = work / "measured" / name
        where = (f"--clips={held_out}", f"--workdir={folder}", "--noplots", "--nocost")
        command = ("evaluate.py", f"--model={model}", f"--mode={mode}", *where)
        run_once("measuring", folder / "metrics.json", command)
    for label in SHOWN:
        run("infer.py", "-m", str(sat / "model"), str(first_clip_of(held_out, label)))
    print(write_summary(work), flush=True)


def _check_flags(arguments: Sequence[str]) -> None:
    if strange := [word for word in arguments if not word.startswith("--")]:
        raise flags.Error(f"{strange[0]} is no flag")
    need(_DATA, _WORKDIR)


PROGRAM = Program(
    name="real_audio", main=main, check=_check_flags, call="python -m recipes.real_audio"
)

if __name__ == "__main__":
    PROGRAM.run()
