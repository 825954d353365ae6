"""Chunks of any length after any past, beside a PyTorch model whose cache has no empty slots.

There a cache grows from nothing up to its capacity, so that it needs neither a mask nor a count.
"""

from typing import Any

import jax
import numpy as np
import pytest
import torch

from sat_jax.config import ModelConfig
from sat_jax.convert.weight_table import from_torch
from sat_jax.models.cache import Cache, CacheForm, TokenPast, init_cache
from sat_jax.models.positions import past_positions
from sat_jax.models.transformer import AudioTransformer
from tests.reference.torch_model import SAT, Config
from tests.support.reference_models import as_numpy, with_rule_weights

CASES = {  # pooling, frames of the cache and its form, patch columns of each chunk
    "one column each": ("mean", 80, "kv", (1,) * 7),
    "one column each, token cache": ("mean", 80, "tokens", (1,) * 7),
    "changing lengths": ("dm", 80, "kv", (2, 1, 1, 3, 1, 2, 1)),
    "the least cache": ("logit", 16, "tokens", (1, 2, 1)),
    # The published code has no answer for a cls token in a cache that is not full yet.
    "a cls token in a full cache": ("token", 64, "kv", (4, 1, 1)),
}


def models(pooling: Any, cache_length: int) -> tuple[SAT, ModelConfig, Any]:
    """Returns the PyTorch model, and ours with the same weights."""
    shape = {"depth": 2, "target_length": 64, "cache_length": cache_length, "pooling": pooling}
    settings = Config(embed_dim=64, outputdim=5, init_bn=False, **shape)
    reference = with_rule_weights(SAT(settings), 25)
    weights = from_torch(as_numpy(reference))
    for block in reference.blocks:
        block.prefix = 0  # The published code caches a cls token like any other, and so do ours.
    config = ModelConfig(width=64, num_classes=5, input_norm="fixed", **shape)
    return reference.double(), config, weights


@torch.inference_mode()
def reference_run(model: SAT, pieces: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the scores [y] and the cache [l, m, d] after each piece [f, t] of one stream."""
    cache, results = model.init_cache(1, "none"), []
    for piece in pieces:
        features, cache = model.encode(torch.from_numpy(piece)[None].double(), cache)
        results.append((model.classify(features)[0].numpy(), torch.cat(cache).numpy()))
    return results


@pytest.mark.parametrize(("pooling", "cache_length", "form", "columns"), CASES.values(), ids=CASES)
def test_scores_and_caches_are_those_of_a_growing_cache(
    pooling: str, cache_length: int, form: CacheForm, columns: tuple[int, ...]
) -> None:
    reference, config, variables = models(pooling, cache_length)
    rng = np.random.default_rng(0)
    pieces = [rng.standard_normal((2, 64, 16 * n)).astype(np.float32) for n in columns]
    # The second stream of the batch starts anew over what earlier chunks left in its slots.
    late = 0 if pooling == "token" else 2
    want = [
        reference_run(reference, [piece[0] for piece in pieces]),
        [*[None] * late, *reference_run(reference, [piece[1] for piece in pieces[late:]])],
    ]
    apply = jax.jit(AudioTransformer(config).apply)
    cache = init_cache(config, 2, form)
    for index, piece in enumerate(pieces):
        if index == late:
            cache = cache._replace(num_real=cache.num_real.at[1].set(0))
        scores, cache = apply(variables, piece, cache)
        for row in range(2 if index >= late else 1):
            wanted_scores, wanted_cache = want[row][index]
            np.testing.assert_allclose(scores[row], wanted_scores, atol=2e-6)
            check_cache(cache, row, wanted_cache)


def check_cache(cache: Cache, row: int, wanted: np.ndarray) -> None:
    """Compares the real tokens of one stream, in layers that keep tokens, with [l, m, d]."""
    assert cache.num_real[row] == wanted.shape[1]
    for layer, past in enumerate(cache.past):
        if isinstance(past, TokenPast):
            real = past.tokens[row, cache.room - wanted.shape[1] :]
            np.testing.assert_allclose(real, wanted[layer], atol=1e-5)


def test_positions_of_any_number_of_cached_tokens() -> None:
    """Also of numbers that form no grid, as with a cls token: what lies beyond it is clipped."""
    rng = np.random.default_rng(1)
    times, rows = rng.standard_normal((9, 3)), rng.standard_normal((4, 3))
    want = np.zeros((21, 20, 3))
    for num_real in range(21):
        steps = num_real // 4
        for token in range(num_real):
            row, step = divmod(token, max(steps, 1))
            place = times[min(9 - steps + step, 8)] + rows[min(row, 3)]
            want[num_real, 20 - num_real + token] = place
    np.testing.assert_allclose(past_positions(times, rows, np.arange(21), 20), want, rtol=1e-6)
