"""A training run of six steps, for the tests of sat_jax/training."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sat_jax.config import ModelConfig
from sat_jax.models.transformer import init_variables
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.loop import TrainResult, train
from sat_jax.weights.checkpoint import load_checkpoint

MODEL = ModelConfig(
    width=64, depth=1, target_length=32, cache_length=32, num_classes=3, dropout=0.1
)
# One config wherever possible, since each config is compiled once.
CONFIG = TrainConfig(
    model=MODEL,
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.3, clip_norm=1.0),
    num_steps=6,
    checkpoint_every=3,
    evaluate_every=2,
    keep_best=2,
    log_every=1,
)
LABELS = ("hum", "hiss", "silence")
SAMPLES = 10_400  # Two chunks of 32 frames.


class Killed(BaseException):
    """Ends a run like SIGKILL: the program does not catch it."""


def kill() -> None:
    """Ends the run."""
    raise Killed


def batch(index: int) -> dict[str, Any]:
    """Returns a random batch of two windows."""
    rng = np.random.default_rng(index)
    waveform = 0.1 * rng.standard_normal((2, SAMPLES)).astype(np.float32)
    target = rng.random((2, 3)).astype(np.float32)
    return {"waveform": waveform, "target": target, "clips": [f"{index}a.wav", f"{index}b.wav"]}


def endless(start: int) -> Any:
    """Yields batches without end."""
    while True:
        yield batch(start)
        start += 1


def stopped_by(action: Any, at: int) -> Any:
    """Returns a source of batches that calls `action` before batch `at`, counted from 0."""

    def batches(start: int) -> Any:
        for index in range(start, 1000):
            if index == at:
                action()
            yield batch(index)

    return batches


def validation() -> Any:
    """Yields eight clips with random labels, so that some steps score better than others."""
    rng = np.random.default_rng(7)
    yield {
        "waveform": 0.1 * rng.standard_normal((8, SAMPLES)).astype(np.float32),
        "num_samples": np.full(8, SAMPLES, np.int32),
        "is_real": np.ones(8, bool),
        "target": (rng.random((8, 3)) > 0.5).astype(np.float32),
    }


def first_weights(key: jax.Array) -> Any:
    """Returns random weights of `MODEL`."""
    return jax.jit(init_variables, static_argnums=0)(MODEL, key)


def run(
    workdir: Path, batches: Any = endless, config: TrainConfig = CONFIG, **kwargs: Any
) -> TrainResult:
    """Runs or resumes the training."""
    return train(config, batches, workdir, make_variables=first_weights, labels=LABELS, **kwargs)


def log(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of log.jsonl."""
    lines = (workdir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    """Compares the trained weights to the bit, and the logs except for the speed."""
    trained = [
        jax.tree.leaves_with_path(load_checkpoint(workdir / "model").variables)
        for workdir in (one, other)
    ]
    for (path, array), (_, twin) in zip(*trained, strict=True):
        np.testing.assert_array_equal(array, twin, err_msg=str(path))
    logs = [
        [{k: v for k, v in line.items() if k != "clips_per_s"} for line in log(workdir)]
        for workdir in (one, other)
    ]
    assert logs[0] == logs[1]
