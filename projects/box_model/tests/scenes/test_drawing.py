"""Which sounds are drawn, and how often."""

import collections

import numpy as np
import pytest

from projects.box_model.scenes.drawing import CastPicker, SoundPicker
from projects.box_model.scenes.places import Place, read_places
from projects.box_model.scenes.sounds import (
    SPLITS,
    Sound,
    all_sounds,
    split_sounds,
    with_parents,
)
from sat_jax.labels import audioset_labels


def sounds_of(label, groups, sounds_in_group=1):
    return [
        Sound(f"{label}/{group}/{i}", (label,), f"{label}/{group}", "train")
        for group in range(groups)
        for i in range(sounds_in_group)
    ]


def test_rare_classes_are_drawn_as_often_as_common_ones():
    sounds = [
        *sounds_of("Moo", 30),
        *sounds_of("Sneeze", 1),
        *sounds_of("Rain", 2, 5),
        *sounds_of("Piano", 7),
        *sounds_of("Speech", 50),
    ]
    picker, rng = SoundPicker(sounds), np.random.default_rng(0)
    drawn = collections.Counter(picker.pick(rng).label for _ in range(6000))
    # Shares of 0.1, 0.2 and 0.6. Without music they sum to 0.9.
    expected = {"Speech": 1 / 9, "Piano": 2 / 9, "Moo": 2 / 9, "Sneeze": 2 / 9, "Rain": 2 / 9}
    assert picker.shares == pytest.approx(expected)
    for label, share in expected.items():
        assert drawn[label] / 6000 == pytest.approx(share, abs=0.02)


def test_groups_of_a_class_are_drawn_alike():
    sounds = [*sounds_of("Moo", 1, 20), Sound("other", ("Moo",), "other", "train")]
    picker, rng = SoundPicker(sounds), np.random.default_rng(0)
    drawn = collections.Counter(picker.pick(rng).group for _ in range(2000))
    assert drawn["other"] / 2000 == pytest.approx(0.5, abs=0.04)


PLACES = [
    Place("farm", ("Rain", "Wind"), ("Moo", "Dog", "Sheep", "Water")),
    Place("office", ("Printer",), ("Cough",)),
    Place("cafe", ("Music",), ("Dog",)),
]


def test_a_cast_has_sounds_of_one_place_that_go_on_and_others_that_come():
    sounds = [
        *sounds_of("Rain", 2),
        *sounds_of("Wind", 1),
        *sounds_of("Moo", 2),
        *sounds_of("Bark", 3),
        *sounds_of("Growling", 1),
        *sounds_of("Cough", 1),
        *sounds_of("Piano", 3),
    ]
    casts = CastPicker(PLACES, sounds, lambda sound: sound.name != "Rain/0/0")
    # Nothing goes on in the office; a piano does not stand for music.
    assert casts.places == ["farm"]
    rng = np.random.default_rng(0)
    backgrounds, foregrounds, counts = collections.Counter(), collections.Counter(), set()
    for _ in range(2000):
        cast = casts.pick(rng)
        backgrounds.update(sound.name for sound in cast.backgrounds)
        labels = [source[0].label for source in cast.foregrounds]
        foregrounds.update(labels)
        counts.add((len(cast.backgrounds), len(labels)))
        for source in cast.foregrounds:
            assert len({(sound.label, sound.group) for sound in source}) == 1
        # Rain is water, so that its onset could not be told.
        assert "Rain" not in labels or cast.backgrounds[0].label == "Wind"
    assert set(backgrounds) == {"Rain/1/0", "Wind/0/0"}
    assert set(foregrounds) == {"Moo", "Bark", "Growling", "Rain"}
    # Each name of the place is drawn alike, then each class that it stands for.
    dogs = foregrounds["Bark"] + foregrounds["Growling"]
    assert dogs / foregrounds["Moo"] == pytest.approx(1.0, abs=0.1)
    assert foregrounds["Bark"] / dogs == pytest.approx(0.5, abs=0.05)
    assert {(1, 1), (1, 2), (2, 1), (2, 2)} <= counts


def test_the_table_of_places_names_classes_and_all_have_training_sounds():
    places, names = read_places(), {label.name for label in audioset_labels()}
    assert len({place.name for place in places}) == len(places) > 20
    for place in places:
        assert "_" not in place.name and place.name != "random"
        for classes in (place.background, place.foreground):
            assert len(set(classes)) == len(classes) and set(classes) <= names, place.name
    by_split = split_sounds(all_sounds())
    for split in SPLITS:
        casts = CastPicker(places, by_split[split], lambda sound: True)
        if split == "train":
            assert casts.places == [place.name for place in places]
        assert len(casts.places) > 0.8 * len(places)


def test_everyday_sounds_dominate():
    """Of the sounds of both kinds of scenes, most are neither speech nor music."""
    sounds = split_sounds(all_sounds())["train"]
    casts, picker = CastPicker(read_places(), sounds, lambda sound: True), SoundPicker(sounds)
    rng, drawn = np.random.default_rng(0), collections.Counter()
    for _ in range(1500):
        cast = casts.pick(rng)
        drawn.update(sound.label for sound in cast.backgrounds)
        drawn.update(source[0].label for source in cast.foregrounds)
        drawn.update(picker.pick(rng).label for _ in range(2))
    total = drawn.total()
    assert drawn["Speech"] / total < 0.12 and drawn["Music"] / total < 0.12
    musical = sum(count for label, count in drawn.items() if "Music" in with_parents(label))
    assert 1 - (musical + drawn["Speech"]) / total > 0.6
    # No class is lost, and none but speech and music is much of all.
    assert drawn.keys() == {sound.label for sound in sounds}
    others = [count for label, count in drawn.items() if label not in ("Speech", "Music")]
    assert max(others) / total < 0.05
