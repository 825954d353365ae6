"""Scores of clips in every mode against loops over a tagger."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from sat_jax.evaluation.clip_scores import aggregate, make_scorer, prediction_times
from sat_jax.evaluation.modes import Mode
from sat_jax.tagger import Tagger
from tests.support.labelled_clips import PATCH, RATE, sounds

MODES = [
    Mode(name="stream", delay=0.5),
    Mode(name="stream", delay=0.2, warmup="none"),
    Mode(name="stream", framing="seamless"),
    Mode(name="chunks", delay=0.5),
    Mode(name="sliding", delay=0.5, buffer=1.0),
    Mode(name="clip"),
    Mode(name="clip", aggregation="last"),
]


def scores_by_hand(checkpoint, sound, mode):
    """float32 [k, y], one window or chunk after the other."""
    tagger = Tagger(checkpoint, chunk_seconds=mode.delay, framing=mode.framing)
    hop = tagger.framing.hop
    if mode.name == "clip":
        return np.stack([c.probs for c in tagger.clip([sound], aggregation=mode.aggregation)])
    if mode.framing == "chunk" and len(sound) > hop and len(sound) % hop < PATCH:
        sound = sound[: len(sound) - len(sound) % hop]
    if mode.name == "stream":
        return np.stack([c.probs for c in tagger.stream([sound], warmup=mode.warmup)])
    scores = []
    for end in [*range(hop, len(sound), hop), len(sound)]:
        first = max(0, end - round(RATE * mode.buffer))
        if mode.name == "chunks":
            first = (end - 1) // hop * hop
        [window] = tagger.clip([sound[first:end]])
        scores.append(window.probs)
    return np.stack(scores)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.title)
def test_scores_equal_those_of_a_loop(checkpoint, mode):
    score = make_scorer(checkpoint.config, checkpoint.variables, mode, batch_size=4)
    # Three lengths show that the aggregation is used; each further one is compiled anew.
    clips = sounds() if mode.aggregation == "mean" else sounds()[2:5]
    for sound, probs in zip(clips, score(clips), strict=True):
        np.testing.assert_allclose(probs, scores_by_hand(checkpoint, sound, mode), atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("pad_last", [False, True])
def test_long_delays_take_no_more_memory(checkpoint, pad_last):
    config = dataclasses.replace(checkpoint.config, pad_last=pad_last)
    mode = Mode(name="stream", delay=32.0, warmup="none")
    before = {id(array) for array in jax.live_arrays()}
    score = make_scorer(config, checkpoint.variables, mode, batch_size=32)
    # 32 windows of 32 s would take 64 MiB; 12 windows take 25 MB.
    assert sum(a.nbytes for a in jax.live_arrays() if id(a) not in before) < 35e6
    rng = np.random.default_rng(5)
    noise = (0.1 * rng.standard_normal(34 * RATE)).astype(np.float32)
    clips = [noise[:length] for length in (300, 5_119, 5_120, 5_121, 33 * RATE)]
    tagger = Tagger(dataclasses.replace(checkpoint, config=config), chunk_seconds=32.0)
    for sound, probs in zip(clips, score(clips), strict=True):
        expected = [chunk.probs for chunk in tagger.stream([sound], warmup="none")]
        np.testing.assert_allclose(probs, np.stack(expected), atol=3e-6)


SHARDED = """
import sys
import jax, numpy as np
from sat_jax.weights.checkpoint import load_checkpoint
from sat_jax.evaluation.clip_scores import make_scorer
from sat_jax.evaluation.modes import Mode
from sat_jax.runtime.sharding import make_mesh

checkpoint = load_checkpoint(sys.argv[1])
rng = np.random.default_rng(0)
sounds = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (16_000, 300, 9_000, 22_000)]
assert jax.device_count() == 8
for mode in (Mode(delay=0.5), Mode(name="sliding", delay=0.5), Mode(name="clip")):
    one, eight = (
        make_scorer(
            checkpoint.config, checkpoint.variables, mode, batch_size=3, mesh=make_mesh(devices)
        )(sounds)
        for devices in (jax.devices()[:1], jax.devices())
    )
    for a, b in zip(one, eight, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
print("equal")
"""


@pytest.mark.slow
def test_eight_devices_give_the_scores_of_one(model):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, model],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


def test_aggregation():
    probs = np.float32([[0.1, 0.9], [0.3, 0.2], [0.2, 0.1]])
    np.testing.assert_array_equal(aggregate(probs, "max"), np.float32([0.3, 0.9]))
    np.testing.assert_array_equal(aggregate(probs, "last"), np.float32([0.2, 0.1]))
    np.testing.assert_allclose(aggregate(probs, "mean"), [0.2, 0.4], rtol=1e-6)


def test_times_end_with_the_clip():
    start, end = prediction_times(4, 2_500, hop=1_000, sample_rate=1_000)
    assert start.tolist() == [0.0, 1.0, 2.0, 2.5]
    assert end.tolist() == [1.0, 2.0, 2.5, 2.5]
