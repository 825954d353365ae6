"""What the transformer leaves out: tokens of the last block, frames without a position."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from sat_jax.config import FrontendConfig, ModelConfig
from sat_jax.models.cache import init_cache
from sat_jax.models.transformer import AudioTransformer, init_variables

CONFIG = ModelConfig(
    width=64, depth=2, target_length=32, cache_length=48, pooling="token", input_norm="fixed"
)
NUM_TOKENS, NUM_OUT = 9, 1


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("form", ["kv", "tokens", "clip"])
def test_num_out_tokens_are_the_first_of_all(form: str, remat: bool):
    is_clip = form == "clip"
    config = dataclasses.replace(CONFIG, cache_length=0 if is_clip else 48, remat=remat)
    model = AudioTransformer(config)
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    tokens = jax.random.normal(jax.random.key(1), (3, NUM_TOKENS, config.width))
    cache = init_cache(config, 3, "kv" if form == "kv" else "tokens")
    cache = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(2), x.shape, x.dtype) if x.ndim == 3 else x + 5,
        cache,
    )
    weights = jax.random.normal(jax.random.key(3), (3, NUM_OUT, config.width))

    def encode(variables: Any, **wanted: int) -> Any:
        features, after = model.apply(variables, tokens, cache, method="encode", **wanted)
        return (features[:, :NUM_OUT] * weights).sum(), (features, after)

    run = jax.jit(jax.value_and_grad(encode, has_aux=True), static_argnames="num_out")
    (_, (every, after_every)), every_grad = run(variables)
    (_, (features, after)), grad = run(variables, num_out=NUM_OUT)
    assert features.shape[1] == NUM_OUT < every.shape[1]
    np.testing.assert_allclose(features, every[:, :NUM_OUT], atol=1e-5)
    for have, want in zip(
        jax.tree.leaves((after, grad)), jax.tree.leaves((after_every, every_grad)), strict=True
    ):
        np.testing.assert_allclose(have, want, atol=1e-5 * float(np.abs(want).max()) + 1e-8)


@pytest.mark.parametrize("frames", [33, 47, 48, 55])
def test_frames_beyond_the_last_position_change_nothing(frames: int) -> None:
    """A clip model takes up to 15 frames more than its target, here a third column of patches."""
    config = dataclasses.replace(CONFIG, target_length=40, cache_length=0)
    model = AudioTransformer(config)
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    log_mel = jax.random.normal(jax.random.key(1), (1, 64, frames))
    no_past = init_cache(config, 1, "kv")
    have, _ = model.apply(variables, log_mel, no_past)
    want, _ = model.apply(variables, log_mel[..., :32], no_past)
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(("bands", "offset", "scale"), [(64, 10.0, 40.0), (128, 14.27, 41.58)])
def test_the_fixed_norm_is_the_published_one(bands: int, offset: float, scale: float) -> None:
    config = dataclasses.replace(CONFIG, frontend=FrontendConfig(n_mels=bands))
    decibels = np.linspace(-100.0, 40.0, bands * 3, dtype=np.float32).reshape(1, bands, 3)
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    have = AudioTransformer(config).apply(variables, decibels, method="normalize")
    np.testing.assert_allclose(have, (decibels + offset) / scale, rtol=1e-5)
