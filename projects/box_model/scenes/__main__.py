r"""Builds the dataset pkg_audio: scenes mixed from recordings in packages and repositories.

python -m projects.box_model.scenes --packages data/packages --data_dir data/tfds

Downloads Debian packages (9 GB) and GitHub repositories, unpacks the recordings without installing
anything or being root, plays instruments from a soundfont (pip install --no-deps tinysoundfont),
and mixes scenes of ten seconds: half of sounds that go together, half of random ones, and as many
of one source alone. Folder projects/box_model/data has clips.csv (recordings, licences),
repositories.csv and places.csv.

The same command resumes a stopped run with the next source. The scenes are the same each time.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.runtime.files import check_writable_folder

if TYPE_CHECKING:
    from projects.box_model.scenes.builder import PkgAudio

FLAGS = flags.FlagValues()

_PACKAGES = flags.DEFINE_string(
    "packages", None, "Folder for unpacked packages and repositories. Required.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of TFDS datasets to write to. Required.", flag_values=FLAGS
)
_COUNTS = {
    split: flags.DEFINE_integer(
        f"num_{split}", count, f"Scenes in {split}.", lower_bound=1, flag_values=FLAGS
    )
    for split, count in (("train", 20_000), ("solo", 20_000), ("validation", 600), ("test", 1200))
}
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Threads that mix.", lower_bound=1, flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Downloads packages and builds the dataset."""
    del arguments
    logging.set_verbosity(logging.ERROR)  # TFDS warns about its own code.
    try:
        import tensorflow_datasets as tfds

        from data_pipeline.sources.tfds.building import prepare
        from projects.box_model.scenes.builder import PkgAudio
    except ModuleNotFoundError as error:
        raise SatError(f"{error.name} is not installed: pip install 'sat-jax[train]'") from error
    from projects.box_model.scenes.scenes import SOLO
    from projects.box_model.scenes.sound_library import Library, fetch_sources
    from projects.box_model.scenes.soundfont import load_player
    from projects.box_model.scenes.sounds import SPLITS, all_sounds, split_sounds

    counts = {split: flag.value for split, flag in _COUNTS.items()}
    tfds.disable_progress_bar()
    # All checks come before gigabytes are downloaded.
    if _exists(PkgAudio(data_dir=_DATA_DIR.value), counts):
        return False
    check_writable_folder(str(_DATA_DIR.value))
    load_player()
    folder = Path(str(_PACKAGES.value))
    fetch_sources(folder, lambda source, count: print(f"{source}: {count} files", flush=True))
    library = Library(folder)
    every = all_sounds()
    by_split = split_sounds(every)
    gone = {sound.name for sound in library.missing(every)}
    broken = library.load(sound for sound in every if sound.name not in gone)
    for name in sorted(gone):
        PROGRAM.report(f"{name} is missing in this version of its source")
    for reason in broken.values():
        PROGRAM.report(reason)
    left_out = gone | broken.keys()
    # After splitting, so that a missing sound does not change the split of others.
    sounds = {split: [s for s in by_split[split] if s.name not in left_out] for split in SPLITS}
    builder = PkgAudio(
        sounds=sounds,
        read=library.read,
        counts=counts,
        workers=_WORKERS.value,
        progress=True,
        data_dir=_DATA_DIR.value,
    )
    prepare(builder)
    for split in SPLITS:
        print(f"{split}: {counts[split]} scenes of {len(sounds[split])} sounds")
    print(f"{SOLO}: {counts[SOLO]} scenes of one source of train")
    return False


def _exists(builder: "PkgAudio", counts: Mapping[str, int]) -> bool:
    """Prints whether the dataset exists.

    Raises:
      SatError: it exists with other counts.
    """
    if not builder.is_prepared():
        return False
    found = {split: builder.info.splits[split].num_examples for split in counts}
    listed = ", ".join(f"{count} scenes in {split}" for split, count in found.items())
    if found != counts:
        raise SatError(
            f"{builder.data_dir} exists with {listed}: remove it to build it again, or choose "
            "another --data_dir"
        )
    print(f"{builder.data_dir} exists: {listed}")
    return True


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the folders with --packages and --data_dir")
    require_flags(_PACKAGES, _DATA_DIR)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.scenes", sys.argv[1:])
