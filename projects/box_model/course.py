r"""Trains the bundled model: a masked autoencoder, a clip model, then streaming models.

python -m projects.box_model.course --tfds_dir data/tfds --workdir runs/pkg_audio --seeds 0,1,2

The scenes come from `python -m projects.box_model.scenes --packages data/packages --data_dir
data/tfds`. The teacher mn04 (4 MB, downloaded once) labels windows of them. For each seed:

1. A masked autoencoder learns from solo scenes.
2. A clip model (audiotransformer_xs) starts from it, and learns from windows of 2 s of all scenes.
3. SAT_XS_2s starts from that one, and learns from labels of each chunk. A model without a cache
   learns the same beside it. SAT_XS_1s and its model without a cache start from those of 2 s.
4. All models are measured on test scenes and on real recordings, whose sounds no model has learned
   from.

`--size tiny` makes all models larger. The same command resumes a stopped run, and processes with
other seeds can use the same WORKDIR. Results are WORKDIR/results.md and results.png. Flags after a
`--` go to every train.py, such as `-- --config.num_steps=2`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from projects.box_model.measured import (
    DELAYS,
    RECORDINGS_FOLDER,
    SCENES_FOLDER,
    SIZES,
    WINDOWS_MODEL,
    streaming_model,
    without_memory,
)
from projects.box_model.results import write_results
from projects.box_model.scenes.scenes import SOLO
from projects.box_model.stages import run_stage
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, require_flags

COMMON = (
    "--config.optimizer.warmup_fraction=0.1",
    "--config.checkpoint_minutes=3",
    "--config.keep_best=1",
)
# Only the encoder is used later, and a small decoder halves the time of a step.
MAE = (
    "--config.data.window_seconds=2",
    "--config.model.encoder.target_length=192",
    "--config.model.decoder_width=128",
    "--config.model.decoder_depth=2",
    "--config.data.batch_size=32",
    "--config.num_steps=4000",
    "--config.evaluate_every=1000",
    "--config.optimizer.learning_rate=1e-3",
    "--config.glorot_init=True",
)
# Short windows give more steps per second than scenes, and their labels are exact. Patchout makes
# steps shorter still. Many windows are mixtures already, with better labels than those of mixup.
WINDOWS = (
    "--config.data.window_seconds=2",
    "--config.model.target_length=192",
    "--config.model.time_patchout=0.25",
    "--config.data.batch_size=64",
    "--config.num_steps=8000",
    "--config.evaluate_every=1000",
    "--config.optimizer.learning_rate=1e-3",
    "--config.optimizer.layer_decay=1.0",
    "--config.ema_decay=0.999",
    "--config.glorot_init=True",
    # A window has three or four of 527 classes; see sat_jax/training/defaults.py.
    "--config.head_bias=-5.0",
    "--config.data.psl_share=1.0",
    "--config.data.sampler=shuffle",
    "--config.augment.mixup=0.0",
    "--config.augment.gain_db=6",
    "--config.augment.time_masks=0",
    "--config.augment.freq_masks=1",
)
# Each chunk has its own target.
SAT = (
    "--config.data.batch_size=16",
    "--config.num_steps=10000",
    "--config.evaluate_every=2000",
    "--config.optimizer.learning_rate=5e-4",
    "--config.ema_decay=0.999",
    "--config.loss_per_chunk=True",
    "--config.data.psl_share=1.0",
    "--config.data.sampler=balanced",
    "--config.augment.gain_db=6",
    "--config.silence_share=0.25",
)
# Models of 1 s start from those of 2 s, which know the sounds already.
SAT_1S = (*SAT, "--config.num_steps=3000", "--config.optimizer.learning_rate=3e-4")
STREAMING = dict(zip(DELAYS, (SAT, SAT_1S), strict=True))
# The same windows, targets and steps, without a cache.
WITHOUT_MEMORY = ("--config.model.cache_length=0", "--config.silence_share=0.0")
TRAINING = ("train", SOLO)
VALIDATION = "validation+sounds_validation"
"""Scenes and real recordings."""

FLAGS = flags.FlagValues()

_TFDS = flags.DEFINE_string(
    "tfds_dir", "", "The --data_dir of projects.box_model.scenes. Required.", flag_values=FLAGS
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of all stages and results. Required.", flag_values=FLAGS
)
_SIZE = flags.DEFINE_enum("size", "xs", list(SIZES), "Size of all models.", flag_values=FLAGS)
_SEEDS = flags.DEFINE_list(
    "seeds", ["0"], "Seeds, separated by commas; each trains all models.", flag_values=FLAGS
)
_TEACHER = flags.DEFINE_string(
    "teacher",
    "mn04",
    "The --model of sat-jax psl, or none: labels are the known sounds alone.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Runs all stages of all seeds, and writes the results."""
    from projects.box_model.dataset_fingerprint import dataset_fingerprint

    tfds, work = Path(_TFDS.value).absolute(), Path(_WORKDIR.value).absolute()
    folder = _scenes(tfds)
    if not (folder / "strong_train.tsv").is_file():
        raise SatError(
            f"{folder} does not exist: run python -m projects.box_model.scenes --packages DIR "
            f"--data_dir {tfds}"
        )
    course = _Course(work, tfds, f"the dataset {dataset_fingerprint(folder)}", arguments)
    for seed in _SEEDS.value:
        course.train(int(seed))
        course.measure(int(seed))
    print(write_results(work), flush=True)
    return False


