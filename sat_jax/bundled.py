"""Trained models that come with the package (floor 0)."""

from pathlib import Path

BUNDLED = Path(__file__).parent / "data" / "models"
"""Holds a checkpoint folder for each."""

DEFAULT_MODEL = "SAT_T_2s"
"""The model that programs use where none is named."""


def bundled_folder(name: str) -> Path | None:
    """The checkpoint folder of a bundled model, or None where there is none of this name."""
    folder = BUNDLED / name
    return folder if name and folder.parent == BUNDLED and folder.is_dir() else None
