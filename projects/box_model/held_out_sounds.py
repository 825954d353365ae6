"""Writes sounds of the test split for the demo, and for the test of the bundled model.

python -m projects.box_model.held_out_sounds data/packages

The argument is the --packages of projects.box_model.scenes. Writes examples/*.flac, and in
tests/held_out/: two seconds of each class that the soundfont plays in the test split, joined
(sounds.ogg); their names (labels.txt); and the classes without training sounds (never_learned.txt).
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from projects.box_model.scenes.shaping import active_span
from projects.box_model.scenes.sound_library import SOUNDFONT, Library, fetch_sources
from projects.box_model.scenes.sounds import (
    Sound,
    all_sounds,
    is_played,
    split_sounds,
)
from projects.box_model.unlearned import unlearned_classes
from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors

EXAMPLES = {
    "bells": ("soundfont/Tubular bells/test/3",),
    "choir": ("sonic-pi-samples/usr/share/sonic-pi/samples/ambi_choir.flac",),
    "concert": ("soundfont/Cello/test/5", "soundfont/Clapping/test/3"),
    "crickets": (
        "dynamic-surroundings/src/main/resources/assets/dsurround/sounds/ambient/outside/"
        "savanna_night.ogg",
    ),
    "dog": tuple(f"ss14/Resources/Audio/Animals/dog_bark{i}.ogg" for i in (1, 2, 3)),
    "fire": ("nocturne/sounds/library/campfire-loop-stereo.mp3",),
    "rain": ("focus-flow/public/sounds/light-rain.mp3",),
    "water": (
        "gcompris-qt-data/usr/share/gcompris-qt/rcc/canal_lock.rcc!/gcompris/src/activities/"
        "canal_lock/resource/water_fill.wav",
    ),
    "wind": ("openclonk/planet/Sound.ocg/Environment.ocg/WindLoop.ogg",),
}
"""Sounds in each file. The recordings are in the public domain (CC0) or have the licence CC BY, so
that the files can be part of the project; examples/README.md credits their authors."""

SECONDS = 4
"""The most of each sound."""

SAMPLE_RATE = 16_000
_ROOT = Path(__file__).parents[2]


def write_held_out_sounds(packages: Path, root: Path = _ROOT) -> None:
    """Fetches missing packages, and writes all files.

    Args:
      packages: folder of unpacked packages.
      root: folder with examples/ and tests/.

    Raises:
      SatError: a sound can't be fetched or read, or a file can't be written.
    """
    by_split = split_sounds(all_sounds())
    held_out = {sound.name: sound for sound in by_split["test"]}
    renders = [sound for sound in held_out.values() if is_played(sound)]
    first = list({sound.label: sound for sound in reversed(renders)}.values())[::-1]
    examples = [held_out[name] for names in EXAMPLES.values() for name in names]
    library = _load(packages, [*first, *examples])
    with explain_write_errors(root):
        for file, names in EXAMPLES.items():
            parts = [library.read(held_out[name])[: SECONDS * SAMPLE_RATE] for name in names]
            _write(root / "examples" / f"{file}.flac", np.concatenate(parts))
        folder = root / "tests" / "held_out"
        _write(folder / "sounds.ogg", np.concatenate([_two_seconds(library, s) for s in first]))
        _write_names(folder / "labels.txt", [sound.label for sound in first])
        _write_names(folder / "never_learned.txt", unlearned_classes())


def _load(packages: Path, sounds: Sequence[Sound]) -> Library:
    needed = {sound.name.partition("/")[0] for sound in sounds} | {SOUNDFONT[0]}
    fetch_sources(packages, lambda source, count: None, needed)
    library = Library(packages)
    if failed := library.load(sounds):
        raise SatError("; ".join(failed.values()))
    return library


def _two_seconds(library: Library, sound: Sound) -> np.ndarray:
    samples = library.read(sound)
    begin, _ = active_span(samples)
    samples = samples[begin : begin + 2 * SAMPLE_RATE]
    return np.pad(samples, (0, 2 * SAMPLE_RATE - len(samples)))


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # The errors of soundfile give no reason.
        soundfile.write(file, samples, SAMPLE_RATE, format=path.suffix[1:].upper())


def _write_names(path: Path, names: Iterable[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m projects.box_model.held_out_sounds PACKAGES_FOLDER")
    try:
        write_held_out_sounds(Path(sys.argv[1]))
    except SatError as error:
        sys.exit(f"held_out_sounds: {error}")
