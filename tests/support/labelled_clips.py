"""A tiny model and labelled clips for tests of evaluation."""

import functools

import jax
import numpy as np

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.evaluation.clips import LabeledClips
from sat_jax.evaluation.run import open_candidate, score_candidate
from sat_jax.models.transformer import init_variables
from sat_jax.weights.checkpoint import Checkpoint

RATE = 16_000
PATCH = 2_560
LABELS = ("Dog", "Bark, woof", "Rain", "Cat", "in no clip", "in every clip")
LENGTHS = (16_000, 16_010, 22_000, 24_000, 5_000, 300, 8_000, 16_000, 31_000, 24_100)
"""Whole chunks of 0.5 s, a few samples more, most of a chunk more, less than a chunk, …."""


def tiny_checkpoint():
    """A streaming model of 1/3 s whose scores of different clips differ."""
    config = ModelConfig(
        width=64, depth=1, target_length=32, cache_length=32, num_classes=len(LABELS)
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    variables["params"] = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    return Checkpoint(config=config, variables=variables, labels=LABELS, source="a test")


@functools.cache
def sounds():
    """Chirps with noise, float32 [s] of each of `LENGTHS`."""
    rng = np.random.default_rng(0)
    clips = []
    for length in LENGTHS:
        time = np.arange(length) / RATE
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 6000) * time * (1 + time))
        noise = rng.uniform(0, 0.3) * rng.standard_normal(length)
        clips.append((tone + noise).clip(-1, 1).astype(np.float32))
    return clips


def make_clips(order=None, events=None, missing=(), description=None, versions=None):
    """The clips of `sounds`, named clip0, clip1, …; those in `missing` can't be read."""
    order = list(range(len(LENGTHS)) if order is None else order)
    rng = np.random.default_rng(1)
    labels = [[*np.flatnonzero(rng.random(4) < 0.4).tolist(), 5] for _ in LENGTHS]
    labels[0], labels[1] = [0, 2, 5], [1, 3, 5]

    def read(indices):
        for index in indices:
            if order[index] in missing:
                yield index, SatError(f"clip {order[index]} is gone")
            else:
                yield index, sounds()[order[index]]

    return LabeledClips(
        ids=[f"clip{index}" for index in order],
        labels=[labels[index] for index in order],
        read=read,
        description=description or {"order": order},
        versions=np.zeros(len(order), np.int64) if versions is None else np.asarray(versions),
        events={} if events is None else {order.index(k): v for k, v in events.items()},
    )


def run_mode(model, folder, mode, clips=None, *, batch_size=4, report=lambda message: None):
    """Scores clips with a model in one mode."""
    candidate = open_candidate(
        str(model), [mode], lambda tagger: make_clips() if clips is None else clips
    )
    [run] = score_candidate(
        candidate, folder=folder / "scores", batch_size=batch_size, report=report
    )
    return run
