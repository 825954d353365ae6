"""A model on disk: a checkpoint folder, written and read with orbax.

::

    DIR/model/    JSON: format, config, labels, source of the weights, checksums
    DIR/weights/  the variable tree, float32

The folder describes itself: loading it needs nothing else.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sat_jax.config import AnyConfig, MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.shapes import weight_shapes
from sat_jax.runtime.devices import check_devices
from sat_jax.weights.orbax_errors import orbax_errors, orbax_write_errors
from sat_jax.weights.orbax_handlers import patient_handlers

FORMAT = 1
"""Version of this layout; it increases when older programs cannot read new folders."""

_KINDS: dict[str, type[AnyConfig]] = {"transformer": ModelConfig, "mae": MaeConfig}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model: config, weights and class names.

    Attributes:
      config: the architecture.
      variables: {"params": …, "batch_stats": …} of arrays.
      labels: class names in output order; empty for an autoencoder.
      source: origin of the weights, for people.
    """

    config: AnyConfig
    variables: Any
    labels: tuple[str, ...]
    source: str = ""


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint folder completely or not at all.

    Raises:
      SatError: the folder exists or cannot be written.
    """
    import orbax.checkpoint as ocp

    path = Path(folder).resolve()
    if path.exists():
        raise SatError(f"{folder} exists: choose another folder, or delete it first")
    kind = next(name for name, cls in _KINDS.items() if isinstance(checkpoint.config, cls))
    model = {
        "format": FORMAT,
        "kind": kind,
        "config": checkpoint.config.to_dict(),
        "labels": list(checkpoint.labels),
        "source": checkpoint.source,
    }
    model |= {"crc32": _checksum(checkpoint.variables), _MODEL_CHECKSUM: _checksum_of_json(model)}
    items = ocp.args.Composite(
        weights=ocp.args.PyTreeSave(checkpoint.variables),  # type: ignore[call-arg]
        model=ocp.args.JsonSave(model),  # type: ignore[call-arg]
    )
    handler = ocp.CompositeCheckpointHandler()
    with orbax_write_errors(folder), ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(path, args=items)


def fingerprint(config: AnyConfig, variables: Any) -> str:
    """Returns a short hash of a config and its weights."""
    digest = hashlib.sha256(repr(config).encode())
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def is_checkpoint(folder: str | Path) -> bool:
    """Whether a path looks like a checkpoint folder."""
    # Unlike pathlib, os.path takes a name of any length.
    return all(os.path.isdir(Path(folder) / part) for part in ("model", "weights"))


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Reads a checkpoint folder.

    Raises:
      SatError: it is not a checkpoint folder, is damaged, or was written by a newer program.
    """
    path = Path(folder).resolve()
    if not is_checkpoint(path):
        inside = path / "model"  # as in the folder of a training run
        hint = f"; {Path(folder) / 'model'} is one" if is_checkpoint(inside) else ""
        raise SatError(f"{folder} is not a checkpoint folder: it has no model/ and weights/{hint}")
    model = _read_model(path, folder)
    kind = _KINDS.get(str(model["kind"]))
    if model["format"] != FORMAT or kind is None:
        raise SatError(
            f"{folder} is a {model['kind']} in checkpoint format {model['format']}, but this "
            f"program reads {' and '.join(_KINDS)} in format {FORMAT}: upgrade sat-jax"
        )
    try:
        config, labels = kind.from_dict(model["config"]), _labels(model["labels"])
    except (SatError, TypeError, ValueError, AttributeError) as error:
        raise SatError(f"{folder} is damaged: its config is invalid: {error}") from error
    if isinstance(config, ModelConfig) and len(labels) != config.num_classes:
        raise SatError(
            f"{folder} is damaged: it has {len(labels)} labels for {config.num_classes} classes"
        )
    variables = _read_weights(path, folder, config)
    if _checksum(variables) != model["crc32"]:
        raise SatError(f"{folder} is damaged: the checksum of its weights is wrong")
    _check_fit(config, variables, folder)
    # Checked last, because the other checks say more. Old folders do not have this checksum.
    if model[_MODEL_CHECKSUM] not in (None, _checksum_of_json(model)):
        raise SatError(f"{folder} is damaged: the checksum of its config and labels is wrong")
    return Checkpoint(
        config=config,
        variables=variables,
        labels=labels,
        source=model["source"],
    )


