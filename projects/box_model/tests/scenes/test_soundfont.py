"""What the soundfont plays, and in which split."""

import collections
import itertools
import sys

import numpy as np
import pytest

from projects.box_model.scenes.soundfont import Player, compose, read_voices
from projects.box_model.scenes.sounds import SPLITS, all_sounds, is_played, split_sounds
from sat_jax.errors import SatError


def test_notes_have_the_keys_of_their_voice_and_end_in_time():
    for voice in read_voices():
        played = set()
        for seed in range(20):
            notes = compose(voice, np.random.default_rng(seed))
            assert notes and notes == compose(voice, np.random.default_rng(seed))
            assert all(0 <= note.onset < 10 and 0 < note.seconds < 9 for note in notes)
            assert all(1 <= note.velocity <= 127 for note in notes)
            played |= {note.key for note in notes}
        if voice.style != "groove":
            assert played <= set(voice.keys)
        assert len(played) > 1 or len(voice.keys) == 1


def keys_by_split():
    """Returns (bank, program, key) of all that each split may play."""
    voices = {(voice.label, voice.split): voice for voice in read_voices()}
    found = collections.defaultdict(set)
    for sound in all_sounds():
        if is_played(sound):
            voice = voices[sound.label, sound.split]
            notes = compose(voice, np.random.default_rng(list(sound.name.encode())))
            keys = {note.key for note in notes} | set(voice.keys)
            found[sound.split] |= set(itertools.product([voice.bank], voice.programs, keys))
    return found


def test_no_program_plays_a_key_in_two_splits():
    found = keys_by_split()
    assert set(found) == set(SPLITS)
    for one, other in itertools.combinations(SPLITS, 2):
        assert not found[one] & found[other]


def test_effects_with_a_single_sound_are_only_trained_on():
    held_out = {voice.label for voice in read_voices() if voice.split != "train"}
    effects = {voice.label for voice in read_voices() if voice.style in ("held", "groove")}
    assert {"Applause", "Helicopter", "Telephone bell ringing", "Drum kit"} <= effects
    assert not held_out & (effects | {"Gunshot, gunfire", "Hi-hat", "Cowbell", "Rimshot"})
    assert {"Piano", "Choir", "Snare drum", "Timpani"} <= held_out


def test_played_sounds_are_in_the_split_of_their_name():
    splits = split_sounds(all_sounds())
    for split in SPLITS:
        renders = [sound.name for sound in splits[split] if is_played(sound)]
        assert renders and {name.split("/")[-2] for name in renders} == {split}


def test_every_split_of_an_instrument_has_chords():
    for voice in read_voices():
        if voice.style == "chords":
            notes = [compose(voice, np.random.default_rng(seed)) for seed in range(20)]
            together = [collections.Counter(note.onset for note in one) for one in notes]
            assert max(max(count.values()) for count in together) >= 3


def test_a_missing_player_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(SatError, match="tinysoundfont"):
        Player(tmp_path / "x.sf2")
