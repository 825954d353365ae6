import functools
import xml.etree.ElementTree as ET

import librosa
import numpy as np
import pytest
from matplotlib.image import imread

from sat_jax.plots.recording import plot_recording
from sat_jax.plots.spectrogram import SpectrogramPool
from tests.support.pictures import (
    make_pool,
    make_scores,
)

NAMES = ["Speech", "Trickle, dribble", "Bird vocalization, bird call, bird song", "$x_1$", "w" * 90]


@pytest.fixture
def draw(figure):
    return functools.partial(figure, plot_recording, title="a.wav")


def one_chunk(seconds, probs):
    times = {"start": np.zeros(1), "end": np.array([seconds])}
    return {**times, "probs": np.asarray([probs], np.float32), "mel_range": (0, 8000)}


@pytest.mark.parametrize(
    ("seconds", "step", "num_classes"),
    [(0.16, 0.16, 5), (10.0, 2.0, 5), (10.1, 0.16, 5), (93.7, 93.7, 1), (10_800.0, 2.0, 5)],
)
def test_any_length_is_drawn(tmp_path, seconds, step, num_classes):
    path = tmp_path / "día 日本.png"
    plot_recording(
        path,
        title="día 日本 $x_1$ \udcff\n" * 20,
        spectrogram=make_pool(seconds),
        **make_scores(seconds, step, num_classes),
        labels=NAMES[:num_classes],
    )
    height, width, _ = imread(path).shape
    assert width == 1560
    assert height > 300
    assert path.stat().st_size < 1_500_000
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_silence_is_drawn(tmp_path):
    pool = SpectrogramPool(0.01)
    pool.add(np.full((64, 201), -100.0, np.float32))
    path = tmp_path / "a.png"
    scores = one_chunk(2.0, np.zeros(5))
    plot_recording(path, title="silence", spectrogram=pool, labels=NAMES, **scores)
    assert path.stat().st_size > 1000


def test_strongest_classes_over_their_chunks(draw):
    probs = np.random.default_rng(0).random((6, 30)).astype(np.float32)
    scores = make_scores(10.5, 2.0, num_classes=30) | {"probs": probs}
    labels = [f"class {i}" for i in range(30)]
    upper, _, lower, bar = draw(spectrogram=make_pool(10.5), labels=labels, **scores).axes
    order = sorted(range(30), key=lambda i: -probs[:, i].max())[:8]
    assert [tick.get_text() for tick in lower.get_yticklabels()] == [labels[i] for i in order]
    (mesh,) = [item for item in lower.collections if item.get_array() is not None]
    np.testing.assert_array_equal(mesh.get_array().reshape(8, 6), probs[:, order].T)
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [0, 2, 4, 6, 8, 10, 10.5])
    assert mesh.get_clim() == (0, 1) == bar.get_ylim()
    assert lower.get_ylim() == (8, 0)
    assert upper.get_xlim() == lower.get_xlim() == (0, 10.5)


def test_a_short_event_in_three_hours_keeps_its_strength(draw):
    scores = make_scores(10_800.0, 0.16, num_classes=2)
    scores["probs"] *= 0.1
    scores["probs"][30_000, 1] = 1.0
    axes = draw(spectrogram=make_pool(1.0), labels=["a", "b"], **scores).axes
    (mesh,) = [item for item in axes[2].collections if item.get_array() is not None]
    values, edges = mesh.get_array().reshape(2, -1), mesh.get_coordinates()[0, :, 0]
    (column,) = np.flatnonzero(values[0] == 1.0)
    assert edges[column] <= scores["start"][30_000] < edges[column + 1]
    assert values.shape[1] <= 1000


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 3700.0])
def test_a_tone_lies_at_its_time_and_frequency(draw, hertz):
    time = np.arange(64_000) / 16_000
    tone = np.sin(2 * np.pi * hertz * time) * ((time >= 1) & (time < 2))
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(tone, 256), 512)[::160]
    power = np.abs(np.fft.rfft(frames * np.hanning(512))) ** 2
    bank = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=64, fmax=8000, htk=True, norm=None)
    pool = SpectrogramPool(0.01)
    pool.add(10 * np.log10(bank @ power.T + 1e-10))
    upper = draw(spectrogram=pool, labels=NAMES, **make_scores(4.0, 2.0)).axes[0]
    (image,) = upper.images
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape
    loud = np.array(image.get_array()) > image.get_array().max() - 20
    loud_times = left + (right - left) * np.flatnonzero(loud.any(axis=0)) / columns
    assert loud_times.min() == pytest.approx(1.0, abs=0.03)
    assert loud_times.max() == pytest.approx(2.0, abs=0.03)
    row = image.get_array().max(axis=1).argmax()
    ticks = {
        label.get_text(): tick
        for label, tick in zip(upper.get_yticklabels(), upper.get_yticks(), strict=True)
    }
    place = bottom + (top - bottom) * (row + 0.5) / rows
    expected = np.interp(
        librosa.hz_to_mel(hertz, htk=True),
        librosa.hz_to_mel([float(text) for text in ticks], htk=True),
        list(ticks.values()),
    )
    assert place == pytest.approx(expected, abs=1.5 * (top - bottom) / rows)
    assert ticks["8000"] == pytest.approx(top)


@pytest.mark.parametrize(
    ("seconds", "unit", "last"),
    [
        (0.16, "Time (s)", "0.16"),
        (10.0, "Time (s)", "10"),
        (119.0, "Time (s)", "110"),
        (600.0, "Time (min:s)", "10:00"),
        (3600.0, "Time (h:min)", "1:00"),
        (10_800.0, "Time (h:min)", "3:00"),
        (200_000.0, "Time (h:min)", "54:00"),
    ],
)
def test_time_axis(draw, seconds, unit, last):
    axes = draw(
        spectrogram=make_pool(1.0),
        labels=["x"],
        **one_chunk(seconds, [1.0]),
    ).axes[2]
    texts = [tick.get_text() for tick in axes.get_xticklabels()]
    assert axes.get_xlabel() == unit
    assert texts[-1] == last
    assert 2 <= len(texts) == len(set(texts)) <= 13


def test_vector_pictures(tmp_path):
    for suffix in (".svg", ".PDF"):
        plot_recording(
            tmp_path / f"a{suffix}",
            title="día 日本",
            spectrogram=make_pool(4.0),
            **make_scores(4.0, 2.0),
            labels=NAMES,
        )
    assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.PDF").read_bytes().startswith(b"%PDF")