def _read_model(path: Path, folder: str | Path) -> dict[str, Any]:
    try:
        # Read without orbax, which takes long to import.
        model = json.loads((path / "model" / "metadata").read_text(encoding="utf-8"))
        return {_MODEL_CHECKSUM: None} | model | {key: model[key] for key in _FIELDS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SatError(f"{folder} is damaged: cannot read its model/metadata: {error}") from error


def _labels(labels: Any) -> tuple[str, ...]:
    if not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise TypeError("its labels are not a list of names")
    return tuple(labels)


_DESCRIPTION = ("format", "kind", "config", "labels", "source")
_FIELDS = (*_DESCRIPTION, "crc32")
_MODEL_CHECKSUM = "model_crc32"
_MOST_ARRAYS = 10_000
# Published autoencoders have an unused classifier, which a checkpoint keeps for their export.
_UNUSED = ("params/encoder/head/", "params/encoder/head_norm/")


def _checksum(variables: Any) -> int:
    """Checksum of the names and values of all arrays; notices a flipped bit."""
    arrays = flatten_dict(variables, sep="/")
    value = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], np.float32)
        value = zlib.crc32(array.data, zlib.crc32(name.encode(), value))
    return value


def _checksum_of_json(model: dict[str, Any]) -> int:
    """Checksum of everything except the weights."""
    described = {key: model[key] for key in _DESCRIPTION}
    return zlib.crc32(json.dumps(described, sort_keys=True).encode())


def _check_fit(config: AnyConfig, variables: Any, folder: str | Path) -> None:
    have = {name: np.shape(array) for name, array in flatten_dict(variables, sep="/").items()}
    for name, shape in weight_shapes(config):
        if (found := have.pop(name, None)) != shape:
            odd = f"{name} " + (
                "is missing" if found is None else f"is {list(found)} instead of {list(shape)}"
            )
            break
    else:
        unused = _UNUSED if isinstance(config, MaeConfig) else ()
        odd = next((f"{name} is unexpected" for name in have if not name.startswith(unused)), "")
    if odd:
        raise SatError(f"{folder} is damaged: its weights do not fit its config: {odd}")


def _read_weights(path: Path, folder: str | Path, config: AnyConfig) -> Any:
    import orbax.checkpoint as ocp

    check_devices()
    # As NumPy arrays they load on any machine, whichever devices wrote them.
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    # A damaged config could ask for any number of arrays.
    names = [name for name, _ in itertools.islice(weight_shapes(config), _MOST_ARRAYS)]
    expected = unflatten_dict(dict.fromkeys(names, as_numpy), sep="/")
    with orbax_errors(f"{folder} is damaged: cannot read its weights"):
        handler = ocp.CompositeCheckpointHandler(
            weights=ocp.PyTreeCheckpointHandler(type_handler_registry=patient_handlers()),
            model=ocp.JsonCheckpointHandler(),
        )
        with ocp.Checkpointer(handler) as checkpointer:

            def restore(how: Any) -> Any:
                items = ocp.args.Composite(
                    weights=ocp.args.PyTreeRestore(restore_args=how)  # type: ignore[call-arg]
                )
                return checkpointer.restore(path, args=items)["weights"]

            try:
                return restore(expected)
            except ValueError:
                # If other arrays are there, `_check_fit` names them once they are read. Asking
                # orbax for their names first would take as long as reading them.
                tree = checkpointer.metadata(path).item_metadata["weights"].tree
                return restore(jax.tree.map(lambda _: as_numpy, tree))