def _scenes(tfds: Path) -> Path:
    return tfds / "pkg_audio" / "2.1.0"


def _streaming_model(seconds: int) -> str:
    return streaming_model(SIZES[_SIZE.value], seconds)


class _Course:
    """The stages of one dataset in one folder."""

    def __init__(self, work: Path, tfds: Path, data: str, more: Sequence[str]) -> None:
        self._work, self._tfds, self._more = work, tfds, more
        # Other scenes may take the same place later.
        self._inputs = (data,)

    def label(self, split: str, seconds: int) -> str:
        """Labels a split's windows of so many seconds, and returns the file.

        A class has the higher of the teacher's score and 1 where it is known to be heard.
        """
        result = self._work / f"labels_{split}_{seconds}s.parquet"
        teacher: tuple[str, ...] = ()
        if _TEACHER.value != "none":
            teacher = (f"--model={_TEACHER.value}", "--clip_context")
        command = ("-m", "data_pipeline.psl", *teacher, f"--strong={self._strong(split)}")
        windows = (f"--window={seconds}", f"--hop={seconds}", "--top_k=30", f"--output={result}")
        self._run("labels", result, (*command, *windows, *self._source(split)))
        return str(result)

    def train(self, seed: int) -> None:
        """Trains all models of a seed."""
        at = self._work / f"seed{seed}"
        common = (*self._source(VALIDATION, "valid_"), *COMMON, f"--config.seed={seed}")

        def train(name: str, config: str, *changes: str, start: str = "") -> None:
            command = ("train.py", f"--config=configs/{config}", *changes, *common)
            where = (
                *((f"--init={at / start / 'model'}",) if start else ()),
                f"--workdir={at / name}",
            )
            self._run(name, at / name / "model", (*command, *where, *self._more))

        size = _SIZE.value
        train("mae", f"mae.py:{size}", *MAE, *self._source(SOLO))
        train(WINDOWS_MODEL, f"vit.py:{size}", *WINDOWS, *self._labelled(2), start="mae")
        for named, changes in ((str, ()), (without_memory, WITHOUT_MEMORY)):
            start = WINDOWS_MODEL
            for seconds, steps in STREAMING.items():
                config = _streaming_model(seconds)
                name = named(config)
                flags = (*steps, *changes, *self._labelled(seconds), f"--config.name={name}")
                train(name, f"sat.py:{config}", *flags, start=start)
                start = name

    def measure(self, seed: int) -> None:
        """Measures all taggers of a seed, and what their cache is worth."""
        at = self._work / f"seed{seed}"
        scenes = (*self._source("test"), f"--strong={self._strong('test')}")
        sources = {SCENES_FOLDER: scenes, RECORDINGS_FOLDER: self._source("sounds_test")}
        # Mode "chunks" takes the cache away from a streaming model, which shows its worth.
        evaluations = {WINDOWS_MODEL: ("2,1", "chunks")}
        for seconds in DELAYS:
            name = _streaming_model(seconds)
            evaluations[name] = (f"{seconds}", "stream,chunks")
            evaluations[without_memory(name)] = (f"{seconds}", "chunks")
        for folder, source in sources.items():
            for name, (delays, modes) in evaluations.items():
                model, result = at / name / "model", at / folder / name
                how = (f"--chunk={delays}", f"--mode={modes}", f"--workdir={result}", "--nocost")
                command = ("evaluate.py", f"--model={model}", *how, "--noplots", *source)
                self._run("measuring", result / "metrics.json", command)
        result = at / "memory.json"
        where = (f"--measured={at / SCENES_FOLDER}", f"--output={result}")
        self._run("measuring", result, ("-m", "projects.box_model.measure_memory", *where, *scenes))

    def _labelled(self, seconds: int) -> tuple[str, ...]:
        """Returns flags for all training scenes with labels of windows."""
        labels = ",".join(self.label(split, seconds) for split in TRAINING)
        return (*self._source("+".join(TRAINING)), f"--psl={labels}")

    def _strong(self, split: str) -> Path:
        return _scenes(self._tfds) / f"strong_{split}.tsv"

    def _source(self, split: str, prefix: str = "") -> tuple[str, ...]:
        return (f"--{prefix}tfds=pkg_audio:{split}", f"--{prefix}data_dir={self._tfds}")

    def _run(self, stage: str, result: Path, command: Sequence[str]) -> None:
        run_stage(self._work, stage, result, command, inputs=self._inputs)


def _check(arguments: Sequence[str]) -> None:
    if strange := [word for word in arguments if not word.startswith("--")]:
        raise flags.Error(f"unexpected argument {strange[0]}: leave it out")
    require_flags(_TFDS, _WORKDIR, _SEEDS)
    if not all(seed.isdecimal() and int(seed) < 2**32 for seed in _SEEDS.value):
        seeds = ",".join(_SEEDS.value)
        raise flags.Error(f"--seeds={seeds}: not whole numbers from 0 to {2**32 - 1}")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.course", sys.argv[1:])
