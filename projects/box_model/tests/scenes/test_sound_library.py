"""Packages are unpacked, and their sounds read."""

import zipfile

import numpy as np
import soundfile

from projects.box_model.scenes import sound_library as library_module
from projects.box_model.scenes.sound_library import Library, fetch_packages
from projects.box_model.scenes.sounds import Recording, Sound, all_sounds
from projects.box_model.tests.scenes.made_up import RATE, tone, write_rcc


def test_packages_are_unpacked_and_read(tmp_path, monkeypatch):
    wav = tmp_path / "moo.wav"
    soundfile.write(wav, tone(1.0, 440), RATE)
    rows = [
        Recording("toy", "usr/a.rcc!/sounds/moo.wav", ("Moo",), "toy/moo", "CC0", "1"),
        Recording("toy", "usr/b.pk3!/moo.wav", ("Moo",), "toy/moo", "CC0", "1"),
        Recording("toy", "usr/bark.wav", ("Bark",), "toy/bark", "CC0", "1"),
        Recording("toy", "usr/gone.wav", ("Cat",), "toy/cat", "CC0", "1"),
        Recording("toy", "usr/silent.wav", ("Dog",), "toy/dog", "CC0", "1"),
    ]
    fetched = []

    def fetch(package, paths, folder):
        fetched.append((package, tuple(paths)))
        target = folder / package / "usr"
        if not target.exists():
            target.mkdir(parents=True)
            (target / "a.rcc").write_bytes(write_rcc({"moo.wav": wav.read_bytes()}, flags=1))
            with zipfile.ZipFile(target / "b.pk3", "w") as archive:
                archive.writestr("moo.wav", wav.read_bytes())
                archive.writestr("../../evil.wav", b"")
            (target / "bark.wav").write_bytes(wav.read_bytes())
            soundfile.write(target / "silent.wav", np.zeros(RATE, np.float32), RATE)

    monkeypatch.setattr(library_module, "read_recordings", lambda: rows)
    monkeypatch.setattr(library_module, "fetch_package", fetch)
    folder = tmp_path / "packages"
    for _ in range(2):  # The second time, nothing is missing.
        fetch_packages(folder, lambda package, count: None)
    files = ("usr/a.rcc", "usr/b.pk3", "usr/bark.wav", "usr/gone.wav", "usr/silent.wav")
    assert ("toy", files) in fetched
    sounds = [Sound(f"{one.package}/{one.path}", one.labels, one.group) for one in rows]
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
    sounds = [sound for sound in all_sounds() if sound.label == "Saxophone" and sound.split]
    library = Library(tmp_path)
    silent = [sound.name for sound in sounds if sound.split != "train"]
    assert list(library.load(sounds)) == silent
    assert len(library.read(sounds[0])) == RATE
