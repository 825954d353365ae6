"""Training objectives, compared with the published code's numbers, PyTorch, clips and streams."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from sat_jax.config import ModelConfig
from sat_jax.convert.weight_table import to_torch
from sat_jax.errors import SatError
from sat_jax.models.cache import init_cache
from sat_jax.models.frontend import log_mel
from sat_jax.models.transformer import AudioTransformer, init_variables
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.training.augment import AugmentConfig
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.objectives import make_objective
from tests.support.golden_models import clip, mae_config, numbers, small_config, small_weights

KEY = jax.random.key(1)
SMALL = ModelConfig(width=64, depth=1, target_length=32, cache_length=32, num_classes=5)
ONE_CHUNK = 32 * 160 - 160  # Samples of a chunk of 32 frames.


def objective_of(model, **fields):
    fields = {"optimizer": OptimizerConfig(learning_rate=0.1)} | fields
    return make_objective(TrainConfig(model=model, num_steps=1, **fields))


def tensors(config, collection, tree):
    """Returns arrays under PyTorch's names."""
    return to_torch({collection: tree}, config)


@pytest.fixture(scope="module")
def golden_step():
    """Returns loss, outputs and gradients of the golden batch."""
    config, variables = small_config("sat_mean_2s"), small_weights("sat_mean_2s")
    waves = numbers("frontend")
    names = ("wave_noise", "wave_chirp", "wave_burst")
    waveform = np.stack([*(waves[name][:64_000] for name in names), clip()[:64_000]])
    batch = {"waveform": waveform, "target": numbers("train_step")["target"]}
    (loss, outputs), grads = jax.jit(jax.value_and_grad(objective_of(config), has_aux=True))(
        variables["params"], variables["batch_stats"], batch, KEY
    )
    return config, loss, outputs, grads


def test_probabilities_and_loss_are_the_published_ones(golden_step):
    _, loss, outputs, _ = golden_step
    expected = numbers("train_step")
    np.testing.assert_allclose(outputs.probs, expected["pred"], atol=1e-4)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)


def test_every_gradient_is_the_published_one(golden_step):
    config, _, _, grads = golden_step
    expected = numbers("train_step")
    ours = tensors(config, "params", grads)
    assert {f"grad/{name}" for name in ours} == {n for n in expected if n.startswith("grad/")}
    for name, grad in ours.items():
        want = expected[f"grad/{name}"]
        scale = np.abs(want).max()
        np.testing.assert_allclose(grad, want, atol=1e-3 * scale, err_msg=name)


def test_running_statistics_are_the_published_ones(golden_step):
    config, _, outputs, _ = golden_step
    expected = numbers("train_step")
    ours = tensors(config, "batch_stats", outputs.batch_stats)
    np.testing.assert_allclose(
        ours["init_bn.1.running_mean"], expected["running_mean_after"], rtol=1e-5
    )
    # Flax's biased variance would be ten times further away.
    np.testing.assert_allclose(
        ours["init_bn.1.running_var"], expected["running_var_after"], rtol=1e-5
    )


@pytest.fixture(scope="module")
def variables():
    """Returns weights of `SMALL`, and statistics as after some training."""
    fresh = jax.jit(init_variables, static_argnums=0)(SMALL, jax.random.key(0))
    return fresh | {"batch_stats": jax.tree.map(lambda x: x + 0.3, fresh["batch_stats"])}


def noise(num_samples):
    rng = np.random.default_rng(0)
    return 0.1 * rng.standard_normal((2, num_samples)).astype(np.float32)


def outputs_of(model, variables, waveform, **fields):
    """Returns the outputs of the objective."""
    batch = {"waveform": waveform, "target": np.ones((len(waveform), 5), np.float32)}
    stats = variables["batch_stats"] if model.input_norm == "batch" else {}
    objective = jax.jit(objective_of(model, **fields))
    return objective(variables["params"], stats, batch, KEY)[1]


def test_running_variance_of_a_short_batch_is_that_of_pytorch(variables):
    waveform = noise(2560)  # 2 x 17 frames: a wrong number of values would show.
    norm = torch.nn.BatchNorm1d(64, momentum=0.01)
    norm.running_mean += 0.3
    norm.running_var += 0.3
    norm(torch.tensor(np.asarray(log_mel(waveform, SMALL.frontend))))
    stats = outputs_of(SMALL, variables, waveform).batch_stats["input_norm"]
    np.testing.assert_allclose(stats["mean"], norm.running_mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], norm.running_var, rtol=1e-4)


def test_logit_models_are_trained_on_probabilities(variables):
    logit = dataclasses.replace(SMALL, pooling="logit")
    waveform = noise(2 * ONE_CHUNK)
    np.testing.assert_allclose(
        outputs_of(logit, variables, waveform).probs,
        outputs_of(SMALL, variables, waveform).probs,
        rtol=1e-5,
    )


