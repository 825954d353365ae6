"""What all pictures have in common: readable texts, whole files, errors that name the file."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from sat_jax.errors import SatError
from sat_jax.plots.class_ap import plot_class_ap
from sat_jax.plots.clip_timeline import plot_clip_scores
from sat_jax.plots.figures import check_plot
from sat_jax.plots.map_by_delay import Curve, Level, plot_map_by_delay
from sat_jax.plots.recording import plot_recording
from sat_jax.plots.spectrogram import SpectrogramPool
from tests.support.pictures import (
    DELAYS,
    LABELS,
    ODD_NAME,
    make_classes,
    make_curves,
    make_pool,
    make_scores,
    make_track,
)

NAMES = ["Speech", "Trickle, dribble", "Bird vocalization, bird call, bird song", "$x_1$", "w" * 90]


def crowded():
    """Returns calls whose pictures are as full as they get."""
    name = "a_long_name_of_a_checkpoint_that_nobody_shortened_{}"
    pool = make_pool(10.0)
    tracks = [make_track(name.format(i) + ", stream, 2 s", DELAYS[i % 5]) for i in range(9)]
    longest = sorted(range(527), key=lambda i: -len(LABELS[i]))
    few = {"average_precision": np.linspace(0, 1, 40), "positives": np.full(40, 20_000)}
    perfect = {"average_precision": np.ones(527), "positives": np.full(527, 20_000)}
    clip = {"title": ODD_NAME, "spectrogram": pool, "labels": LABELS}
    curves, levels = make_curves(3, 3, name)
    near = [Curve(ODD_NAME, "", [0.16, 0.5, 0.96, 1.0, 1.02, 1.92, 2.0], np.linspace(0, 1, 7))]
    recording = {"title": ODD_NAME, "spectrogram": pool, "labels": NAMES}
    return {
        "map": (plot_map_by_delay, (curves, levels), {}),
        "nine": (plot_map_by_delay, make_curves(9, 1, name), {}),
        "near": (plot_map_by_delay, (near,), {}),
        "many": (plot_class_ap, (), {"title": ODD_NAME, "labels": LABELS, **make_classes(527)}),
        "perfect": (
            plot_class_ap,
            (),
            {"title": ODD_NAME, "labels": LABELS, **perfect},
        ),
        "few": (
            plot_class_ap,
            (),
            {"title": ODD_NAME, "labels": [LABELS[i] for i in longest[:40]], **few},
        ),
        "one": (
            plot_class_ap,
            (),
            {"title": ODD_NAME, "labels": [ODD_NAME], **make_classes(1, seed=3)},
        ),
        "clip": (plot_clip_scores, (), {**clip, "tracks": tracks, "classes": longest[:8]}),
        "hour": (plot_recording, (), {**recording, **make_scores(3600.0, 300.0)}),
        "short": (plot_recording, (), {**recording, **make_scores(0.16, 0.16 / 12)}),
        "small": (plot_clip_scores, (), {**clip, "tracks": tracks[:1], "classes": [0]}),
    }


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("name", crowded())
def test_no_text_overlaps_or_leaves_the_picture(figure, name, monkeypatch):
    plot, arguments, options = crowded()[name]
    drawn = figure(plot, *arguments, **options)
    texts = []
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, *args: (texts.append(self), draw(self, *args)))
    drawn.draw_without_rendering()
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    boxes = {text: text.get_window_extent() for text in shown}
    assert len(boxes) > 8
    for text, other in itertools.combinations(boxes, 2):
        assert not boxes[text].overlaps(boxes[other]), (text, other)
    for text, box in boxes.items():
        assert drawn.bbox.contains(*box.min), text
        assert drawn.bbox.contains(*box.max), text
    for legend, axes in itertools.product(drawn.legends, drawn.axes):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.parametrize("name", ["near", "one", "small", "short"])
def test_files_appear_whole(tmp_path, name):
    plot, arguments, options = crowded()[name]
    path = tmp_path / "día.png"
    path.write_bytes(b"old")
    plot(path, *arguments, **options)
    height, width, _ = imread(path).shape
    assert width >= 1300
    assert height > 200
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["near", "one", "small", "short"])
def test_paths_that_cannot_be_written_are_named(tmp_path, name):
    plot, arguments, options = crowded()[name]
    for path in (tmp_path / "no" / "a.png", tmp_path / "a.bmp"):
        with pytest.raises(SatError, match=re.escape(str(path))):
            plot(path, *arguments, **options)


@pytest.mark.parametrize("path", ["a.jpeg2", "a"])
def test_unknown_file_types(path):
    with pytest.raises(SatError, match=rf"{path}.*\.png"):
        check_plot(path)


def test_nothing_to_draw(tmp_path):
    path, pool, track = tmp_path / "a.png", make_pool(1.0), make_track("a", 0.5, seconds=1.0)
    unscored = make_track("a", 2.0, seconds=1.0)
    no_positives = {"average_precision": np.full(2, np.nan), "positives": np.zeros(2, int)}
    for curves, levels in (([], []), ([Curve("T", "", [1.0], [None])], [Level("T", "", None)])):
        with pytest.raises(SatError, match=re.escape(str(path))):
            plot_map_by_delay(path, curves, levels)
    with pytest.raises(SatError, match=re.escape(str(path))):
        plot_class_ap(path, title="T", labels=["a", "b"], **no_positives)
    for tracks, classes, spectrogram in (
        ([], [0], pool),
        ([unscored], [0], pool),
        ([track], [], pool),
        ([track], [0], SpectrogramPool(0.01)),
    ):
        with pytest.raises(SatError, match=re.escape(str(path))):
            plot_clip_scores(
                path,
                title="T",
                spectrogram=spectrogram,
                tracks=tracks,
                labels=LABELS,
                classes=classes,
            )
    for spectrogram, scores in (
        (pool, make_scores(0.0, 2.0)),
        (SpectrogramPool(0.01), make_scores(2.0, 2.0)),
    ):
        with pytest.raises(SatError, match=re.escape(str(path))):
            plot_recording(path, title="T", spectrogram=spectrogram, labels=NAMES, **scores)
    assert not any(tmp_path.iterdir())


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_without_matplotlib():
    code = """
import sys
sys.modules["matplotlib"] = None
from sat_jax.errors import SatError
from sat_jax.plots.figures import check_plot
try:
    check_plot("a.png")
except SatError as error:
    print(error)
"""
    assert "sat-jax[plot]" in run_python(code)


def test_matplotlib_is_imported_late_and_pyplot_never(tmp_path):
    code = """
import sys
from sat_jax.plots.class_ap import plot_class_ap
from sat_jax.plots.clip_timeline import plot_clip_scores
from sat_jax.plots.map_by_delay import Level, plot_map_by_delay
from sat_jax.plots.recording import plot_recording
assert "matplotlib" not in sys.modules
plot_map_by_delay(sys.argv[1], [], [Level("T", "clip", 0.4)])
assert "matplotlib.pyplot" not in sys.modules
"""
    run_python(code, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
