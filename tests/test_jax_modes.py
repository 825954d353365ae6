"""JAX modes that a host program has set: the same tags, and the modes stay in force."""

import jax
import numpy as np
import pytest

from sat_jax import Tagger
from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.runtime import program_store
from sat_jax.streaming import reset_streams, state_from_bytes, state_to_bytes
from sat_jax.weights.checkpoint import Checkpoint

MODES = {
    "disable_jit": lambda: jax.disable_jit(True),
    "x64": lambda: jax.enable_x64(True),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
    "explicit transfer guard": lambda: jax.transfer_guard("disallow_explicit"),
    "matmul precision": lambda: jax.default_matmul_precision("bfloat16"),
    "key reuse": lambda: jax.debug_key_reuse(True),
    "tracer leaks": lambda: jax.checking_leaks(),
    "default device": lambda: jax.default_device(jax.devices()[-1]),
}
AFFECT_COMPILING = {"disable_jit", "x64", "dtype promotion", "rank promotion", "tracer leaks"}


@pytest.fixture(scope="module")
def checkpoint():
    config = ModelConfig(
        width=64, depth=1, num_classes=5, target_length=32, cache_length=32, pooling="logit"
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    return Checkpoint(config=config, variables=variables, labels=default_label_names(5))


def answers(tagger):
    """Returns what every function of a tagger gives."""
    samples = 0.1 * np.random.default_rng(0).standard_normal((5, 2, 4_000)).astype(np.float32)
    streamed = [chunk.probs for chunk in tagger.stream(samples[:, 0])]
    clip = [chunk.probs for chunk in tagger.clip(samples[:, 0])]
    state = tagger.init(2)
    for block in samples:
        probs, state = tagger.step(block, state)
    state = state_from_bytes(state, state_to_bytes(state))
    state = reset_streams(state, tagger.init(2), np.array([True, False]))
    probs, _, state = tagger.scan(samples[:2], state)
    return [*streamed, *clip, probs, *(np.asarray(leaf) for leaf in jax.tree.leaves(state))]


def test_modes_change_no_answer(checkpoint, monkeypatch):
    want = answers(Tagger(checkpoint, chunk_seconds=0.32))
    for name, mode in MODES.items():
        if name in AFFECT_COMPILING:
            monkeypatch.setattr(program_store, "_stores", {})
        with mode():
            have = answers(Tagger(checkpoint, chunk_seconds=0.32))
        for one, other in zip(have, want, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
            assert one.dtype == other.dtype, name


def test_modes_stay_in_force_for_the_host_program(checkpoint):
    with jax.numpy_rank_promotion("raise"):
        Tagger(checkpoint, chunk_seconds=0.32).init(1)
        with pytest.raises(ValueError, match="rank_promotion"):
            jax.numpy.ones((2, 2)) + jax.numpy.ones(2)