def test_training_with_silence_in_the_cache_equals_a_warm_stream(variables):
    config = dataclasses.replace(SMALL, input_norm="fixed")  # No statistics of the batch.
    waveform = noise(ONE_CHUNK)
    warm = outputs_of(config, variables, waveform, silence_share=1.0)
    cold = outputs_of(config, variables, waveform)
    assert cold.batch_stats == {}
    streams = StreamingModel(config, make_framing(config, chunk_seconds=0.31))
    weights = {"params": variables["params"]}
    probs, _ = streams.step(weights, waveform, streams.init(weights, 2, warmup="silence"))
    np.testing.assert_allclose(warm.probs, probs, atol=2e-6)
    assert np.abs(cold.probs - probs).max() > 1e-4


def test_a_share_of_the_examples_starts_after_silence(variables):
    config = dataclasses.replace(SMALL, input_norm="fixed")
    waveform = np.repeat(noise(ONE_CHUNK)[:1], 16, axis=0)
    mixed, warm, cold = (
        outputs_of(config, variables, waveform, silence_share=share).probs
        for share in (0.5, 1.0, 0.0)
    )
    is_warm = np.abs(mixed - cold).max(1) > 1e-5
    assert 2 < is_warm.sum() < 14
    np.testing.assert_allclose(mixed, np.where(is_warm[:, None], warm, cold), atol=1e-6)


def test_a_masked_spectrogram_is_one_of_means(variables):
    """So many masks leave nothing. They come after the norm, where the mean is 0."""
    hidden = AugmentConfig(time_masks=300, time_mask_frames=32)
    outputs = outputs_of(SMALL, variables, noise(ONE_CHUNK), augment=hidden)
    nothing, cache = np.zeros((2, 64, 32), np.float32), init_cache(SMALL, 2, "kv")
    probs, _ = AudioTransformer(SMALL).apply(variables, nothing, cache)
    np.testing.assert_allclose(outputs.probs, probs, atol=2e-6)
    # The statistics are those of the sound all the same.
    plain = outputs_of(SMALL, variables, noise(ONE_CHUNK))
    jax.tree.map(np.testing.assert_array_equal, outputs.batch_stats, plain.batch_stats)


def test_mixup_mixes_sounds_and_their_targets(variables):
    def run(waveform, target, **augment):
        fields = {"frozen_input_norm": True, "augment": AugmentConfig(**augment)}
        batch = {"waveform": waveform, "target": target}
        loss, outputs = jax.jit(objective_of(SMALL, **fields))(
            variables["params"], variables["batch_stats"], batch, KEY
        )
        probs = np.array(outputs.probs)
        of_target = torch.nn.functional.binary_cross_entropy(*map(torch.tensor, (probs, target)))
        return float(loss), probs, of_target.item()

    sounds, same = noise(ONE_CHUNK), np.repeat(noise(ONE_CHUNK)[:1], 2, axis=0)
    targets = np.float32([[0, 1, 1, 1, 0], [1, 0, 1, 1, 1]])
    _, unmixed, _ = run(sounds, targets)
    loss, probs, of_target = run(sounds, np.repeat(targets[:1], 2, axis=0), mixup=1.0)
    assert np.abs(probs - unmixed).max(1).min() > 1e-5
    np.testing.assert_allclose(loss, of_target, rtol=1e-5)
    _, unmixed, _ = run(same, targets)
    loss, probs, of_target = run(same, targets, mixup=1.0)
    np.testing.assert_allclose(probs, unmixed, atol=1e-6)
    assert abs(loss - of_target) > 1e-4


def test_gains_are_heard(variables):
    waveform = noise(ONE_CHUNK)
    config = dataclasses.replace(SMALL, input_norm="fixed")
    plain, flipped, louder = (
        outputs_of(config, variables, waveform, augment=AugmentConfig(**fields)).probs
        for fields in ({}, {"flip_polarity": True}, {"gain_db": 20.0})
    )
    np.testing.assert_allclose(flipped, plain, atol=1e-6)
    assert np.abs(louder - plain).max() > 1e-5


def test_a_frozen_input_norm_equals_clip_mode_and_stays(variables):
    waveform = noise(ONE_CHUNK)
    frozen, free = (
        outputs_of(SMALL, variables, waveform, frozen_input_norm=is_frozen)
        for is_frozen in (True, False)
    )
    probs = StreamingModel(SMALL, make_framing(SMALL)).clip(variables, waveform)
    np.testing.assert_allclose(frozen.probs, probs, atol=2e-6)
    jax.tree.map(np.testing.assert_array_equal, frozen.batch_stats, variables["batch_stats"])
    assert np.abs(free.probs - probs).max() > 1e-4


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"frozen_input_norm": True}, "frozen_input_norm=True"),
        ({"silence_share": 0.5}, "silence_share=0.5"),
        ({"optimizer": OptimizerConfig(learning_rate=1.0, layer_decay=0.5)}, "layer_decay=0.5"),
    ],
)
def test_settings_of_taggers_are_refused_for_autoencoders(fields, value):
    with pytest.raises(SatError, match=value):
        objective_of(mae_config(), **fields)
