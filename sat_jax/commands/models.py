"""Lists the named models: delay, parameters, published mAP, and where their weights are.

sat-jax models
sat-jax models --format json

delay: length of a chunk, s. mAP: published for AudioSet's evaluation clips in such chunks, %.
weights: "bundled" with the package, "cached" by an earlier download, "to download" when the model
is first used, or "none published": such a model has to be trained.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from sat_jax.runtime.command_line import Program, refuse_arguments

FLAGS = flags.FlagValues()

_FORMAT = flags.DEFINE_enum(
    "format", "table", ["table", "json"], "A table to read, or JSON.", flag_values=FLAGS
)


class Model(NamedTuple):
    """A row of the table.

    Attributes:
      name: in the registry.
      delay: default chunk length, s.
      parameters: how many.
      published_map: mAP in chunks of `delay`, %; None if none is published.
      weights: "bundled", "cached", "to download" or "none published".
      bytes: size of the weights on disk, or about that of the download; None without weights.
    """

    name: str
    delay: float
    parameters: int
    published_map: float | None
    weights: str
    bytes: int | None


def list_models() -> list[Model]:
    """All named models for tagging, in the registry's order."""
    # Imported late: --help should be answered at once. None of these imports JAX.
    from sat_jax.models.registry import MODELS
    from sat_jax.weights.catalog import PUBLISHED, num_parameters

    first_row = {row.model: row for row in reversed(PUBLISHED)}
    models = []
    for name, config in MODELS.items():
        row = first_row.get(name)
        usual = config.target_length / 96 if config.is_streaming else 2.0
        models.append(
            Model(
                name,
                row.delay if row else usual,
                num_parameters(name),
                row.mean_average_precision if row else None,
                *_weights(name),
            )
        )
    return models


def _weights(name: str) -> tuple[str, int | None]:
    from sat_jax.weights.catalog import (
        PUBLISHED_FILES,
        bundled_folder,
        converted_folder,
        published_file,
        weight_bytes,
    )

    if (folder := bundled_folder(name)) is not None:
        return "bundled", _size(folder)
    if name not in PUBLISHED_FILES:
        return "none published", None
    for path in (converted_folder(name), published_file(name)):
        if size := _size(path):
            return "cached", size
    return "to download", weight_bytes(name)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main(arguments: Sequence[str]) -> bool:
    """Runs the command; returns whether anything failed."""
    del arguments
    models = list_models()
    if _FORMAT.value == "json":
        print(json.dumps([model._asdict() for model in models], indent=1))
        return False
    print(f"{'name':<23} {'delay':>5} {'parameters':>10} {'mAP':>5}  {'weights':<14} {'size':>7}")
    for model in models:
        precision = "-" if model.published_map is None else f"{model.published_map:.1f}"
        size = "-" if model.bytes is None else f"{model.bytes / 1e6:.0f} MB"
        print(
            f"{model.name:<23} {model.delay:>3g} s {model.parameters / 1e6:>8.1f} M "
            f"{precision:>5}  {model.weights:<14} {size:>7}"
        )
    return False


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "leave it out, since all models are listed")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
