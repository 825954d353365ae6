"""Plays instruments and effects from a General MIDI soundfont.

Notes, their loudness and length, and rests are a function of a seed.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr

from data_pipeline.sources.source import SAMPLE_RATE
from sat_jax.errors import SatError

VOICES = Path(__file__).parent.parent / "data" / "soundfont_sounds.csv"
"""Table of the programs and keys of each class."""

DRUMS = 128
"""Bank in which each key is a drum."""

PITCHES = {"train": (0, 2, 4, 6, 7, 9, 11), "validation": (3, 10), "test": (1, 5, 8)}
"""Keys of an instrument that each split plays, in semitones above a C. Each split can play chords:
G major and others, a bare fifth, C sharp major."""

_RATE = 44_100  # Most samples have this rate; played at 16 kHz, they would alias.


class Voice(NamedTuple):
    """How a split plays a class.

    Attributes:
      label: an AudioSet class.
      bank: 0, or `DRUMS`.
      programs: programs that sound like the class.
      keys: keys that do.
      style: "phrase" (a melody), "chords", "held" (one long key), "hits" (one key repeated) or
        "groove" (several drums).
      split: the split.
    """

    label: str
    bank: int
    programs: tuple[int, ...]
    keys: tuple[int, ...]
    style: str
    split: str


class Note(NamedTuple):
    """A note: onset and length in seconds, key, and velocity from 1 to 127."""

    onset: float
    seconds: float
    key: int
    velocity: int


def read_voices(path: Path = VOICES) -> list[Voice]:
    """Reads the voices of all splits, in the order of the table.

    A row without a split is for all splits, which play different keys (`PITCHES`).
    """
    with path.open(encoding="utf-8", newline="") as file:
        return [voice for row in csv.DictReader(file) for voice in _to_voices(row)]


def _to_voices(row: dict[str, str]) -> Iterator[Voice]:
    low = [int(key) for key in row["low"].split(";")]
    keys = range(low[0], int(row["high"]) + 1) if row["high"] else low
    programs = tuple(int(program) for program in row["programs"].split(";"))
    voice = Voice(row["label"], int(row["bank"]), programs, tuple(keys), row["style"], row["split"])
    if voice.split:
        yield voice
        return
    for split, pitches in PITCHES.items():
        own = tuple(key for key in keys if key % 12 in pitches)
        yield voice._replace(keys=own, split=split)


def load_player() -> Any:
    """Imports tinysoundfont.

    Raises:
      SatError: it is not installed.
    """
    try:
        import tinysoundfont
    except ModuleNotFoundError as error:
        raise SatError(
            "tinysoundfont is not installed: pip install --no-deps tinysoundfont"
        ) from error
    return tinysoundfont


class Player:
    """Plays one soundfont."""

    def __init__(self, path: Path) -> None:
        """Loads a soundfont.

        Args:
          path: a .sf2 file with the programs of General MIDI.

        Raises:
          SatError: tinysoundfont is not installed, or the file can't be loaded.
        """
        self._synth: Any = load_player().Synth(samplerate=_RATE)
        try:
            self._font = self._synth.sfload(str(path))
        except Exception as error:  # The library's own exception class is private.
            raise SatError(f"{path}: cannot load the soundfont: {error}") from error

    def play(self, voice: Voice, seed: Iterable[int]) -> np.ndarray:
        """Plays a voice.

        Args:
          voice: the voice.
          seed: numbers that determine the notes.

        Returns:
          float32 [s] in [-1, 1] at 16 kHz, 1 to 12 s.
        """
        rng = np.random.default_rng(list(seed))
        # Off means a short release, which must not sound in what is played next.
        self._synth.sounds_off(0)
        self._generate(_RATE)
        self._synth.program_select(
            0, self._font, voice.bank, int(rng.choice(voice.programs)), voice.bank == DRUMS
        )
        notes = compose(voice, rng)
        sound = self._play(notes, tail=float(rng.uniform(0.3, 1.5)))
        mono = sound.reshape(-1, 2).mean(axis=1)
        mono = soxr.resample(mono, _RATE, SAMPLE_RATE).astype(np.float32)
        return mono / max(1.0, float(np.abs(mono).max(initial=0.0)))

    def _play(self, notes: Iterable[Note], *, tail: float) -> np.ndarray:
        """Returns interleaved stereo, float32."""
        starts = [(note.onset, 1, note) for note in notes]
        ends = [(note.onset + note.seconds, 0, note) for note in notes]
        parts, now = [], 0
        # At the same time, keys are released before others are pressed.
        for time, is_start, note in sorted(starts + ends):
            parts.append(self._generate(round(time * _RATE) - now))
            now = round(time * _RATE)
            if is_start:
                self._synth.noteon(0, note.key, note.velocity)
            else:
                self._synth.noteoff(0, note.key)
        parts.append(self._generate(round(tail * _RATE)))
        return np.concatenate(parts)

    def _generate(self, num_samples: int) -> np.ndarray:
        if num_samples <= 0:
            return np.zeros(0, np.float32)
        return np.frombuffer(self._synth.generate(num_samples), np.float32).copy()


def compose(voice: Voice, rng: np.random.Generator) -> list[Note]:
    """Composes notes in the style of a voice, at most ten seconds."""
    composers = {
        "phrase": _phrase,
        "chords": _chords,
        "held": _held,
        "hits": _hits,
        "groove": _groove,
    }
    return list(composers[voice.style](voice, rng))


def _velocity(rng: np.random.Generator) -> int:
    return int(rng.integers(60, 128))


def _phrase(voice: Voice, rng: np.random.Generator) -> Iterator[Note]:
    """Walks up and down the keys."""
    time, at = 0.0, int(rng.integers(len(voice.keys)))
    beat = rng.uniform(0.15, 0.7)
    for _ in range(int(rng.integers(1, 13))):
        seconds = float(beat * rng.choice([0.5, 1, 1, 2]))
        if time + seconds > 9:
            break
        yield Note(time, seconds * float(rng.uniform(0.6, 1.0)), voice.keys[at], _velocity(rng))
        time += seconds
        aim = voice.keys[at] + int(rng.integers(-5, 6))
        at = int(np.abs(np.array(voice.keys) - aim).argmin())


def _chords(voice: Voice, rng: np.random.Generator) -> Iterator[Note]:
    seconds = float(rng.uniform(0.6, 2.5))
    for i in range(int(rng.integers(1, 5))):
        if (i + 1) * seconds > 9:
            break
        root = int(rng.choice([key for key in voice.keys if key + 12 in voice.keys]))
        third = int(rng.choice([3, 4]))
        steps = [step for step in (0, third, 7, 12) if root + step in voice.keys]
        for step in steps[: int(rng.integers(2, 5))]:
            yield Note(i * seconds, seconds * 0.95, root + step, _velocity(rng))


def _held(voice: Voice, rng: np.random.Generator) -> Iterator[Note]:
    yield Note(0.0, float(rng.uniform(1.5, 8.0)), int(rng.choice(voice.keys)), _velocity(rng))


def _hits(voice: Voice, rng: np.random.Generator) -> Iterator[Note]:
    beat, swing = rng.uniform(0.12, 0.9), rng.uniform(0.0, 0.2)
    key = int(rng.choice(voice.keys))
    time = 0.0
    for _ in range(int(rng.integers(1, 17))):
        if time > 8:
            break
        yield Note(time, 0.1, key, _velocity(rng))
        time += float(beat * rng.choice([1, 1, 1, 2]) * (1 + swing * rng.random()))


def _groove(voice: Voice, rng: np.random.Generator) -> Iterator[Note]:
    """Alternates bass drum, snare and hi-hat, with another drum at times."""
    step = float(rng.uniform(0.1, 0.25))
    for i in range(int(rng.integers(16, 33))):
        if i * step > 8:
            break
        hat = 42 if rng.random() < 0.85 else 46
        yield Note(i * step, 0.05, hat, _velocity(rng))
        if i % 8 == 0 or rng.random() < 0.15:
            yield Note(i * step, 0.05, 36, _velocity(rng))
        if i % 8 == 4:
            yield Note(i * step, 0.05, 38, _velocity(rng))
        if rng.random() < 0.06:
            yield Note(i * step, 0.05, int(rng.choice([41, 45, 48, 49, 51, 57])), _velocity(rng))
