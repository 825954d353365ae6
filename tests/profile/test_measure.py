"""Profiles: compiled and timed steps, and the models they are of."""

import functools

import jax
import numpy as np
import pytest

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.registry import MODELS
from sat_jax.models.transformer import init_variables
from sat_jax.profile.compiled_step import compile_step
from sat_jax.profile.costs import count_tokens, variable_shapes
from sat_jax.profile.measure import find_model, profile_step
from sat_jax.profile.timing import time_for
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.streaming.state import new_streams
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint

SAT = ModelConfig(width=64, depth=1, num_classes=5, target_length=32, cache_length=320)
XLA_SHARE = 0.10
"""How much more XLA counts at most than the matrix products, as docs/cost.md says."""


def test_tokens_and_state_equal_those_after_a_step():
    framing = make_framing(SAT)
    step = compile_step(SAT, framing, 2)
    variables = jax.jit(init_variables, static_argnums=0)(SAT, jax.random.key(0))
    state = StreamingModel(SAT, framing).init(variables, 2, warmup="none")
    streams = new_streams(framing, state)
    assert step.state_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(streams))
    _, state = step.program(variables, np.zeros((2, framing.window), np.float32), state)
    tokens = count_tokens(SAT, framing)
    assert list(state.cache.num_real) == [tokens.new] * 2
    assert state.cache.room == tokens.cached


def test_xla_counts_little_more_than_matrix_products():
    # In larger models the share of the products is larger.
    step = compile_step(MODELS["SAT_XS_1s"], make_framing(MODELS["SAT_XS_1s"]), batch_size=1)
    assert 1.0 <= step.xla_flops / step.matmul_flops <= 1.0 + XLA_SHARE


def test_profile_of_one_and_of_two_streams():
    two = profile_step("tiny", SAT, chunk_seconds=None, batch_size=2, seconds=0.05)
    assert two.temporary_bytes > 0
    assert 0.0 < two.latency.median_ms <= two.latency.p95_ms
    assert two.latency.steps >= 5
    one = profile_step("tiny", SAT, chunk_seconds=None)
    assert one.latency is None
    assert one.multiply_adds == two.multiply_adds
    assert two.matmul_flops == 2 * one.matmul_flops == 4 * one.multiply_adds.total


def test_calls_are_timed_until_the_time_is_up():
    calls = iter(range(1000))
    assert len(time_for(functools.partial(next, calls), 0.0)) == 5
    assert next(calls) == 6  # One call came before.


def test_named_models_have_no_weights():
    assert find_model("SAT_T_2s") == (MODELS["SAT_T_2s"], None)


def test_checkpoint_folders_are_models(tmp_path):
    variables = jax.tree.map(lambda shape: np.ones(shape.shape, np.float32), variable_shapes(SAT))
    checkpoint = Checkpoint(config=SAT, variables=variables, labels=tuple("abcde"), source="test")
    save_checkpoint(tmp_path / "model", checkpoint)
    config, found = find_model(str(tmp_path / "model"))
    assert config == SAT
    assert jax.tree.all(jax.tree.map(np.array_equal, found, variables))


@pytest.mark.parametrize("name", ["SAT_X_2s", "mae_tiny", ""])
def test_names_that_are_no_models(name):
    with pytest.raises(SatError, match=name or "''"):
        find_model(name)


def test_autoencoder_folders_are_refused(tmp_path, monkeypatch):
    encoder = ModelConfig(width=64, depth=1, num_classes=5, target_length=64, pooling="token")
    mae = MaeConfig(encoder=encoder, decoder_depth=1)
    checkpoint = Checkpoint(config=mae, variables={}, labels=(), source="test")
    monkeypatch.setattr("sat_jax.profile.measure.find_checkpoint", lambda name: checkpoint)
    with pytest.raises(SatError, match=str(tmp_path)):
        find_model(str(tmp_path))


def test_steps_that_do_not_fit_in_memory(monkeypatch):
    def fail(*_args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr("sat_jax.profile.measure.compile_step", fail)
    with pytest.raises(SatError, match=r"tiny: 9 .*0\.16 s.*--batch"):
        profile_step("tiny", SAT, chunk_seconds=0.16, batch_size=9)
