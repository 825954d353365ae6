"""Figures that are drawn but not saved."""

import pytest

from sat_jax.plots import class_ap, clip_timeline, map_by_delay, recording


@pytest.fixture
def figure(monkeypatch):
    """Returns a function that calls a plot and returns its figure instead of saving it."""

    def draw(plot, *arguments, **options):
        saved = []
        for module in (class_ap, clip_timeline, map_by_delay, recording):
            monkeypatch.setattr(module, "save_figure", lambda figure, path: saved.append(figure))
        plot("a.png", *arguments, **options)
        (figure,) = saved
        figure.draw_without_rendering()
        return figure

    return draw
