"""What tests of pictures draw, and checks of what was drawn."""

import numpy as np

from sat_jax.labels import default_label_names
from sat_jax.plots.clip_timeline import Track
from sat_jax.plots.map_by_delay import Curve, Level
from sat_jax.plots.spectrogram import SpectrogramPool

DELAYS = [0.16, 0.5, 1.0, 2.0, 5.0]
LABELS = default_label_names(527)
ODD_NAME = "día 日本 $x_1$ \udcff\n_" * 9


def make_pool(seconds):
    """Returns a spectrogram of noise."""
    pool = SpectrogramPool(0.01)
    frames = np.random.default_rng(0).random((64, 1 + round(100 * seconds)), np.float32)
    pool.add(120 * frames - 100)
    return pool


def make_scores(seconds, step, num_classes=5):
    """Returns arguments of `plot_recording`: random scores of a recording."""
    start = np.arange(0, seconds - 1e-9, step)
    probs = np.random.default_rng(1).random((len(start), num_classes))
    end = np.minimum(start + step, seconds)
    return {"start": start, "end": end, "probs": probs.astype(np.float32), "mel_range": (0, 8000)}


def make_curves(num_models, num_modes, name="SAT_{}"):
    """Returns arguments of `plot_map_by_delay`."""
    rng = np.random.default_rng(0)
    models, modes = [name.format(i) for i in range(num_models)], range(num_modes)
    curves = [
        Curve(model, f"mode {mode}", DELAYS, list(rng.uniform(0.3, 0.5, len(DELAYS))))
        for model in models
        for mode in modes
    ]
    return curves, [Level(model, "clip", rng.uniform(0.3, 0.5)) for model in models]


def make_classes(count, seed=0):
    """Returns arguments of `plot_class_ap`; some classes have no positives."""
    rng = np.random.default_rng(seed)
    positives = rng.integers(0, 4, count) * rng.integers(1, 9_999, count)
    precision = np.where(positives > 0, rng.random(count), np.nan)
    return {"average_precision": precision, "positives": positives}


def make_track(label, step, seconds=10.0, num_classes=527):
    """Returns random scores of a clip."""
    start = np.arange(0.0, seconds - step + 1e-9, step)
    probs = np.random.default_rng(len(label)).random((len(start), num_classes))
    return Track(label, start, start + step, probs.astype(np.float32))


def texts_of(items):
    """Returns the texts of matplotlib's artists."""
    return [item.get_text().strip() for item in items]
