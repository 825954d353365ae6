"""Trained models that come with the package."""

from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "data" / "models"
"""Holds a checkpoint folder for each."""

DEFAULT_MODEL = "SAT_XS_2s"
"""The model that programs use where none is named."""


def bundled_folder(name: str) -> Path | None:
    """The checkpoint folder of a bundled model, or None where there is none of this name."""
    return BUNDLED / name if name in bundled_names() else None


def bundled_names() -> list[str]:
    """The names of the bundled models."""
    return sorted(folder.name for folder in BUNDLED.glob("*/"))
