"""Writes an exported folder: the model, what it needs to know, and a program that runs it."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sat_jax.config import Warmup
from sat_jax.errors import SatError
from sat_jax.export.signature import NEW, PROBS, SAMPLES, Arrays, initial_state, state_arrays
from sat_jax.labels import audioset_labels
from sat_jax.runtime.files import explain_write_errors
from sat_jax.streaming.model import StreamingModel
from sat_jax.weights.checkpoint import Checkpoint, fingerprint

FORMAT = 1
"""Version of export.json; it increases when older programs cannot read new folders."""

ABOUT_FILE, STATE_FILE, PROGRAM_FILE = "export.json", "state.bin", "run.py"

Files = Callable[[Mapping[str, Any], Arrays], Mapping[str, bytes]]
"""Makes files, by path in the folder, from export.json's content and the state of a new stream."""

_RUNNER = Path(__file__).parent / "runner" / PROGRAM_FILE


def write_folder(
    folder: Path,
    model: StreamingModel,
    checkpoint: Checkpoint,
    *,
    model_file: str,
    content: bytes,
    about: dict[str, Any],
    thresholds: Sequence[float] | None,
    warmup: Warmup,
    files: Files,
) -> None:
    """Writes a folder completely or not at all.

    Args:
      folder: it must not exist.
      model: what was exported.
      checkpoint: its weights, labels and source.
      model_file: name of the exported file.
      content: of that file.
      about: the format's own facts for export.json.
      thresholds: of each class; None if the model has none.
      warmup: what the cache of a new stream holds.
      files: makes more files.

    Raises:
      SatError: the folder exists or cannot be written.
    """
    if folder.exists():
        raise SatError(f"{folder} exists: choose another folder, or delete it first")
    with explain_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            new = Path(temporary) / folder.name
            new.mkdir()
            initial = initial_state(model, checkpoint.variables, warmup)
            facts = {
                "format": FORMAT,
                **about,
                "model_file": model_file,
                "sha256": hashlib.sha256(content).hexdigest(),
                **_facts(model, checkpoint),
                "labels": _labels(checkpoint.labels, thresholds),
            }
            written = {
                model_file: content,
                ABOUT_FILE: (json.dumps(facts, indent=1) + "\n").encode(),
                STATE_FILE: b"".join(map(little_endian, initial.values())),
                **files(facts, initial),
            }
            for name, data in written.items():
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_bytes(data)
            shutil.copyfile(_RUNNER, new / PROGRAM_FILE)
            new.rename(folder)


def little_endian(array: np.ndarray) -> bytes:
    """Returns the bytes of an array, in row-major order."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _facts(model: StreamingModel, checkpoint: Checkpoint) -> dict[str, Any]:
    config, framing = model.config, model.framing
    return {
        "source": checkpoint.source,
        "weights": fingerprint(config, checkpoint.variables),
        "licence": "The program is licensed under Apache-2.0. The weights have the licence of "
        "their source: Apache-2.0 for the bundled model, GPL-3.0 for the published ones.",
        "sample_rate": config.frontend.sample_rate,
        "framing": framing.kind,
        "hop": framing.hop,
        "window": framing.window,
        "margin": framing.margin,
        "inputs": [SAMPLES, *(each.name for each in state_arrays(model))],
        "outputs": [PROBS, *(NEW + each.name for each in state_arrays(model))],
        "state": [each._asdict() for each in state_arrays(model)],
        "state_file": STATE_FILE,
    }


def _labels(names: Sequence[str], thresholds: Sequence[float] | None) -> list[dict[str, Any]]:
    ids = {label.name: label.mid for label in audioset_labels()}
    rows: list[dict[str, Any]] = [{"name": name, "id": ids.get(name)} for name in names]
    if thresholds is not None:
        for row, threshold in zip(rows, thresholds, strict=True):
            row["threshold"] = round(float(threshold), 6)
    return rows
