"""Warm starts: arrays that are copied, resized and left out."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from sat_jax.config import AnyConfig, FrontendConfig, MaeConfig
from sat_jax.errors import SatError
from sat_jax.models.cache import init_cache
from sat_jax.models.positions import resize_positions
from sat_jax.models.registry import MODELS
from sat_jax.models.transformer import AudioTransformer
from sat_jax.weights.checkpoint import Checkpoint
from sat_jax.weights.warm_start import (
    FreshStart,
    copies_input_statistics,
    fresh_variables,
    start_from,
)
from tests.support.golden_models import mae_config, small_config, small_weights

KEY = jax.random.key(3)


def checkpoint(name: str) -> Checkpoint:
    config: AnyConfig = mae_config() if name == "mae" else small_config(name)
    return Checkpoint(config=config, variables=small_weights(name), labels=())


def flat(variables: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in flatten_dict(variables, sep="/").items()}


def start(name: str, config: AnyConfig) -> tuple[dict[str, np.ndarray], list[str]]:
    """Starts `config` from a golden model, and checks what holds of every start."""
    variables, notes = start_from(checkpoint(name), config, KEY)
    shapes = jax.eval_shape(lambda key: fresh_variables(config, key), KEY)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    for array, leaf in zip(jax.tree.leaves(variables), jax.tree.leaves(shapes), strict=True):
        assert (array.shape, array.dtype) == (leaf.shape, leaf.dtype)
    return flat(variables), notes


def changed(after: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> set[str]:
    """Names of the arrays that are not the same in both."""
    return {n for n in after if n not in before or not np.array_equal(after[n], before[n])}


def test_a_clip_model_starts_a_streaming_one() -> None:
    config = small_config("sat_mean_2s")
    after, notes = start("vit_mean", config)
    before = flat(small_weights("vit_mean"))
    assert changed(after, before) == {"params/time_pos_embed"}
    np.testing.assert_array_equal(
        after["params/time_pos_embed"], before["params/time_pos_embed"][:24]
    )
    assert notes == ["resized: time_pos_embed, 63 to 24"]


def test_the_first_chunk_of_a_stream_scores_as_in_the_clip_model() -> None:
    config = small_config("sat_mean_2s")
    variables, _ = start_from(checkpoint("vit_mean"), config, KEY)
    log_mel = jax.random.normal(KEY, (2, 64, 192))

    def scores(name: str, variables: Any) -> jax.Array:
        model = AudioTransformer(small_config(name))
        cache = init_cache(model.config, 2, "tokens")
        return jax.jit(model.apply)(variables, log_mel, cache)[0]

    np.testing.assert_allclose(
        scores("sat_mean_2s", variables), scores("vit_mean", small_weights("vit_mean")), atol=1e-6
    )


def test_other_classes_get_a_fresh_head() -> None:
    config = dataclasses.replace(small_config("vit_mean"), num_classes=5)
    after, notes = start("vit_mean", config)
    assert changed(after, flat(small_weights("vit_mean"))) == {
        "params/head/kernel",
        "params/head/bias",
    }
    assert 0.01 < after["params/head/kernel"].std() < 0.03
    assert not after["params/head/bias"].any()
    assert notes == ["fresh, of another size: head"]


def test_a_head_of_other_classes_is_fresh() -> None:
    names = tuple(f"class {i}" for i in range(small_config("vit_mean").num_classes))
    source = dataclasses.replace(checkpoint("vit_mean"), labels=names)
    before = flat(small_weights("vit_mean"))
    same, notes = start_from(source, source.config, KEY, labels=names)
    assert not changed(flat(same), before) and not notes
    for others in ((*names[1:], names[0]), tuple(f"own {name}" for name in names)):
        after, notes = start_from(source, source.config, KEY, labels=others)
        assert changed(flat(after), before) == {"params/head/kernel", "params/head/bias"}
        assert notes == ["fresh, not in the source: head", "left out: head"]


def test_only_a_fresh_head_gets_the_initial_bias() -> None:
    classes = dataclasses.replace(small_config("vit_mean"), num_classes=5)
    for source, config in (
        ("vit_mean", classes),  # finetuning's head of another size
        ("mae", small_config("vit_mean")),  # none in an autoencoder
    ):
        fresh = flat(start_from(checkpoint(source), config, KEY, FreshStart(-6.3))[0])
        plain = flat(start_from(checkpoint(source), config, KEY)[0])
        assert changed(fresh, plain) == {"params/head/bias"}
        np.testing.assert_array_equal(fresh["params/head/bias"], np.float32(-6.3))
    fresh = flat(fresh_variables(classes, KEY, FreshStart(-6.3)))
    assert changed(fresh, flat(fresh_variables(classes, KEY))) == {"params/head/bias"}
    np.testing.assert_array_equal(fresh["params/head/bias"], np.float32(-6.3))
    # A head that is taken over keeps its own, in a streaming model too.
    taken, _ = start_from(
        checkpoint("vit_mean"), small_config("sat_mean_2s"), KEY, FreshStart(-6.3)
    )
    before = flat(small_weights("vit_mean"))["params/head/bias"]
    np.testing.assert_array_equal(flat(taken)["params/head/bias"], before)


def test_a_cls_token_that_the_source_lacks_or_has_too_much() -> None:
    after, notes = start("sat_mean_2s", small_config("sat_token_2s"))
    assert changed(after, flat(small_weights("sat_mean_2s"))) == {
        "params/cls_token",
        "params/token_pos_embed",
    }
    assert notes == ["fresh, not in the source: cls_token, token_pos_embed"]
    after, notes = start("sat_token_2s", small_config("sat_mean_2s"))
    assert not changed(after, flat(small_weights("sat_token_2s")))
    assert notes == ["left out: cls_token, token_pos_embed"]


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_an_autoencoder_starts_a_clip_model(pooling: str) -> None:
    config = dataclasses.replace(small_config("vit_token"), pooling=pooling)
    after, notes = start("mae", config)
    before = {
        name.replace("/encoder/", "/"): array
        for name, array in flat(small_weights("mae")).items()
        if "/decoder/" not in name
    }
    # The classifier in the published autoencoders' files was never trained: not even its norm.
    head = {f"params/{name}" for name in ("head/kernel", "head/bias")}
    norm = {f"params/head_norm/{name}" for name in ("scale", "bias")}
    assert changed(after, before) == head | norm | {"params/time_pos_embed"}
    lost = ", cls_token, decoder" if pooling == "mean" else ", decoder"
    lost_too = ", token_pos_embed" if pooling == "mean" else ""
    assert sorted(notes) == [
        "fresh, not in the source: head, head_norm",
        f"left out{lost.replace(',', ':', 1)}, head, head_norm{lost_too}",
        "resized: time_pos_embed, 13 to 63",
    ]
    np.testing.assert_array_equal(
        after["batch_stats/input_norm/mean"], before["batch_stats/input_norm/mean"]
    )


def test_an_autoencoder_starts_a_streaming_model() -> None:
    after, notes = start("mae", small_config("sat_token_2s"))
    assert "resized: time_pos_embed, 13 to 24" in notes
    assert after["params/time_pos_embed"].shape == (24, 128)


def test_a_clip_model_starts_an_autoencoder() -> None:
    after, notes = start("vit_mean", mae_config())
    before = {n.replace("/", "/encoder/", 1): x for n, x in flat(small_weights("vit_mean")).items()}
    new = {n for n in changed(after, before) if not n.startswith("params/decoder/")}
    assert new == {
        f"params/encoder/{n}" for n in ("cls_token", "token_pos_embed", "time_pos_embed")
    }
    assert notes == [
        "resized: time_pos_embed, 63 to 13",
        "fresh, not in the source: cls_token, decoder, token_pos_embed",
        "left out: head, head_norm",
    ]


def test_an_autoencoder_starts_one_of_another_length() -> None:
    config = mae_config()
    longer = dataclasses.replace(
        config, encoder=dataclasses.replace(config.encoder, target_length=320)
    )
    after, notes = start("mae", longer)
    before = flat(small_weights("mae"))
    assert changed(after, before) == {
        "params/encoder/time_pos_embed",
        "params/decoder/pos_embed",
    }
    assert sorted(notes) == [
        "left out: head, head_norm",
        "resized: decoder, 53 to 81",
        "resized: time_pos_embed, 13 to 20",
    ]
    old, new = before["params/decoder/pos_embed"], after["params/decoder/pos_embed"]
    np.testing.assert_array_equal(new[0], old[0])
    for row in range(4):
        np.testing.assert_array_equal(
            new[1 + 20 * row : 21 + 20 * row],
            resize_positions(old[1 + 13 * row : 14 + 13 * row], 20),
        )


@pytest.mark.parametrize("change", [{"decoder_depth": 2}, {"decoder_width": 128}])
def test_another_decoder_is_fresh(change: dict[str, int]) -> None:
    config: MaeConfig = dataclasses.replace(mae_config(), **change)  # type: ignore[arg-type]
    after, notes = start("mae", config)
    new = changed(after, flat(small_weights("mae")))
    assert {name.split("/")[1] for name in new} == {"decoder"}
    assert notes == ["fresh, not in the source: decoder", "left out: decoder, head, head_norm"]


def test_a_stream_of_another_length() -> None:
    shorter = dataclasses.replace(small_config("sat_mean_2s"), target_length=96, cache_length=96)
    after, notes = start("sat_mean_2s", shorter)
    assert changed(after, flat(small_weights("sat_mean_2s"))) == {"params/time_pos_embed"}
    assert notes == ["resized: time_pos_embed, 24 to 12"]


def test_another_number_of_mel_bands() -> None:
    config = dataclasses.replace(small_config("vit_mean"), frontend=FrontendConfig(n_mels=128))
    after, notes = start("vit_mean", config)
    assert notes == ["resized: freq_pos_embed, 4 to 8", "fresh, of another size: input_norm"]
    np.testing.assert_array_equal(after["batch_stats/input_norm/mean"], np.zeros(128))
    same = small_config("vit_mean")
    assert copies_input_statistics(same, same) and copies_input_statistics(
        MaeConfig(encoder=same), same
    )
    assert not copies_input_statistics(same, config)
    assert not copies_input_statistics(dataclasses.replace(same, input_norm="fixed"), same)


def test_layer_scale_on_one_side_only() -> None:
    after, notes = start("sat_mean_2s", small_config("sat_ls_2s"))
    assert notes == ["fresh, not in the source: ls1, ls2"]
    np.testing.assert_array_equal(after["params/blocks_1/ls1/gamma"], np.full(128, 0.1, np.float32))
    _, notes = start("sat_ls_2s", small_config("sat_mean_2s"))
    assert notes == ["left out: ls1, ls2"]


def test_the_same_model_takes_all() -> None:
    after, notes = start("sat_token_2s", small_config("sat_token_2s"))
    assert not changed(after, flat(small_weights("sat_token_2s")))
    assert notes == []


@pytest.mark.parametrize("change", [{"width": 192}, {"depth": 3}, {"mlp_ratio": 2.0}])
def test_other_transformers_are_refused(change: dict[str, Any]) -> None:
    config = dataclasses.replace(small_config("sat_mean_2s"), **change)
    (name, value), *_ = change.items()
    with pytest.raises(SatError, match=rf"{name}={value} .*{name}="):
        start_from(checkpoint("vit_mean"), config, KEY)


@pytest.mark.parametrize(("have", "want"), [(12, 24), (12, 13), (63, 64), (1, 5), (13, 63)])
def test_positions_are_stretched_as_pytorch_does(have: int, want: int) -> None:
    embedding = np.random.default_rng(have).standard_normal((have, 6))
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(embedding.T[None]), size=want, mode="linear", align_corners=False
    )
    np.testing.assert_allclose(resize_positions(embedding, want), stretched[0].T, atol=1e-12)
    assert resize_positions(embedding.astype(np.float32), want).dtype == np.float32


@pytest.mark.parametrize(("have", "want"), [(24, 12), (63, 24), (12, 12)])
def test_fewer_positions_are_the_first_ones(have: int, want: int) -> None:
    embedding = np.random.default_rng(have).standard_normal((have, 6))
    np.testing.assert_array_equal(resize_positions(embedding, want), embedding[:want])


def test_glorot_matrices_have_the_variance_of_their_size_and_nothing_else_changes():
    config = MODELS["audiotransformer_xs"]
    plain = flat(fresh_variables(config, KEY))
    scaled = flat(fresh_variables(config, KEY, FreshStart(glorot=True)))
    matrices = {name for name in plain if name.endswith("/kernel")}
    assert changed(scaled, plain) == matrices and len(matrices) > 4 * config.depth
    for name in matrices:
        expected = 2 / sum(scaled[name].shape)
        assert scaled[name].var() == pytest.approx(expected, rel=0.05), name
