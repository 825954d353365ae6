"""The tables of sounds, their classes and splits."""

import itertools
import re

from projects.box_model.scenes.repositories import read_repositories
from projects.box_model.scenes.sounds import (
    SPLITS,
    all_sounds,
    class_indices,
    read_recordings,
    split_sounds,
    with_parents,
)
from sat_jax.labels import audioset_labels

NAMES = [label.name for label in audioset_labels()]


def test_every_sound_has_audioset_classes_and_all_their_parents():
    for sound in all_sounds():
        labels = [NAMES[index] for index in class_indices(sound.labels)]
        assert set(sound.labels) <= set(labels)
        assert len(set(labels)) == len(labels)
        # No class is a parent of another.
        assert not any(set(with_parents(a)[1:]) & set(sound.labels) for a in sound.labels)
    assert set(with_parents("Moo")) == {
        "Moo",
        "Cattle, bovinae",
        "Livestock, farm animals, working animals",
        "Animal",
    }
    # Several parents.
    assert {"Siren", "Alarm", "Vehicle"} <= set(with_parents("Police car (siren)"))


def test_no_group_is_in_two_splits_and_every_sound_is_in_one():
    sounds = all_sounds()
    splits = split_sounds(sounds)
    groups = {split: {sound.group for sound in splits[split]} for split in SPLITS}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    assert sorted(itertools.chain(*splits.values())) == sorted(sounds)
    # Every measured class is trained.
    trained = {sound.label for sound in splits["train"]}
    assert {sound.label for sound in splits["test"] + splits["validation"]} <= trained


def test_recordings_are_unique_and_not_contradicted_by_yamnet():
    recordings = read_recordings()
    assert len({(one.source, one.path) for one in recordings}) == len(recordings)
    trusted = {"sonic-pi-samples", "hydrogen-data", "sound-icons"}
    for one in recordings:
        assert one.licence
        # Unpacking stays in the folder of its source.
        assert ".." not in f"{one.source}/{one.path}".split("/") and one.path[0] != "/"
        if one.teacher_rank and one.source not in trusted:
            assert int(one.teacher_rank) <= 50, one


def test_recordings_of_repositories_have_credits_and_pinned_commits():
    repositories = read_repositories()
    for name, one in repositories.items():
        assert name == one.name and re.fullmatch(r"[\w.-]+/[\w.-]+", one.repository)
        assert re.fullmatch(r"[0-9a-f]{40}", one.commit) and one.credits
    for recording in read_recordings():
        assert recording.credit or recording.source not in repositories, recording


def test_copies_of_esc_10_do_not_come_back():
    """Found by waveform; each search for recordings finds some of them again."""
    copies = (
        "/Sounds/fire_loop.ogg",
        "/fire_small.ogg",
        "/battlemage_hit3.wav",
        "/noises/clock.ogg",
        "/sounds_clock_tick.ogg",
        "/tree-cutting.wav",
    )
    assert not [one.path for one in read_recordings() if one.path.endswith(copies)]
