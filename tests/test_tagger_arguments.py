"""Wrong arguments of the tagger raise SatError with one line."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from sat_jax import SatError, Tagger
from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.runtime.program_store import ProgramStore
from sat_jax.streaming import reset_streams
from sat_jax.weights.checkpoint import Checkpoint

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
def test_a_state_of_another_tagger_is_refused(other, tagger):
    state = make_tagger(**other).init(1, "none")
    with pytest.raises(SatError, match=r"^this state [^\n]*$"):
        tagger.step(np.zeros(1_000, np.float32), state)


@pytest.mark.parametrize("nothing", [None, 3, (), np.zeros(4)])
def test_other_objects_are_not_states(nothing, tagger):
    with pytest.raises(SatError, match=r"^this state"):
        tagger.step(np.zeros(1_000, np.float32), nothing)


def test_states_may_be_numpy_with_any_number_of_streams(tagger):
    state = jax.tree.map(np.asarray, tagger.init(3, "none"))
    scores, _ = make_tagger().step(np.zeros((3, tagger.framing.hop), np.float32), state)
    assert scores.shape == (3, 5)


@pytest.mark.parametrize("nothing", [None, "", 3, ["SAT_T_2s"]])
def test_other_objects_do_not_name_models(nothing):
    with pytest.raises(SatError, match=rf"^{re.escape(repr(nothing))} [^\n]*SAT_T_2s"):
        Tagger.load(nothing)


@pytest.mark.parametrize("mode", ["stream", "clip"])
def test_blocks_have_one_axis(mode, tagger):
    with pytest.raises(SatError, match=r"\[1, 8000\]"):
        list(getattr(tagger, mode)([np.zeros((1, 8_000), np.float32)]))


@pytest.mark.parametrize("mode", ["stream", "clip"])
@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.zeros(8_000, np.int16), "int16"),
        ([[0.0, 0.0], [0.0]], "samples"),
        (np.full(8_000, np.nan, np.float32), "NaN.*1e.10"),
    ],
)
def test_blocks_are_floating_point_numbers(mode, block, message, tagger):
    with pytest.raises(SatError, match=message):
        list(getattr(tagger, mode)([block]))


@pytest.mark.parametrize("mode", ["stream", "clip"])
def test_blocks_may_be_lists_and_float64(mode, tagger):
    (want,) = getattr(tagger, mode)([np.full(5_120, 0.1, np.float32)])
    for block in ([0.1] * 5_120, np.full(5_120, 0.1)):
        (got,) = getattr(tagger, mode)([block])
        np.testing.assert_allclose(got.probs, want.probs, atol=1e-6)


def test_ragged_lists_are_refused(tagger):
    with pytest.raises(SatError, match=r"^samples [^\n]*$"):
        tagger.step([[0.0] * 10, [0.0] * 9], tagger.init(2, "none"))


@pytest.mark.parametrize("mode", ["stream", "clip"])
def test_damaged_weights_are_noticed(mode):
    broken = make_tagger()
    broken.variables["params"]["head"]["bias"] += np.nan
    with pytest.raises(SatError, match="not finite"):
        list(getattr(broken, mode)([np.zeros(8_000, np.float32)]))


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2", None, True])
def test_batch_sizes_are_whole_numbers(batch_size, tagger):
    with pytest.raises(SatError, match=f"batch_size={re.escape(repr(batch_size))}"):
        tagger.init(batch_size)


@pytest.mark.parametrize("seconds", [0, 0.0, -1, "2", float("nan")])
def test_wrong_chunk_lengths_are_refused(seconds):
    with pytest.raises(SatError, match=re.escape(repr(seconds).removesuffix(".0"))):
        make_tagger(chunk_seconds=seconds)


def test_paths_are_text(tagger):
    with pytest.raises(SatError, match="None"):
        tagger.tag_file(None)


def test_pad_last_is_a_bool():
    with pytest.raises(SatError, match="pad_last='no'"):
        make_tagger(pad_last="no")


@pytest.mark.parametrize(
    "mask", [np.ones(3, bool), np.ones(2, np.int32), np.ones(2), [True, False], None]
)
def test_a_mask_has_one_bool_per_stream(mask, tagger):
    state = tagger.init(2, "none")
    with pytest.raises(SatError, match=r"bool\[2\]"):
        reset_streams(state, state, mask)


@pytest.mark.parametrize("other", [{"chunk_seconds": 0.16}, {"width": 128}, {"dtype": "bfloat16"}])
def test_fresh_streams_have_the_same_tagger(other, tagger):
    fresh = make_tagger(**other).init(2, "none")
    with pytest.raises(SatError, match="fresh streams"):
        reset_streams(tagger.init(2, "none"), fresh, np.ones(2, bool))


def test_a_reset_needs_as_many_fresh_streams(tagger):
    with pytest.raises(SatError, match=r"\b1 .*\b2\b"):
        reset_streams(tagger.init(2, "none"), tagger.init(1, "none"), np.ones(2, bool))


def test_recordings_of_any_length_need_few_programs(tmp_path):
    jax.clear_caches()  # As in a new process.
    programs = ProgramStore(tmp_path)
    keeping = make_tagger(cache_length=0, target_length=96)
    keeping.programs = programs
    for num_samples in range(8_000, 9_500, 300):  # 51 to 60 frames: 3 patches, and a rest
        list(keeping.clip([np.full(num_samples, 0.01, np.float32)]))
    assert len(list(tmp_path.iterdir())) == 2, "spectrogram and network"


@pytest.mark.parametrize("shape", [(2, 80_000), (1, 80_000), (2, 100)])
def test_channels_come_last(shape, tagger):
    with pytest.raises(
        SatError, match=rf"which is {shape[1]} channels: give \[samples, channels\]$"
    ):
        tagger.tag(np.zeros(shape, np.float32))


def test_few_samples_of_many_channels_are_tagged(tagger):
    sound = np.zeros((1, 64), np.float32)
    assert [chunk.end for chunk in tagger.tag(sound)] == [1 / 16_000]
