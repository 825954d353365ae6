"""The published scores, number by number, on small and full-size models."""

import functools

import jax
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.models.cache import init_cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.mae import MaskedAutoencoder
from sat_jax.models.registry import MODELS
from sat_jax.models.transformer import AudioTransformer, flatten_grid
from sat_jax.streaming import ModelState, StreamingModel, make_framing
from sat_jax.streaming.pieces import normalize
from sat_jax.training.losses import mae_loss
from sat_jax.weights.catalog import num_parameters
from tests.support.golden_models import (
    SATS,
    SMALL,
    VITS,
    clip,
    full_size,
    mae_config,
    numbers,
    small_config,
    small_weights,
)

TOLERANCE = {"mean": 1e-4, "token": 1e-4, "dm": 1e-4, "logit": 1e-3}


def published(config: ModelConfig, probs: jax.Array) -> np.ndarray:
    """Returns what the golden files hold: probabilities, or logits of models that pool to them."""
    if config.pooling != "logit":
        return np.asarray(probs)
    probs = np.asarray(probs, np.float64)
    return np.log(probs) - np.log1p(-probs)


def stream(
    config: ModelConfig,
    variables: object,
    *,
    seconds: float,
    count: int,
    warmup: str,
    cache_form: str = "kv",
) -> tuple[np.ndarray, ModelState]:
    """Returns scores [k, y] of the golden recording's first chunks, and the state after them."""
    framing = make_framing(config, "chunk", chunk_seconds=seconds)
    streams = StreamingModel(config, framing)
    state = streams.init(variables, 1, warmup=warmup, cache_form=cache_form)
    samples = clip()[: count * framing.hop].reshape(count, 1, framing.hop)
    probs, state = streams.scan(variables, samples, state)
    return published(config, probs)[:, 0], state


def whole(config: ModelConfig, variables: object, wave: np.ndarray, **options: str) -> np.ndarray:
    """Returns scores [y] of a recording in clip mode."""
    streams = StreamingModel(config, make_framing(config))
    return published(config, streams.clip(variables, wave[None], **options))[0]


@pytest.mark.parametrize(
    ("name", "cache_form"),
    [
        *((name, "kv") for name in SATS),
        ("sat_mean_2s", "tokens"),
        ("sat_token_2s", "tokens"),
        *(
            pytest.param(name, "tokens", marks=pytest.mark.slow)
            for name in SATS
            if name not in ("sat_mean_2s", "sat_token_2s")
        ),
    ],
)
def test_stream_mode(name: str, cache_form: str) -> None:
    config, variables, golden = small_config(name), small_weights(name), numbers(name)
    run = functools.partial(stream, config, variables, cache_form=cache_form)
    tolerance, seconds = TOLERANCE[config.pooling], config.target_length / 96
    for warmup, key in (("silence", "stream_primed"), ("none", "stream_unprimed")):
        want = golden[key]
        have, state = run(seconds=seconds, count=len(want), warmup=warmup)
        np.testing.assert_allclose(have, want, atol=tolerance)
        if warmup == "silence" and cache_form == "tokens":
            cache = np.stack([past.tokens for past in state.cache.past])
            np.testing.assert_allclose(cache, golden["stream_primed_cache"], atol=1e-3)
    if "stream_160ms" in golden:
        want = golden["stream_160ms"]
        have, _ = run(seconds=0.16, count=len(want), warmup="silence")
        np.testing.assert_allclose(have, want, atol=tolerance)


