"""Packages and repositories are unpacked, and their sounds read."""

import io
import zipfile

import numpy as np
import soundfile

from projects.box_model.scenes import sound_library as library_module
from projects.box_model.scenes.fetching import fetch_files
from projects.box_model.scenes.repositories import Repository
from projects.box_model.scenes.sound_library import SOUNDFONT, Library, fetch_sources
from projects.box_model.scenes.sounds import Recording, Sound, all_sounds, is_played
from projects.box_model.tests.scenes.made_up import RATE, tone, write_rcc, write_tar


def test_sources_are_fetched_and_read(tmp_path, monkeypatch):
    wav, silent = io.BytesIO(), io.BytesIO()
    soundfile.write(wav, tone(1.0, 440), RATE, format="WAV")
    soundfile.write(silent, np.zeros(RATE, np.float32), RATE, format="WAV")
    moo, zipped = wav.getvalue(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("moo.wav", moo)
        archive.writestr("../../evil.wav", b"")
    package = {
        "./usr/a.rcc": write_rcc({"moo.wav": moo}, flags=1),
        "./usr/b.pk3": zipped.getvalue(),
        "./usr/bark.wav": moo,
        "./usr/silent.wav": silent.getvalue(),
    }
    paths = ["usr/a.rcc!/sounds/moo.wav", "usr/b.pk3!/moo.wav", "usr/bark.wav", "usr/gone.wav"]
    paths.append("usr/silent.wav")
    rows = [Recording("toy", path, ("Moo",), "toy/moo", "CC0", "1", "train", "") for path in paths]
    rows.append(
        Recording("farm", "cow.wav", ("Moo",), "farm/cow", "CC0-1.0", "", "train", "freesound 1")
    )
    farm = Repository("farm", "me/farm", "0" * 40, "CREDITS")
    fetched = []

    def fetch_package(name, wanted, folder):
        def get_tar(temporary):
            fetched.append(name)
            return write_tar(temporary / "all.tar", package)

        fetch_files(name, wanted, folder, get_tar)

    def fetch_repository(repository, wanted, folder):
        assert (repository, wanted) == (farm, ["cow.wav"])
        fetched.append(repository.name)

    monkeypatch.setattr(library_module, "read_recordings", lambda: rows)
    monkeypatch.setattr(library_module, "read_repositories", lambda: {"farm": farm})
    monkeypatch.setattr(library_module, "fetch_package", fetch_package)
    monkeypatch.setattr(library_module, "fetch_repository", fetch_repository)
    folder, told = tmp_path / "packages", []
    fetch_sources(folder, lambda source, count: told.append((source, count)))
    assert told == [(SOUNDFONT[0], 1), ("toy", 5), ("farm", 1)]
    fetch_sources(folder, lambda source, count: None, only={"toy"})  # It has all files.
    assert fetched == [SOUNDFONT[0], "toy", "farm"]
    sounds = [
        Sound(f"{one.source}/{one.path}", one.labels, one.group, one.split) for one in rows[:5]
    ]
    library = Library(folder)
    assert library.missing(sounds) == [sounds[3]]
    assert list(library.load([*sounds[:3], sounds[4]])) == [sounds[4].name]
    for sound in sounds[:3]:
        np.testing.assert_allclose(library.read(sound), tone(1.0, 440), atol=2e-4)
    assert not list(tmp_path.rglob("evil.wav"))


def test_silent_played_sounds_are_left_out(tmp_path, monkeypatch):
    class Player:
        def __init__(self, path):
            pass

        def play(self, voice, seed):
            return tone(1.0, 440) * (voice.split == "train")

    monkeypatch.setattr(library_module, "Player", Player)
    sounds = [sound for sound in all_sounds() if sound.label == "Saxophone" and is_played(sound)]
    library = Library(tmp_path)
    silent = [sound.name for sound in sounds if sound.split != "train"]
    assert list(library.load(sounds)) == silent
    assert len(library.read(sounds[0])) == RATE
