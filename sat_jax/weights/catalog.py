"""Published figures of the named models, and the places of their weights."""

import csv
import math
import os
from pathlib import Path
from typing import NamedTuple

from sat_jax.errors import SatError
from sat_jax.models.registry import MODELS
from sat_jax.models.shapes import weight_shapes
from sat_jax.runtime.files import cache_dir

_DATA = Path(__file__).parents[1] / "data"

BUNDLED = _DATA / "models"
"""Folder with one checkpoint folder for each bundled model."""

DEFAULT_MODEL = "SAT_XS_2s"
"""The model that programs use when none is named."""

PUBLISHED_FILES: dict[str, str] = {
    "audiotransformer_tiny": "audiotransformer_tiny_mAP_44_15.pt",
    "audiotransformer_small": "audiotransformer_small_mAP_45_68.pt",
    "audiotransformer_base": "audiotransformer_base_mAP_47_40.pt",
    "SAT_T_2s": "SAT_T_stream2s_mAP_43_34.pt",
    "SAT_S_2s": "SAT_S_stream2s_mAP_43_37.pt",
    "SAT_B_2s": "SAT_B_stream2s_mAP_45_29.pt",
    "SAT_T_1s": "SAT_T_stream1s_mAP_40_11.pt",
    "SAT_S_1s": "SAT_S_stream1s_mAP_40_55.pt",
    "SAT_B_1s": "SAT_B_stream1s_mAP_41_37.pt",
}
"""File of each published model, by registry name."""

PUBLISHED_URL = "https://zenodo.org/record/7964975/files/{name}?download=1"

TORCH_PREFIXES = (b"PK", b"\x80")
"""First bytes of a file by torch: a zip archive, or a bare pickle before torch 1.6."""


class Published(NamedTuple):
    """A row of the published table.

    Source: the README of RicherMans/SAT on GitHub, with the parameters that its models report.

    Attributes:
      model: name in the registry.
      delay: chunk length, s.
      tokens: new, or new/cached; None where the table leaves it blank.
      parameters: millions, as printed.
      memory: "PeakMem", MiB, as printed.
      gflops: as printed.
      mean_average_precision: on AudioSet's evaluation clips in chunks of `delay`, %.
    """

    model: str
    delay: float
    tokens: str | None
    parameters: str
    memory: str
    gflops: str
    mean_average_precision: float


def _read_published() -> tuple[Published, ...]:
    with (_DATA / "published_models.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return tuple(
        Published(model, float(delay), tokens or None, parameters, memory, gflops, float(precision))
        for model, delay, tokens, parameters, memory, gflops, precision in rows
    )


PUBLISHED = _read_published()
"""The rows of the registry's models; AST, BEATs and HTS-AT are left out."""


def bundled_folder(name: str) -> Path | None:
    """The checkpoint folder of a bundled model; None if no bundled model has this name."""
    return BUNDLED / name if name in bundled_names() else None


def bundled_names() -> list[str]:
    """The names of the bundled models."""
    return sorted(folder.name for folder in BUNDLED.glob("*/"))


def num_parameters(name: str) -> int:
    """Parameters of a model of the registry."""
    shapes = weight_shapes(MODELS[name])
    return sum(math.prod(shape) for array, shape in shapes if array.startswith("params/"))


def weight_bytes(name: str) -> int:
    """Bytes of a model's parameters in float32, which a file of its weights exceeds slightly."""
    return 4 * num_parameters(name)


def published_url(name: str) -> str:
    """The address of the published weights of a model.

    The environment variable ``SAT_JAX_WEIGHTS_URL`` names a mirror: the URL of a folder, or a URL
    with ``{name}`` in place of the file name.

    Raises:
      SatError: no weights of that name are published.
    """
    if name not in PUBLISHED_FILES:
        others = ", ".join([*bundled_names(), *PUBLISHED_FILES])
        if name in MODELS:
            raise SatError(
                f"the model {name!r} has no published weights: train it, try it with "
                f"sat-jax tag --random_weights, or use one of {others}"
            )
        raise SatError(f"no weights are published as {name!r}: use one of {others}")
    form = os.environ.get("SAT_JAX_WEIGHTS_URL") or PUBLISHED_URL
    if "{name}" not in form:
        form = form.rstrip("/") + "/{name}"
    return form.replace("{name}", PUBLISHED_FILES[name])


def published_file(name: str) -> Path:
    """Where the cache keeps the downloaded file of a published model."""
    return cache_dir() / "published" / PUBLISHED_FILES[name]


def converted_folder(name: str) -> Path:
    """Where the cache keeps the converted checkpoint of a published model, and its thresholds."""
    return cache_dir() / "converted" / name


def fetch_published(name: str, *, progress: bool = True) -> Path:
    """The local ``.pt`` file of a published model, downloaded unless the cache has it.

    Args:
      name: a key of `PUBLISHED_FILES`.
      progress: draw a progress bar if standard error is a terminal.

    Raises:
      SatError: no weights of that name are published, or the download failed.
    """
    # Imported late: a program that only asks for a name should start at once.
    from sat_jax.weights.download import download

    url, file = published_url(name), published_file(name)
    # The sizes are not published. Twice the float32 weights leave room for buffers and names.
    try:
        return download(
            url,
            file,
            max_bytes=2 * weight_bytes(name),
            expect_prefix=TORCH_PREFIXES,
            progress=progress,
        )
    except SatError as error:
        is_disk = isinstance(error.__cause__, OSError)
        elsewhere = ", or set SAT_JAX_CACHE to another folder" if is_disk else ""
        raise SatError(
            f"{error}{elsewhere}, or give the path of a file instead of {name}"
        ) from error
