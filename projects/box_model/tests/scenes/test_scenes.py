"""Mixed scenes: their sounds are where their events say, and sounds of a place come again."""

import collections
import itertools

import numpy as np

from projects.box_model.scenes.places import Place, read_places
from projects.box_model.scenes.scenes import NUM_SAMPLES, Mixer, is_related
from projects.box_model.scenes.sounds import with_parents
from projects.box_model.tests.scenes.made_up import RATE, SOUNDS, TONES, read_tone
from sat_jax.labels import audioset_labels

NAMES = [label.name for label in audioset_labels()]


def mixer(split="train"):
    return Mixer(split, SOUNDS, read_places(), read_tone)


def band_levels(samples, hertz):
    """Returns the power around a frequency in each 0.1 s."""
    frames = samples.astype(float).reshape(-1, RATE // 10)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]))) ** 2
    bin_ = round(hertz / 10)
    return spectrum[:, bin_ - 20 : bin_ + 21].sum(1)


def spans_of(scene, label):
    index = NAMES.index(label)
    return [(e.onset, e.offset) for e in scene.events if e.class_index == index]


def test_events_are_where_the_sounds_are():
    mix = mixer("test").mix  # At their own speed.
    found = collections.Counter()
    for number in range(40):
        scene = mix(number)
        assert scene.samples.shape == (NUM_SAMPLES,) and scene.samples.dtype == np.dtype("<i2")
        if abs(scene.samples.astype(int)).max() >= 32_400:
            continue  # Overtones of a clipped scene.
        for label, hertz in TONES.items():
            levels, spans = band_levels(scene.samples, hertz), spans_of(scene, label)
            times = np.arange(100) / 10
            inside = np.array([any(a <= t and t + 0.1 <= b for a, b in spans) for t in times])
            # Echoes last for most of a second.
            outside = np.array([all(t + 0.1 <= a or t >= b + 1.0 for a, b in spans) for t in times])
            if inside.any() and outside.any():
                found[is_related(scene.name)] += 1
                assert np.quantile(levels[inside], 0.05) > 30 * np.median(levels[outside])
    assert min(found.values()) > 10


def test_a_scene_depends_on_split_and_number_only():
    first, other = mixer(), mixer()
    for number in (6, 7):
        scene = first.mix(number)
        other.mix(number + 2)
        again = other.mix(number)
        assert scene.name == again.name and scene.events == again.events
        np.testing.assert_array_equal(scene.samples, again.samples)
        for different in (first.mix(number + 2), mixer("test").mix(number)):
            assert not np.array_equal(scene.samples, different.samples)


def test_events_of_a_class_do_not_overlap_and_have_all_parents():
    mix = mixer().mix
    for number in range(30):
        scene = mix(number)
        by_class = collections.defaultdict(list)
        for event in scene.events:
            assert 0 <= event.onset < event.offset <= 10
            by_class[event.class_index].append((event.onset, event.offset))
        for spans in by_class.values():
            assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
        if NAMES.index("Moo") in by_class:
            assert set(by_class[NAMES.index("Moo")]) == set(by_class[NAMES.index("Animal")])
        assert scene.labels == sorted(by_class)


def test_half_of_the_scenes_are_of_a_place_where_one_class_goes_on_and_others_come_again():
    allowed = {place.name: set(place.foreground) for place in read_places()}
    mix = mixer("test").mix
    places = collections.Counter()
    for number in range(0, 50, 2):
        scene = mix(number)
        assert is_related(scene.name) and not is_related(mix(number + 1).name)
        split, place, digits = scene.name.split("_")
        assert (split, int(digits)) == ("test", number)
        places[place] += 1
        [(onset, offset)] = spans_of(scene, "Rain")
        assert onset <= 10 / 3 and offset == 10
        heard = {label for label in ("Moo", "Speech", "Piano") if spans_of(scene, label)}
        assert heard
        for label in heard:
            assert not allowed[place].isdisjoint(with_parents(label))
            spans = spans_of(scene, label)
            pauses = sorted(after[0] - before[1] for before, after in itertools.pairwise(spans))
            # Four parts of 2.5 s have three pauses of 0.6 s, two parts one of 1.2 s.
            assert any(
                len(pauses) >= times - 1 and pauses[1 - times] >= 2.5 / times for times in (2, 3, 4)
            )
            assert spans[-1][1] - spans[0][0] > 3
            # The same source, in the same room, at about the same distance.
            levels = band_levels(scene.samples, TONES[label])
            peaks = [levels[int(10 * a) : int(10 * b) + 1].max() for a, b in spans_of(scene, label)]
            assert max(peaks) < 10**0.8 * min(peaks)
    assert len(places) > 3


def test_a_source_that_comes_again_is_of_one_group():
    heard = []

    def read(sound):
        heard.append(sound)
        return read_tone(sound)

    farm = Place("farm", ("Rain",), ("Moo",))
    mix = Mixer("train", SOUNDS, [farm], read).mix
    groups = set()
    for number in range(0, 20, 2):
        heard.clear()
        mix(number)
        moos = [sound.group for sound in heard if sound.label == "Moo"]
        assert len(moos) >= 2 and len(set(moos)) == 1
        groups |= set(moos)
    assert len(groups) == 3


def test_few_scenes_are_clipped():
    mix = mixer().mix
    clipped = []
    for number in range(1, 200, 2):
        loud = abs(mix(number).samples.astype(int))
        assert loud.max() <= 32_440
        clipped.append(np.count_nonzero(loud == 32_439) > 20)
    assert 0 < sum(clipped) < 8


def test_a_solo_scene_has_one_source_at_many_speeds():
    mix, speeds = mixer().mix_solo, []
    for number in range(20):
        scene = mix(number)
        labels = {NAMES[index] for index in scene.labels}
        [label] = labels & TONES.keys()
        assert labels == set(with_parents(label))
        spans = spans_of(scene, label)
        assert spans[0][0] <= 0.5 and spans[-1][1] > 8.0
        if label != "Rain":  # Tones of 0.7 s.
            speeds += [0.7 / (end - start) for start, end in spans[:-1]]
    assert 0.68 < min(speeds) < 0.75 and 1.3 < max(speeds) < 1.45
