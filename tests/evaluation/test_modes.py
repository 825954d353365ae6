"""Evaluation modes: which options fit together, and their titles."""

import pytest

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.evaluation.modes import Mode, make_modes


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "chunks", "framing": "seamless"}, "chunks"),
        ({"name": "sliding", "delay": 11.0}, "11 s.*10 s"),
        ({"name": "all"}, "all"),
    ],
)
def test_invalid_options(options, named):
    with pytest.raises(SatError, match=named):
        Mode(**options)


def test_every_mode_at_every_delay_once():
    modes = make_modes(["clip", "stream", "clip"], [2.0, 1.0, 2.0], warmup="none")
    assert [mode.title for mode in modes] == [
        "clip",
        "stream, 2 s, no warm-up",
        "stream, 1 s, no warm-up",
    ]


def test_titles():
    mode = Mode(delay=0.5, framing="seamless", warmup="none", aggregation="max")
    assert mode.title == "stream, 0.5 s, seamless, no warm-up, max"
    assert mode.label == "stream, seamless, no warm-up, max"


def test_modes_with_the_same_scores_resolve_to_equal_ones():
    config = ModelConfig(width=64, depth=1, target_length=32, cache_length=32, num_classes=2)
    default, exact = Mode().resolve(config), Mode(delay=1 / 3).resolve(config)
    assert default == exact and default.delay == pytest.approx(1 / 3, abs=1e-4)
    clip = Mode(name="clip").resolve(config)
    assert clip == Mode(name="clip", delay=2.0, warmup="none", buffer=3.0).resolve(config)
    assert Mode(warmup="none").resolve(config) != default
    assert Mode(name="sliding", buffer=1.0).resolve(config) != Mode(name="sliding").resolve(config)
