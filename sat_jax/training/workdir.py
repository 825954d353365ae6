"""The folder of a run and its config.json.

WORKDIR/config.json    the run's config, and the devices and library versions of its last start
WORKDIR/log.jsonl      a line every few steps
WORKDIR/tensorboard/   the same as curves
WORKDIR/checkpoints/   states to resume from
WORKDIR/best/          the best models so far, by their score on the validation clips
WORKDIR/model/         the trained model, once the run is complete
"""

import contextlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from sat_jax.errors import SatError, one_line
from sat_jax.runtime.files import atomic_write, locked_folder
from sat_jax.training.config import TrainConfig
from sat_jax.training.damage import set_aside
from sat_jax.training.processes import is_first, wait_for_all

_LIBRARIES = ("sat-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# A checkpoint fits only a run with the same values of these; they are prefixes of field names.
_FIXED = (
    "model.",
    "ema_decay",
    "optimizer.accumulate",
    "optimizer.clip_norm",
    "optimizer.layer_decay",
)

_VALIDATION = "data.validation_clips"

# These change no weight, so each start of a run may have its own.
_FREE = ("checkpoint_every", "checkpoint_minutes", "fsdp", "keep_checkpoints", "log_every")

_UNKNOWN_CONFIG = "; nothing shows whether this run's config is the same"


@contextlib.contextmanager
def open_workdir(
    folder: Path, config: TrainConfig, *, accept_changes: bool = False
) -> Iterator[None]:
    """Creates or locks the folder of a run, after a check that it belongs to this run.

    A folder without checkpoints may be used with any config.

    Args:
      folder: the workdir.
      config: the run.
      accept_changes: whether to resume a run whose config differs.

    Raises:
      SatError: the folder has a run with another config, is in use, or can't be used.
    """
    with contextlib.ExitStack() as stack:
        if is_first():
            stack.enter_context(locked_folder(folder))
            _check_config(folder, config, accept_changes)
        wait_for_all("workdir")
        yield


def write_config(folder: Path, config: TrainConfig) -> None:
    """Writes config.json; called after all checks have passed.

    Raises:
      SatError: the folder can't be written.
    """
    if not is_first():
        return
    record = {
        "config": config.to_dict(),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "devices": {"kind": jax.devices()[0].device_kind, "count": jax.device_count()},
    }
    with atomic_write(folder / "config.json") as path:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _check_config(folder: Path, config: TrainConfig, accept_changes: bool) -> None:
    path = folder / "config.json"
    if not _has_steps(folder, "checkpoints", "best"):
        return
    if not path.exists():
        print(one_line(f"{path} is missing{_UNKNOWN_CONFIG}"), file=sys.stderr, flush=True)
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))["config"]
        before = flatten_dict(dict(theirs), sep=".")
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        set_aside(path, "it is not whole JSON", _UNKNOWN_CONFIG)
        return
    except (KeyError, TypeError, AttributeError):
        set_aside(path, "it has no config", _UNKNOWN_CONFIG)
        return
    now = flatten_dict(json.loads(json.dumps(config.to_dict())), sep=".")
    _check_changes(folder, before, now, accept_changes)


def _check_changes(
    folder: Path, before: dict[str, Any], now: dict[str, Any], accept_changes: bool
) -> None:
    changes = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name not in _FREE
    ]
    fixed = [name for name in changes if name.startswith(_FIXED)]
    if fixed or (changes and not accept_changes):
        shown = fixed if accept_changes else changes
        way_out = "" if fixed else ", or resume with --accept_changes"
        raise SatError(
            f"{folder} has a run with another config: choose another workdir, undo the changes"
            f"{way_out}: "
            + ", ".join(f"{name} {before.get(name)} to {now.get(name)}" for name in shown)
        )
    if _VALIDATION in changes and _has_steps(folder, "best"):
        raise SatError(
            f"{folder / 'best'} has models scored on other validation clips, so scores can't be "
            "compared: move it elsewhere, or give the same validation clips as before"
        )


def _has_steps(folder: Path, *kinds: str) -> bool:
    saved = [step for kind in kinds for step in folder.glob(f"{kind}/*")]
    return any(step.name.isdecimal() for step in saved)


def _version(library: str) -> str | None:
    """Returns a library's version; None if it runs without being installed."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