@pytest.mark.parametrize("name", SATS)
def test_clip_mode(name: str) -> None:
    variables, golden = small_weights(name), numbers(name)
    tolerance = TOLERANCE[SMALL[name]["pooling"]]
    for pad_last, aggregation, key in (
        (False, "mean", "clip_mean"),
        (False, "max", "clip_max"),
        (False, "last", "clip_last"),
        (True, "mean", "clip_mean_padlast"),
    ):
        config = small_config(name, pad_last=pad_last)
        have = whole(config, variables, clip(), aggregation=aggregation)
        np.testing.assert_allclose(have, golden[key], atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", SATS)
def test_features_of_the_first_chunk(name: str) -> None:
    config, variables = small_config(name), small_weights(name)
    model = AudioTransformer(config)

    @jax.jit
    def features(variables: object, wave: np.ndarray) -> jax.Array:
        pieces = normalize(model, variables, log_mel(wave, config.frontend))
        grid = model.apply(variables, pieces[..., : config.target_length], method="embed")
        tokens = model.apply(variables, flatten_grid(grid), method="prepend_cls")
        return model.apply(variables, tokens, init_cache(config, 1, "kv"), method="encode")[0]

    have = features(variables, clip()[None, : config.target_length * 16000 // 96])
    np.testing.assert_allclose(have[0], numbers(name)["features_first_chunk"], atol=1e-3)


@pytest.mark.parametrize("name", VITS)
def test_clip_models(name: str) -> None:
    config, variables, golden = small_config(name), small_weights(name), numbers(name)
    tolerance = TOLERANCE[config.pooling]
    for wave, key in ((clip(), "clip_full"), (np.tile(clip(), 2), "clip_long")):
        have = whole(config, variables, wave)
        np.testing.assert_allclose(have, golden[key], atol=tolerance, err_msg=key)
    for seconds in (2.0, 1.0, 0.16):
        want = golden[f"chunks_{seconds}"]
        have, _ = stream(config, variables, seconds=seconds, count=len(want), warmup="none")
        np.testing.assert_allclose(have, want, atol=tolerance, err_msg=str(seconds))


def test_masked_autoencoder() -> None:
    golden, config = numbers("mae"), mae_config()
    spectrogram = log_mel(golden["wave"], config.encoder.frontend)
    apply = jax.jit(MaskedAutoencoder(config).apply)
    prediction, target, mask = apply(small_weights("mae"), spectrogram, golden["noise"])
    np.testing.assert_allclose(prediction, golden["pred"], atol=1e-3)
    np.testing.assert_allclose(target, golden["target"], atol=2e-3)
    np.testing.assert_array_equal(mask, golden["mask"])
    for key, normalize_target in (("loss_norm", True), ("loss_raw", False)):
        loss = mae_loss(prediction, target, mask=mask, normalize_target=normalize_target)
        np.testing.assert_allclose(loss, golden[key], rtol=1e-5)


# The registry's names in the order of their size: the small ones always run.
@pytest.mark.parametrize(
    "name",
    [
        "SAT_T_2s",
        "SAT_T_1s",
        "audiotransformer_tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in MODELS
            if "_XS_" not in name and "_xs" not in name and "_T_" not in name and "tiny" not in name
        ),
    ],
)
def test_full_size(name: str) -> None:
    config, variables = full_size(name)
    seconds = 1.0 if name.endswith("_1s") else 2.0
    have, _ = stream(config, variables, seconds=seconds, count=5, warmup="silence")
    np.testing.assert_allclose(have, numbers("full_size")[name], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("audiotransformer_tiny", 5.50),
        ("audiotransformer_small", 21.62),
        ("audiotransformer_base", 85.71),
        ("SAT_T_2s", 5.496),
        ("SAT_S_2s", 21.61),
        ("SAT_B_2s", 85.68),
        ("SAT_T_1s", 5.493),
        ("SAT_B_1s", 85.67),
        ("SAT_S_1s", 21.61),
    ],
)
def test_parameter_counts(name: str, millions: float) -> None:
    have = num_parameters(name) / 1e6
    digits = 3 if millions < 10 and name.startswith("SAT") else 2
    assert round(have, digits) == millions


@pytest.mark.parametrize("name", ["audiotransformer_xs", "SAT_XS_2s", "SAT_XS_1s"])
def test_extra_small_models_are(name: str) -> None:
    assert num_parameters(name) <= 2_000_000
