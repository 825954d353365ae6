"""Training runs all pieces of a window at once: same scores and gradients as one by one."""

import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.models.cache import Cache, init_cache
from sat_jax.models.transformer import AudioTransformer, init_variables
from sat_jax.streaming.pieces import run_pieces, warm_cache
from sat_jax.training.window import run_window

STREAMING = ModelConfig(
    width=64, depth=2, target_length=32, cache_length=32, num_classes=5, input_norm="fixed"
)
CASES = {  # model, frames of the window, whether two of three recordings start after silence
    "cache of one piece and a half": (
        dataclasses.replace(STREAMING, cache_length=48, pooling="token"),
        100,
        True,
    ),
    "short cache": (dataclasses.replace(STREAMING, cache_length=16, remat=True), 70, False),
    "a rest": (dataclasses.replace(STREAMING, pad_last=True), 70, False),
    "one piece": (STREAMING, 30, False),
    "no cache": (dataclasses.replace(STREAMING, cache_length=0, depth=1), 70, False),
}


RARE = ("a rest", "one piece", "no cache")


@pytest.mark.parametrize(
    ("config", "frames", "warm"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name in RARE else [])
        for name, case in CASES.items()
    ],
)
def test_scores_and_gradients_are_those_of_one_piece_after_the_other(config, frames, warm):
    model = AudioTransformer(config)
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    # No norm has a scale of one or a shift of zero, as after training.
    flat, unravel = jax.flatten_util.ravel_pytree(variables)
    variables = unravel(flat + 0.1 * jax.random.normal(jax.random.key(3), flat.shape))
    spectrogram = jax.random.normal(jax.random.key(1), (3, 64, frames))
    weights = jax.random.normal(jax.random.key(2), (4, 3, 5))

    def silent_cache():
        cache = warm_cache(model, variables, init_cache(config, 3, "tokens"))
        return cache._replace(num_real=cache.num_real.at[1].set(0))

    def one_by_one(variables):
        cache = silent_cache() if warm else init_cache(config, 3, "tokens")
        scores, _ = run_pieces(model, variables, spectrogram, cache)
        return (scores * weights[: len(scores)]).sum(), scores

    def together(variables):
        cache = silent_cache() if warm else Cache((), jnp.zeros((3,), jnp.int32))
        scores = run_window(model, variables, spectrogram, cache, rngs={})
        return (scores * weights[: len(scores)]).sum(), scores

    (_, expected), expected_grads = jax.jit(jax.value_and_grad(one_by_one, has_aux=True))(variables)
    (_, scores), grads = jax.jit(jax.value_and_grad(together, has_aux=True))(variables)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    for (path, grad), want in zip(
        jax.tree.leaves_with_path(grads), jax.tree.leaves(expected_grads), strict=True
    ):
        scale = float(np.abs(want).max())
        np.testing.assert_allclose(grad, want, atol=1e-5 * scale + 1e-8, err_msg=str(path))
