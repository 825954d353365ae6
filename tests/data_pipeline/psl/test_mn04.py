"""The teacher mn04 against PyTorch: front end, network, weights file, command, the real model."""

import hashlib
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
import soxr
import torch

from data_pipeline.psl import mn04
from data_pipeline.psl.mobilenet import read_network
from data_pipeline.psl.state_dict import read_state_dict
from data_pipeline.psl.table import read_psl
from sat_jax.labels import audioset_labels
from sat_jax.weights.pinned_file import PinnedFile
from tests.support.mobilenet_reference import log_mel, random_mobilenet
from tests.support.programs import run_command

RATE = 16_000
REAL_WEIGHTS = mn04.WEIGHTS.path  # Before a test gets a cache folder of its own.
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def model():
    return random_mobilenet()


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.save(model.state_dict(), path)
    return path


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (samples * np.linspace(0.01, 0.5, len(samples))).astype(np.float32)


@torch.no_grad()
def probs_of(model, samples):
    padded = np.pad(samples, (0, max(0, RATE - len(samples))))
    return torch.sigmoid(model(log_mel(soxr.resample(padded, RATE, 32_000))))[0].numpy()


def test_front_end_equals_pytorch():
    samples = noise(1.37)
    sound, num_frames = mn04.padded_sound(samples)
    expected = log_mel(soxr.resample(samples, RATE, 32_000))[0, 0].numpy()
    assert expected.shape == (128, num_frames)
    ours = np.asarray(mn04.log_mel(sound))
    np.testing.assert_allclose(ours[:, :num_frames], expected, atol=2e-4)
    assert ours.shape == (128, 150) and np.ptp(expected) > 1


def test_state_dict_is_read_without_torch(model, weights):
    ours, theirs = read_state_dict(weights), model.state_dict()
    assert list(ours) == list(theirs) and len(ours) == 312
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.0, 1.37])
def test_scores_equal_pytorch(model, weights, seconds):
    scorer = mn04.Mn04Scorer(read_network(read_state_dict(weights)))
    samples = noise(seconds)
    [(key, probs)] = scorer.score([("key", samples)])
    assert (key, probs.dtype, probs.shape) == ("key", np.float32, (527,))
    expected = probs_of(model, samples)
    np.testing.assert_allclose(probs, expected, atol=1e-3)
    assert np.ptp(expected) > 0.2


def test_modes_of_the_caller_stay_between_scores(weights):
    scorer = mn04.Mn04Scorer(read_network(read_state_dict(weights)))
    with jax.debug_nans(True):
        for _ in scorer.score([("key", noise(1.0))]):
            assert jax.config.jax_debug_nans


def pin(monkeypatch, path):
    """Puts a file in the cache by hand, as the one with the weights."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    pinned = PinnedFile("http://127.0.0.1:9/none/weights.pt", len(data), sha256)
    pinned.path.parent.mkdir(parents=True)
    pinned.path.write_bytes(data)
    monkeypatch.setattr(mn04, "WEIGHTS", pinned)


@pytest.mark.parametrize("flags", [[], ["--clip_context"]])
def test_command_labels_windows(model, weights, tmp_path, monkeypatch, flags):
    pin(monkeypatch, weights)
    samples = noise(1.42, seed=1)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    (tmp_path / "clips.csv").write_text("file,labels\na.wav,")
    flags = [*flags, f"--clips={tmp_path / 'clips.csv'}", "--window=1", "--hop=0.4", "--top_k=527"]
    assert run_command("psl", "-m", "mn04", *flags, f"--output={tmp_path / 'psl.parquet'}") == 0
    expected = np.stack([probs_of(model, samples[first:][:RATE]) for first in (0, 2 * RATE // 5)])
    if "--clip_context" in flags:
        whole = probs_of(model, samples)
        odds = np.sqrt(expected / (1 - expected) * (whole / (1 - whole)))
        expected = odds / (1 + odds)
    targets = read_psl([tmp_path / "psl.parquet"], ["a.wav"]).targets(np.arange(2), 527)
    np.testing.assert_allclose(targets, expected, atol=1e-3)


def test_a_damaged_file_is_one_line(weights, tmp_path, monkeypatch, capsys):
    pin(monkeypatch, weights)
    path = mn04.WEIGHTS.path
    data = bytearray(path.read_bytes())
    data[2_000_000] ^= 1
    path.write_bytes(data)
    (tmp_path / "clips.csv").write_text("file,labels\na.wav,")
    flags = [f"--clips={tmp_path / 'clips.csv'}", f"--output={tmp_path / 'psl.parquet'}"]
    assert run_command("psl", "-m", "mn04", *flags) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(path) in line and "delete it" in line


# The three strongest classes of each whole example, computed with PyTorch.
REAL_SCORES = {
    "bells": {"Music": 0.5536, "Ding-dong": 0.2331, "Synthesizer": 0.0978},
    "choir": {"Music": 0.2815, "Mantra": 0.2142, "Chant": 0.1217},
    "concert": {"Cello": 0.5271, "Music": 0.3973, "Bowed string instrument": 0.3810},
}


@pytest.mark.parametrize("name", REAL_SCORES)
def test_real_scores_are_the_stored_ones(name):
    if not REAL_WEIGHTS.is_file():
        pytest.skip(f"needs the teacher's weights, downloaded to {REAL_WEIGHTS}")
    samples, rate = soundfile.read(EXAMPLES / f"{name}.flac", dtype="float32", always_2d=True)
    samples = soxr.resample(samples.mean(axis=1), rate, RATE)
    [(_, probs)] = mn04.Mn04Scorer(read_network(read_state_dict(REAL_WEIGHTS))).score(
        [(name, samples)]
    )
    names = [label.name for label in audioset_labels()]
    strongest = {names[i]: float(probs[i]) for i in np.argsort(-probs)[:3]}
    assert strongest == pytest.approx(REAL_SCORES[name], abs=1e-3)
