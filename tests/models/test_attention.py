"""Attention beside JAX's own, the choice of its implementation, and the precision of products."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.models import attention
from sat_jax.models.attention import attend, attention_weights, fused_attention, suits_cudnn
from sat_jax.models.cache import init_cache
from sat_jax.models.transformer import AudioTransformer
from sat_jax.profile.costs import variable_shapes
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.objectives import make_objective
from tests.support.jaxprs import equations

HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


def precisions(function: Any, *args: Any) -> list[Any]:
    """Returns the precision of each matrix product of a function."""
    products = [e for e in equations(function, *args) if e.primitive.name == "dot_general"]
    return [product.params["precision"] for product in products]


def heads(tokens: int, seed: int, dtype: str = "float32") -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (3, tokens, 2, 64)).astype(dtype)


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_gives_the_same(masked: bool) -> None:
    query, key, value = heads(4, 0), heads(6, 1), heads(6, 2)
    real = np.arange(6)[None, :] >= np.array([[0], [2], [5]]) if masked else None

    def separate(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return attend(attention_weights(query, key, real), value)

    def fused(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return fused_attention(query, key, value, real, implementation="xla")

    def run(attention: Any) -> Any:
        def loss(*args: jax.Array) -> Any:
            mixed = attention(*args)
            return jnp.square(mixed).sum(), mixed

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(query, key, value)

    expected_grads, expected = run(separate)
    grads, mixed = run(fused)
    np.testing.assert_allclose(mixed, expected, atol=1e-5, rtol=1e-5)
    for grad, want in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("platform", "capability", "count", "dtype", "tokens", "suits"),
    [
        ("gpu", "9.0", 1, "bfloat16", 48, True),
        ("gpu", "12.0", 1, "bfloat16", 48, True),
        ("gpu", "9.0", 2, "bfloat16", 48, False),
        ("gpu", "7.5", 1, "bfloat16", 48, False),
        ("gpu", "gfx90a", 1, "bfloat16", 48, False),
        ("gpu", "9.0", 1, "float32", 48, False),
        ("gpu", "9.0", 1, "bfloat16", 49, False),
        ("cpu", None, 1, "bfloat16", 48, False),
    ],
)
def test_cudnn_is_used_where_it_fits(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    capability: str | None,
    count: int,
    dtype: str,
    tokens: int,
    suits: bool,
) -> None:
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(attention.jax, "devices", lambda: [device] * count)
    monkeypatch.setattr(attention.jax, "device_count", lambda: count)
    attention._has_flash_attention.cache_clear()
    try:
        assert suits_cudnn(heads(tokens, 0, dtype), heads(96, 1, dtype)) is suits
    finally:
        attention._has_flash_attention.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float32_products_are_float32_on_every_device(dtype: str) -> None:
    config = ModelConfig(
        width=64, depth=1, num_classes=5, target_length=32, cache_length=32, dtype=dtype
    )
    variables = variable_shapes(config)
    cache = init_cache(config, 1, "kv")
    piece = jnp.zeros((1, config.frontend.n_mels, 32))
    found = precisions(AudioTransformer(config).apply, variables, piece, cache)
    assert len(found) == 9, "patches, qkv, past, scores, sum, projection, MLP's two, head"
    assert all((precision == HIGHEST) == (dtype == "float32") for precision in found)


def test_float32_gradients_are_float32_on_every_device() -> None:
    config = ModelConfig(width=64, depth=2, num_classes=5, target_length=32, cache_length=32)
    run = TrainConfig(model=config, optimizer=OptimizerConfig(learning_rate=1.0), num_steps=1)
    variables = variable_shapes(config)
    batch = {"waveform": jnp.zeros((1, 95 * 160)), "target": jnp.zeros((1, 5))}
    gradient = jax.grad(make_objective(run), has_aux=True)
    found = precisions(
        gradient, variables["params"], variables["batch_stats"], batch, jax.random.key(0)
    )
    assert len(found) > 40
    assert set(found) == {HIGHEST}
