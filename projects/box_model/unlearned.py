"""Withholds classes without training sounds: their thresholds become 1, so they are never shown.

python -m projects.box_model.unlearned sat_jax/data/models/SAT_XS_2s

The argument is a checkpoint folder with thresholds.json. A teacher scored these classes in training
scenes, but no recording shows how often a score is right.
"""

import sys
from pathlib import Path

from projects.box_model.scenes.sounds import all_sounds, class_indices, split_sounds
from projects.box_model.stage_log import read_json
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.weights.thresholds_file import thresholds_path, write_thresholds_file


def unlearned_classes() -> list[str]:
    """Returns the classes that no training sound has, not even as a parent of its class."""
    sounds = split_sounds(all_sounds())["train"]
    learned = {index for sound in sounds for index in class_indices(sound.labels)}
    return [label.name for index, label in enumerate(audioset_labels()) if index not in learned]


def withhold(model: Path) -> int:
    """Sets the thresholds of these classes to 1, and returns their number.

    Args:
      model: a checkpoint folder with thresholds.

    Raises:
      SatError: it has none, or they can't be written.
    """
    path = thresholds_path(model)
    if not path.is_file():
        raise SatError(f"{path} does not exist: run sat-jax evaluate --save_thresholds")
    content, names = read_json(path), set(unlearned_classes())
    for row in content["classes"]:
        if row["label"] in names:
            row["threshold"] = 1.0
    classes = content.pop("classes")
    write_thresholds_file(path, content, classes)
    return len(names)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m projects.box_model.unlearned MODEL_FOLDER")
    try:
        print(f"{withhold(Path(sys.argv[1]))} classes are withheld")
    except SatError as error:
        sys.exit(f"unlearned: {error}")
