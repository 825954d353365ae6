"""Mixed scenes: their sounds are where their events say."""

import collections
import itertools

import numpy as np
import pytest

from projects.box_model.scenes.scenes import NUM_SAMPLES, SoundPicker, active_span, mix_scene
from projects.box_model.tests.scenes.made_up import RATE, SOUNDS, TONES, read_tone, tone
from sat_jax.labels import audioset_labels

NAMES = [label.name for label in audioset_labels()]


def band_levels(samples, hertz):
    """Returns the power around a frequency in each 0.1 s."""
    frames = samples.astype(float).reshape(-1, RATE // 10)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]))) ** 2
    bin_ = round(hertz / 10)
    return spectrum[:, bin_ - 20 : bin_ + 21].sum(1)


def test_events_are_where_the_sounds_are():
    picker = SoundPicker(SOUNDS)
    found = 0
    for number in range(40):
        scene = mix_scene(picker, read_tone, (0, number), vary_speed=False)
        assert scene.samples.shape == (NUM_SAMPLES,) and scene.samples.dtype == np.dtype("<i2")
        for label, hertz in TONES.items():
            levels = band_levels(scene.samples, hertz)
            index = NAMES.index(label)
            spans = [(e.onset, e.offset) for e in scene.events if e.class_index == index]
            times = np.arange(100) / 10
            inside = np.array([any(a <= t and t + 0.1 <= b for a, b in spans) for t in times])
            # Echoes last for most of a second.
            outside = np.array([all(t + 0.1 <= a or t >= b + 1.0 for a, b in spans) for t in times])
            if inside.any():
                found += 1
                assert levels[inside].min() > 30 * np.median(levels[outside])
    assert found > 20


def test_a_scene_depends_on_its_seed_only():
    picker = SoundPicker(SOUNDS)
    first = mix_scene(picker, read_tone, (0, 7), vary_speed=True)
    again = mix_scene(SoundPicker(SOUNDS), read_tone, (0, 7), vary_speed=True)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.events == again.events
    other = mix_scene(picker, read_tone, (0, 8), vary_speed=True)
    assert not np.array_equal(first.samples, other.samples)


def test_events_of_a_class_do_not_overlap_and_have_all_parents():
    picker = SoundPicker(SOUNDS)
    for number in range(60):
        scene = mix_scene(picker, read_tone, (1, number), vary_speed=True)
        by_class = collections.defaultdict(list)
        for event in scene.events:
            assert 0 <= event.onset < event.offset <= 10
            by_class[event.class_index].append((event.onset, event.offset))
        for spans in by_class.values():
            assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
        if NAMES.index("Moo") in by_class:
            assert set(by_class[NAMES.index("Moo")]) == set(by_class[NAMES.index("Animal")])
        assert scene.labels == sorted(by_class)


def test_kinds_of_classes_have_their_shares():
    picker = SoundPicker(SOUNDS)
    rng = np.random.default_rng(0)
    drawn = collections.Counter(picker.pick(rng).label for _ in range(4000))
    # 0.12, 0.24 and 0.52; there is no music.
    assert drawn["Speech"] / 4000 == pytest.approx(0.12 / 0.88, abs=0.02)
    assert drawn["Moo"] / 4000 == pytest.approx(0.52 / 0.88, abs=0.025)


@pytest.mark.parametrize("silence", [0.0, 1e-4])
def test_silence_is_trimmed(silence):
    quiet = np.full(RATE, silence)
    first, last = active_span(np.concatenate([quiet, tone(0.5, 700), quiet]))
    assert abs(first - RATE) <= 320 and abs(last - 1.5 * RATE) <= 320
    assert active_span(np.zeros(100)) == (0, 100)
