"""The held-out sounds of the tests, against the splits of the scenes."""

from pathlib import Path

from projects.box_model.held_out_sounds import EXAMPLES
from projects.box_model.scenes.sounds import all_sounds, split_sounds, with_parents
from sat_jax.labels import audioset_labels

HELD_OUT = Path(__file__).parents[3] / "tests" / "held_out"


def test_held_out_sounds_are_those_of_the_present_splits():
    """Other splits need another model: this one was trained on sounds of their test split."""
    by_split = split_sounds(all_sounds())
    held_out = {sound.name: sound for sound in by_split["test"]}
    assert {name for names in EXAMPLES.values() for name in names} <= held_out.keys()
    played = [s.label for s in held_out.values() if s.name.startswith("soundfont/")]
    labels = (HELD_OUT / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == list(dict.fromkeys(played))
    trained = {name for s in by_split["train"] for own in s.labels for name in with_parents(own)}
    never = (HELD_OUT / "never_learned.txt").read_text(encoding="utf-8").splitlines()
    assert set(never) == {label.name for label in audioset_labels()} - trained
