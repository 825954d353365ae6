"""Fetches packages and repositories, and keeps the recorded and played sounds in memory."""

import functools
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path

import numpy as np

from data_pipeline.sources.source import SAMPLE_RATE
from projects.box_model.scenes.debian import fetch_package
from projects.box_model.scenes.repositories import fetch_repository, read_repositories
from projects.box_model.scenes.soundfont import Player, read_voices
from projects.box_model.scenes.sounds import Sound, is_played, read_recordings
from sat_jax.audio import read_blocks
from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

SOUNDFONT = ("fluid-soundfont-gm", "usr/share/sounds/sf2/FluidR3_GM.sf2")
_LONGEST = 60 * SAMPLE_RATE
"""Samples kept per recording, so that music does not take most of the memory."""


def fetch_sources(
    folder: Path, on_source: Callable[[str, int], object], only: Container[str] | None = None
) -> None:
    """Downloads and unpacks the packages and repositories that are not in the folder yet.

    Args:
      folder: folder of all sources.
      on_source: called with each source and the number of wanted files.
      only: names of sources; None means all.

    Raises:
      SatError: a source can't be downloaded or unpacked, or the folder can't be written.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, list[str]] = {SOUNDFONT[0]: [SOUNDFONT[1]]}
    for recording in read_recordings():
        wanted.setdefault(recording.source, []).append(recording.path)
    repositories = read_repositories()
    for source, paths in wanted.items():
        if only is None or source in only:
            on_source(source, len(paths))
            if source in repositories:
                fetch_repository(repositories[source], paths, folder)
            else:
                fetch_package(source, paths, folder)


class Library:
    """The samples of sounds, each read once."""

    def __init__(self, folder: Path) -> None:
        """Makes an empty library.

        Args:
          folder: folder of `fetch_sources`.
        """
        self._folder = folder
        self._voices = {(voice.label, voice.split): voice for voice in read_voices()}
        self._kept: dict[str, np.ndarray] = {}

    def missing(self, sounds: Iterable[Sound]) -> list[Sound]:
        """Returns the recordings that this version of their source lacks."""
        return [
            sound
            for sound in sounds
            if not is_played(sound) and not (self._folder / sound.name).is_file()
        ]

    def load(self, sounds: Iterable[Sound]) -> Mapping[str, str]:
        """Reads or plays sounds; `read` can then be called from any thread.

        Returns:
          The reason of each sound that can't be read or is silent, by name.

        Raises:
          SatError: the soundfont can't be played.
        """
        failed = {}
        for sound in sounds:
            try:
                samples = self._read(sound)
            except SatError as error:
                if is_played(sound):
                    raise
                failed[sound.name] = str(error)
                continue
            if np.abs(samples).max(initial=0.0) > 1e-3:
                self._kept[sound.name] = _to_int16(samples)
            else:  # An empty recording, or keys that an instrument lacks.
                failed[sound.name] = f"{sound.name} is silent"
        return failed

    def read(self, sound: Sound) -> np.ndarray:
        """Returns the samples of a loaded sound: float32 [s], mono at 16 kHz, at most 60 s."""
        return self._kept[sound.name].astype(np.float32) / 32_768

    def _read(self, sound: Sound) -> np.ndarray:
        if is_played(sound):
            # The seed is the whole name, so that classes play different melodies.
            voice = self._voices[sound.label, sound.split]
            return self._player.play(voice, sound.name.encode())
        path, samples = self._folder / sound.name, []
        for block in read_blocks(path, sample_rate=SAMPLE_RATE):
            samples.append(block)
            if sum(map(len, samples)) >= _LONGEST:
                break
        return np.concatenate(samples)[:_LONGEST]

    @functools.cached_property
    def _player(self) -> Player:
        return Player(self._folder.joinpath(*SOUNDFONT))


def _to_int16(sound: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(sound, -1.0, 1.0) * 32_767).astype(np.int16)
