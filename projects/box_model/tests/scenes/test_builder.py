"""The dataset: the same each time, and in agreement with its tables."""

import csv

import numpy as np
import pytest

from projects.box_model.scenes.places import read_places
from projects.box_model.scenes.scenes import Mixer, is_related
from projects.box_model.scenes.sounds import class_indices
from projects.box_model.tests.scenes.made_up import SOUNDS, build_dataset, read_tone
from sat_jax.labels import audioset_labels

NAMES = [label.name for label in audioset_labels()]


COUNTS = {"train": 6, "solo": 5, "validation": 2, "test": 3}


def test_it_is_the_same_each_time_and_its_tables_agree(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from data_pipeline.psl.event_teacher import read_event_teacher
    from data_pipeline.sources.tfds.source import TfdsSource

    folder = build_dataset(tmp_path / "once", COUNTS, workers=1).data_path
    again = build_dataset(tmp_path / "again", COUNTS, workers=3).data_path
    files = sorted(path.name for path in folder.iterdir())
    assert "strong_test.tsv" in files
    for name in files:
        if "record" in name or name.endswith(".tsv"):
            assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    held_out = TfdsSource("pkg_audio", "sounds_test", tmp_path / "once")
    assert sorted(held_out.clips.ids) == sorted(sound.name for sound in SOUNDS)
    for place, name in enumerate(held_out.clips.ids):
        sound = next(sound for sound in SOUNDS if sound.name == name)
        samples = 0.5 / abs(read_tone(sound)).max() * read_tone(sound)
        np.testing.assert_allclose(held_out.read(place), samples, atol=1e-4)
        labels = np.flatnonzero(held_out.clips.targets(np.array([place]), len(NAMES)))
        assert tuple(labels) == class_indices(sound.labels)
    mixer = Mixer("train", SOUNDS, read_places(), read_tone)
    scenes = {scene.name: scene for scene in map(mixer.mix, range(6))}
    assert sum(map(is_related, scenes)) == 3
    solo = {scene.name: scene for scene in map(mixer.mix_solo, range(5))}
    assert not any(map(is_related, solo))
    for split, mixed in (("train", scenes), ("solo", solo)):
        source = TfdsSource("pkg_audio", split, tmp_path / "once")
        assert set(source.clips.ids) == mixed.keys()
        table = folder / f"strong_{split}.tsv"
        events = read_event_teacher(table, source.clips.ids)._events
        targets = source.clips.targets(np.arange(len(mixed)), len(NAMES))
        for place, name in enumerate(source.clips.ids):
            scene = mixed[name]
            np.testing.assert_allclose(source.read(place), scene.samples / 32_768, atol=1e-7)
            assert np.flatnonzero(targets[place]).tolist() == scene.labels
            read = [tuple(event) for event in events[place]]
            np.testing.assert_allclose(read, [tuple(e) for e in scene.events] or [], atol=1e-4)
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        assert {row["filename"] for row in rows} == set(source.clips.ids)
