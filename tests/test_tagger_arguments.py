"""What the tagger refuses, in one line."""

import dataclasses

import jax
import numpy as np
import pytest

from sat_jax import SatError, Tagger
from sat_jax.checkpoint import Checkpoint
from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.programs import ProgramStore
from sat_jax.streaming import reset_streams

TINY = ModelConfig(width=64, depth=2, num_classes=5, target_length=32, cache_length=32)


def make_tagger(chunk_seconds=0.32, framing="chunk", **changes):
    config = dataclasses.replace(TINY, **changes)
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    labels = default_label_names(config.num_classes)
    checkpoint = Checkpoint(config=config, variables=variables, labels=labels)
    return Tagger(checkpoint, chunk_seconds=chunk_seconds, framing=framing)


@pytest.fixture(scope="module")
def tagger():
    return make_tagger()


@pytest.mark.parametrize(
    "other",
    [
        {"chunk_seconds": 0.16},
        {"framing": "seamless"},
        {"depth": 1},
        {"width": 128},
        {"cache_length": 64},
        {"cache_length": 0},
        {"dtype": "bfloat16"},
    ],
)
def test_a_state_of_another_tagger(other, tagger):
    state = make_tagger(**other).init(1, "none")
    with pytest.raises(SatError, match=r"^this state is of a tagger with another[^\n]*$"):
        tagger.step(np.zeros(1_000, np.float32), state)


@pytest.mark.parametrize("nothing", [None, 3, (), np.zeros(4)])
def test_what_is_no_state(nothing, tagger):
    with pytest.raises(SatError, match=r"^this state is of"):
        tagger.step(np.zeros(1_000, np.float32), nothing)


def test_states_of_any_number_of_streams_and_as_numpy_are_fine(tagger):
    state = jax.tree.map(np.asarray, tagger.init(3, "none"))
    scores, _ = make_tagger().step(np.zeros((3, tagger.framing.hop), np.float32), state)
    assert scores.shape == (3, 5)


@pytest.mark.parametrize("nothing", [None, "", 3, ["SAT_T_2s"]])
def test_what_names_no_model(nothing):
    with pytest.raises(SatError, match=r"is no model: give a file[^\n]*SAT_T_2s"):
        Tagger.load(nothing)


@pytest.mark.parametrize("mode", ["stream", "clip"])
def test_blocks_have_one_axis(mode, tagger):
    with pytest.raises(SatError, match=r"^a block of samples has shape \[1, 8000\]"):
        list(getattr(tagger, mode)([np.zeros((1, 8_000), np.float32)]))


@pytest.mark.parametrize("mask", [np.ones(3, bool), np.ones(2, np.int32), [1.0, 0.0]])
def test_a_mask_is_one_bool_a_stream(mask, tagger):
    state = tagger.init(2, "none")
    with pytest.raises(SatError, match=r"^a mask must be bool\[2\]"):
        reset_streams(state, state, np.asarray(mask))


def test_resetting_takes_as_many_fresh_streams(tagger):
    with pytest.raises(SatError, match=r"^there are 1 fresh streams for 2"):
        reset_streams(tagger.init(2, "none"), tagger.init(1, "none"), np.ones(2, bool))


def test_recordings_of_any_length_need_few_programs(tmp_path):
    programs = ProgramStore(tmp_path)
    keeping = make_tagger(cache_length=0, target_length=96)
    keeping.programs = programs
    for num_samples in range(8_000, 9_500, 300):  # 51 to 60 frames: 3 patches, and a rest
        list(keeping.clip([np.full(num_samples, 0.01, np.float32)]))
    assert len(list(tmp_path.iterdir())) == 2, "spectrogram and network"
