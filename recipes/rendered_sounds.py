"""Sounds that a soundfont plays, for the demo and for the test of the bundled model.

python -m recipes.rendered_sounds data/packages

The folder is that of `python -m data_pipeline.pkg_audio --packages`. Writes examples/*.flac, and
tests/rendered/: two seconds of every class that the soundfont has in the test split, one after
another, and their names. What lies there now is of version 1.1.0 of the data set, whose training
split the bundled model learned from; other models need these files anew. Helicopter and applause
are one sound each in the soundfont, which models learn from.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile

from data_pipeline.pkg_audio.library import Library
from data_pipeline.pkg_audio.scenes import active_span
from data_pipeline.pkg_audio.sounds import Sound, all_sounds
from sat_jax.errors import SatError

EXAMPLES = {
    "helicopter": ("Helicopter/train/2",),
    "choir": ("Choir/test/1",),
    "concert": ("Cello/test/1", "Applause/train/0"),
}
"""What each file plays, at most six seconds of each."""

SAMPLE_RATE = 16_000
_ROOT = Path(__file__).parent.parent


def write_rendered_sounds(packages: Path, root: Path = _ROOT) -> None:
    """Renders everything anew.

    Args:
      packages: folder of unpacked packages.
      root: where examples/ and tests/ are.

    Raises:
      SatError: the soundfont is missing or can't be played.
    """
    renders = [sound for sound in all_sounds() if sound.name.startswith("soundfont/")]
    by_name = {sound.name.removeprefix("soundfont/"): sound for sound in renders}
    held_out = [sound for sound in renders if sound.split == "test"]
    first = list({sound.label: sound for sound in reversed(held_out)}.values())[::-1]
    library = Library(packages)
    library.load([*first, *(by_name[name] for names in EXAMPLES.values() for name in names)])
    for file, names in EXAMPLES.items():
        parts = [library.read(by_name[name])[: 6 * SAMPLE_RATE] for name in names]
        _write(root / "examples" / f"{file}.flac", np.concatenate(parts))
    folder = root / "tests" / "rendered"
    _write(folder / "sounds.ogg", np.concatenate([_two_seconds(library, one) for one in first]))
    labels = "".join(f"{sound.label}\n" for sound in first)
    (folder / "labels.txt").write_text(labels, encoding="utf-8")


def _two_seconds(library: Library, sound: Sound) -> np.ndarray:
    samples = library.read(sound)
    begin, _ = active_span(samples)
    samples = samples[begin : begin + 2 * SAMPLE_RATE]
    return np.pad(samples, (0, 2 * SAMPLE_RATE - len(samples)))


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m recipes.rendered_sounds PACKAGES_FOLDER")
    try:
        write_rendered_sounds(Path(sys.argv[1]))
    except SatError as error:
        sys.exit(f"rendered_sounds: {error}")
