"""Patchout, dropout and stochastic depth: what training draws at random, and what it does then."""

import dataclasses

import jax
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.models.cache import Cache, init_cache
from sat_jax.models.layers import Block
from sat_jax.models.transformer import AudioTransformer, init_variables
from sat_jax.training.window import run_window
from tests.support.jaxprs import equations

CLIP = ModelConfig(width=64, depth=2, num_classes=5, target_length=160, input_norm="fixed")
STREAMING = dataclasses.replace(CLIP, target_length=32, cache_length=48)
NO_PAST = Cache((), np.zeros(2, np.int32))


def variables_of(config: ModelConfig) -> object:
    return jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))


def test_patchout_drops_the_same_random_rows_and_columns_of_all_examples() -> None:
    config = dataclasses.replace(CLIP, time_patchout=0.25, freq_patchout=0.5)
    model, variables = AudioTransformer(config), variables_of(config)
    place = 100 * np.arange(4)[:, None] + np.arange(10)  # Row and column as one number.
    grid = np.broadcast_to(place[..., None], (2, 4, 10, 64)).astype(np.float32)

    @jax.jit
    def kept_in_training(seed: int) -> jax.Array:
        rngs = {"patchout": jax.random.key(seed)}
        return model.apply(variables, grid, True, rngs=rngs, method="drop_patches")

    rows, columns = set(), set()
    for seed in range(30):
        kept = np.asarray(kept_in_training(seed))
        assert kept.shape == (2, 2, 8, 64)  # Of 10 columns int(2.5) are dropped, of 4 rows 2.
        row, column = kept[0, :, 0, 0] // 100, kept[0, 0, :, 0] % 100
        assert (np.diff(row) > 0).all() and (np.diff(column) > 0).all()
        want = 100 * row[:, None] + column
        np.testing.assert_array_equal(kept, np.broadcast_to(want[..., None], kept.shape))
        rows.add(tuple(row))
        columns.add(tuple(column))
    # 30 draws out of 6 and of 45 choices.
    assert len(rows) == 6 and len(columns) > 15
    assert model.apply(variables, grid, False, method="drop_patches") is grid


@pytest.mark.parametrize("branch", ["ls1", "ls2"])
def test_stochastic_depth_drops_a_branch_of_whole_examples(branch: str) -> None:
    block = Block(dataclasses.replace(CLIP, layer_scale=1.0), 0.25)
    x = np.random.default_rng(0).standard_normal((1, 3, 64)).astype(np.float32)
    variables = block.init(jax.random.key(0), x)
    # The other branch adds nothing.
    other = {"ls1": "ls2", "ls2": "ls1"}[branch]
    variables["params"][other]["gamma"] = np.zeros(64, np.float32)
    added = np.asarray(block.apply(variables, x)[0] - x)[0]
    copies = np.repeat(x, 1000, axis=0)
    rngs = {"dropout": jax.random.key(1)}
    changes = np.asarray(block.apply(variables, copies, train=True, rngs=rngs)[0]) - x
    is_kept = changes.any((1, 2))
    kept = np.broadcast_to(added / 0.75, changes[is_kept].shape)
    np.testing.assert_allclose(changes[is_kept], kept, atol=1e-5)
    # Five standard deviations of a share of 1000 draws.
    np.testing.assert_allclose(is_kept.mean(), 0.75, atol=5 * np.sqrt(0.75 * 0.25 / 1000))


@pytest.mark.parametrize(("depth", "rates"), [(4, [0.0, 0.1, 0.2, 0.3]), (1, [0.0])])
def test_stochastic_depth_rises_linearly_from_0(depth: int, rates: list[float]) -> None:
    config = dataclasses.replace(CLIP, depth=depth, drop_path=0.3)
    model = AudioTransformer(config).bind(variables_of(config))
    np.testing.assert_allclose([block.drop_path for block in model.blocks], rates)


@pytest.mark.parametrize(
    ("field", "masks"),
    [  # b = 2 examples, n = 8 tokens, 2 blocks; in training a chunk attends to 12 cached tokens.
        ("dropout", [(2, 8, 64), *[(2, 8, 64), (2, 8, 256), (2, 8, 64)] * 2]),
        ("attention_dropout", [(2, 1, 8, 8 + 12)] * 2),
        ("drop_path", [(2, 1, 1)] * 2),  # Both branches of the second block: the first has rate 0.
    ],
)
def test_every_dropout_acts_in_training_only(field: str, masks: list[tuple[int, ...]]) -> None:
    config = dataclasses.replace(STREAMING, **{field: 0.5})
    model, variables = AudioTransformer(config), variables_of(config)
    log_mel, key = np.zeros((2, 64, 32), np.float32), jax.random.key(0)

    def shapes(function: object, *args: object) -> list[tuple[int, ...]]:
        found = equations(function, *args)
        return [e.outvars[0].aval.shape for e in found if e.primitive.name == "random_bits"]

    def train(variables: object) -> jax.Array:
        return run_window(model, variables, log_mel, NO_PAST, rngs={"dropout": key})

    def train_piece(variables: object) -> object:
        cache = init_cache(config, 2, "tokens")
        return model.apply(variables, log_mel, cache, train=True, rngs={"dropout": key})

    def score(variables: object) -> object:
        return model.apply(variables, log_mel, init_cache(config, 2, "kv"))

    assert shapes(train, variables) == shapes(train_piece, variables) == masks
    assert shapes(score, variables) == []
