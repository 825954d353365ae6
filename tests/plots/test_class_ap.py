import numpy as np
import pytest

from sat_jax.plots.class_ap import plot_class_ap
from tests.support.pictures import (
    LABELS,
    make_classes,
    texts_of,
)


def bars_of(axes):
    names, clips = axes.get_yticklabels(), axes.child_axes[0].get_yticklabels()
    return list(
        zip(texts_of(names), [b.get_width() for b in axes.patches], texts_of(clips), strict=True)
    )


@pytest.mark.parametrize("count", [1, 7, 45])
def test_few_classes_are_sorted_bars(figure, count):
    classes = make_classes(count, seed=3)
    measured = [i for i in range(count) if classes["positives"][i]]
    assert 0 < len(measured) <= 40
    (axes,) = figure(
        plot_class_ap, title="T", labels=[f"c{i}" for i in range(count)], **classes
    ).axes
    precision = classes["average_precision"]
    expected = sorted(measured, key=lambda i: -precision[i])
    bars = bars_of(axes)
    assert [name for name, _, _ in bars] == [f"c{i}" for i in expected]
    np.testing.assert_allclose([width for _, width, _ in bars], 100 * precision[expected])
    assert [int(clips) for _, _, clips in bars] == classes["positives"][expected].tolist()
    assert axes.get_ylim() == (len(expected) - 0.5, -0.5)  # The first is on top.
    np.testing.assert_allclose(axes.lines[0].get_xdata(), 100 * np.nanmean(precision))
    missing = count - len(measured)
    assert ("in no clip" in axes.get_title("left")) == bool(missing)


def test_many_classes_are_a_curve_and_bars_of_both_ends(figure):
    classes = make_classes(527)
    curve, best, worst = figure(plot_class_ap, title="T", labels=LABELS, **classes).axes
    precision = 100 * classes["average_precision"]
    ranked = sorted(
        ((p, name) for p, name in zip(precision, LABELS, strict=True) if not np.isnan(p)),
        reverse=True,
    )
    assert 350 < len(ranked) < 450
    line, mean = curve.lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(ranked) + 1))
    np.testing.assert_allclose(line.get_ydata(), [p for p, _ in ranked])
    np.testing.assert_allclose(mean.get_ydata(), np.nanmean(precision))
    for axes, expected in ((best, ranked[:20]), (worst, ranked[-20:])):
        assert [name for name, _, _ in bars_of(axes)] == [name for _, name in expected]
        np.testing.assert_allclose([b[1] for b in bars_of(axes)], [p for p, _ in expected])
    positives = dict(zip(LABELS, classes["positives"].tolist(), strict=True))
    assert all(int(clips) == positives[name] for name, _, clips in bars_of(worst))
