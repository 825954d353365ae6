"""The folder of a run: its config, its log.

WORKDIR/config.json    what is run, and the devices and library versions it was last run with
WORKDIR/log.jsonl      a line every few steps
WORKDIR/tensorboard/   the same as curves
WORKDIR/checkpoints/   states to go on from
WORKDIR/best/          the best models so far, measured on the validation clips
WORKDIR/model/         the trained model, once the run is through
"""

import contextlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors, locked_folder
from sat_jax.training.config import TrainConfig

_LIBRARIES = ("sat-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# What checkpoints are made for; each of these names stands for all that it begins.
_HELD = (
    "model.",
    "ema_decay",
    "optimizer.accumulate",
    "optimizer.clip_norm",
    "optimizer.layer_decay",
)

_VALIDATION = "data.validation_clips"

# What may change from one start of a run to the next, since it changes no weight.
_FREE = ("checkpoint_every", "checkpoint_minutes", "fsdp", "keep_checkpoints", "log_every")


@contextlib.contextmanager
def open_workdir(
    folder: Path, config: TrainConfig, *, accept_changes: bool = False
) -> Iterator[None]:
    """Makes the folder of a run, or checks that it is this run's, and keeps others out of it.

    A run that never saved anything leaves nothing to be kept apart.

    Args:
      folder: where it is.
      config: the run.
      accept_changes: whether another config may go on with the steps that were made.

    Raises:
      SatError: another run's config is there, another program trains there, or the folder can't
        be used.
    """
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(locked_folder(folder))
            _check_config(folder, config, accept_changes)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("workdir")
        yield


def write_config(folder: Path, config: TrainConfig) -> None:
    """Keeps what is run from here on, once nothing speaks against it.

    Args:
      folder: where it is, opened by `open_workdir`.
      config: the run.

    Raises:
      SatError: the folder can't be written to.
    """
    if jax.process_index() > 0:
        return
    about = {
        "config": config.to_dict(),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "devices": {"kind": jax.devices()[0].device_kind, "count": jax.device_count()},
    }
    try:
        _replace(folder / "config.json", json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise SatError(f"{folder} can't be used as a workdir: {error}") from error


def _check_config(folder: Path, config: TrainConfig, accept_changes: bool) -> None:
    path = folder / "config.json"
    try:
        if path.exists() and _has_steps(folder, "checkpoints", "best"):
            theirs = json.loads(path.read_text(encoding="utf-8"))["config"]
            ours = json.loads(json.dumps(config.to_dict()))
            _check_same(folder, theirs, ours, accept_changes)
    except OSError as error:
        raise SatError(f"{folder} can't be used as a workdir: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SatError(f"{path} is damaged: choose another workdir ({error})") from error


def _version(library: str) -> str | None:
    """A library's version, None where it is used without being installed."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has_steps(folder: Path, *kinds: str) -> bool:
    saved = [step for kind in kinds for step in folder.glob(f"{kind}/*")]
    return any(step.name.isdecimal() for step in saved)


def _check_same(
    folder: Path, theirs: dict[str, Any], ours: dict[str, Any], accept_changes: bool
) -> None:
    before, now = (flatten_dict(data, sep=".") for data in (theirs, ours))
    changes = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name not in _FREE
    ]
    held = [name for name in changes if name.startswith(_HELD)]
    if held or (changes and not accept_changes):
        told = held if accept_changes else changes
        way_out = "" if held else ", or go on all the same with --accept_changes"
        raise SatError(
            f"{folder} holds a run with another config: choose another workdir, take back what "
            f"was changed{way_out}: "
            + ", ".join(f"{name} {before.get(name)} to {now.get(name)}" for name in told)
        )
    if _VALIDATION in changes and _has_steps(folder, "best"):
        raise SatError(
            f"{folder / 'best'} holds models that were measured on other clips, which do not "
            "compare: move it elsewhere, or take back what was changed in the validation clips"
        )


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


class RunLog:
    """Lines of JSON about the steps of a run, in order, none twice."""

    def __init__(self, path: Path, *, step: int) -> None:
        """Opens a log to go on behind a step.

        Args:
          path: the file.
          step: what an earlier start wrote about later steps is dropped: they are made again.

        Raises:
          SatError: the file can't be written.
        """
        self._path, kept = path, []
        with explain_write_errors(path):
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines()
                kept = [line for line in lines if _is_until(line, step)]
                _replace(path, "".join(f"{line}\n" for line in kept))
            self._file = path.open("a", encoding="utf-8")
        self.was_measured = any(_is_measure_of(line, step) for line in kept)
        """Whether an earlier start measured the model after that step."""

    def write(self, **fields: object) -> None:
        """Adds a line.

        Raises:
          SatError: it can't be written.
        """
        with explain_write_errors(self._path):
            self._file.write(json.dumps(fields) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        # Lines are on disk as soon as they are written; one that could not be is told of already.
        with contextlib.suppress(OSError):
            self._file.close()


def _is_measure_of(line: str, step: int) -> bool:
    fields = json.loads(line)
    return fields["step"] == step and "validation" in fields


def _is_until(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):  # the half line of a killed program
        return False
