"""Validation of padded batches, compared with each clip alone."""

import dataclasses
import functools
from functools import partial

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.frontend import log_mel
from sat_jax.models.mae import MaskedAutoencoder
from sat_jax.models.transformer import AudioTransformer
from sat_jax.runtime.sharding import make_mesh
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.training.losses import mae_loss
from sat_jax.training.validation import make_validator, mean_probs
from sat_jax.weights.warm_start import fresh_variables

SAT = ModelConfig(width=64, depth=1, target_length=32, cache_length=32, num_classes=3)
LENGTHS = (16_000, 5_200, 9_990, 16_000, 12_000)


@functools.cache
def weights(config):
    return jax.jit(fresh_variables, static_argnums=0)(config, jax.random.key(0))


def noise(num_samples, seed):
    wave = np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)
    return 0.1 * wave * np.linspace(0.1, 1, num_samples, dtype=np.float32)


def alone_probs(config, variables, wave):
    return StreamingModel(config, make_framing(config)).clip(variables, wave[None])[0]


def padded(lengths=LENGTHS):
    waves = [noise(length, seed) for seed, length in enumerate(lengths)]
    return waves, np.stack([np.pad(wave, (0, max(lengths) - len(wave))) for wave in waves])


@pytest.mark.parametrize("fields", [{}, {"pooling": "logit"}, {"cache_length": 0}])
def test_padded_clips_score_as_they_do_alone(fields):
    config = dataclasses.replace(SAT, **fields)
    model, variables = AudioTransformer(config), weights(config)
    waves, batch = padded()
    together = jax.jit(partial(mean_probs, model))(variables, batch, np.array(LENGTHS))
    for wave, probs in zip(waves, together, strict=True):
        if config.pooling == "logit" and len(wave) > 5_200:
            # Validation averages probabilities like training; clip mode averages logits.
            continue
        alone = alone_probs(config, variables, wave)
        np.testing.assert_allclose(probs, alone, atol=2e-6)


def test_a_short_last_piece_counts_if_the_model_pads_it():
    config = dataclasses.replace(SAT, pad_last=True, cache_length=0)
    model, variables = AudioTransformer(config), weights(config)
    wave = noise(12_000, 3)  # 76 frames: two pieces of 32 and one of 12.
    alone = alone_probs(config, variables, wave)
    padded_probs = jax.jit(partial(mean_probs, model))(
        variables, np.pad(wave, (0, 4_000))[None], np.array([12_000])
    )
    np.testing.assert_allclose(padded_probs[0], alone, atol=2e-6)


def test_only_real_clips_count_in_map():
    variables = weights(SAT)
    waves, batch = padded()
    target = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    validate = make_validator(SAT, make_mesh())

    def batches():
        for rows in ([0, 1, 2], [3, 4, 0]):
            yield {
                "waveform": batch[rows],
                "num_samples": np.array(LENGTHS, np.int32)[rows],
                "is_real": np.array([True, True, rows[-1] != 0]),
                "target": target[rows],
            }

    numbers = validate(variables, batches())
    scores = np.stack([alone_probs(SAT, variables, wave) for wave in waves])
    expected = np.mean([average_precision_score(target[:, y], scores[:, y]) for y in range(3)])
    assert numbers["clips"] == 5
    np.testing.assert_allclose(numbers["mAP"], expected, rtol=1e-6)
    assert numbers["score"] == numbers["mAP"]


def test_the_score_of_an_autoencoder_is_its_negative_loss():
    encoder = dataclasses.replace(SAT, cache_length=0, target_length=96)
    config = MaeConfig(encoder=encoder, decoder_width=64, decoder_depth=1)
    variables = weights(config)
    wave = np.stack([noise(16_000, 0), noise(16_000, 1)])
    batch = {
        "waveform": wave,
        "num_samples": np.full(2, 16_000, np.int32),
        "is_real": np.array([True, False]),
    }
    validate = make_validator(config, make_mesh())
    numbers = validate(variables, [batch])
    assert numbers == validate(variables, [batch])  # The same patches are masked each time.
    spectrogram = log_mel(wave, encoder.frontend)
    noise_of_patches = jax.random.uniform(jax.random.key(0), (2, 4 * 6))
    prediction, target, mask = jax.jit(MaskedAutoencoder(config).apply)(
        variables, spectrogram, noise_of_patches
    )
    loss = mae_loss(prediction[:1], target[:1], mask=mask[:1], normalize_target=True)
    np.testing.assert_allclose(numbers["validation_loss"], loss, rtol=1e-5)
    assert numbers["score"] == -numbers["validation_loss"]


def test_no_clips_are_an_error():
    with pytest.raises(SatError, match="validation clips"):
        make_validator(SAT, make_mesh())(weights(SAT), [])
