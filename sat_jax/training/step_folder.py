"""Reads the folder of one step without the other processes.

orbax's manager waits for the other processes after it has read, even if one of them failed.
"""

import contextlib
from pathlib import Path
from typing import Any

from sat_jax.weights.orbax_errors import orbax_errors
from sat_jax.weights.orbax_handlers import patient_handlers

_ITEM = "default"
"""Where orbax puts the only tree of a step."""


def load_metadata(folder: Path) -> dict[str, Any]:
    """Returns what was saved beside the tree of a step; empty if an older program wrote it."""
    from etils import epath

    path = epath.Path(folder.resolve() / _ITEM)
    with _opened() as handler:
        return dict(handler.metadata(path).custom_metadata or {})


def load_tree(folder: Path, like: Any) -> tuple[Any, int | None]:
    """Returns the tree of a step; and its checksum, None if an older program wrote it.

    Args:
      folder: the step's folder.
      like: a tree of `jax.ShapeDtypeStruct` with the shardings to use.

    Raises:
      SatError: it can't be read.
    """
    import orbax.checkpoint as ocp
    from etils import epath

    path = epath.Path(folder.resolve() / _ITEM)
    with (
        orbax_errors("it can't be read"),
        _opened() as handler,
    ):
        expected = load_metadata(folder).get("checksum")
        how = ocp.checkpoint_utils.construct_restore_args(like)
        args = ocp.args.PyTreeRestore(like, restore_args=how)  # type: ignore[call-arg]
        tree = handler.restore(path, args=args)
    return tree, expected


def _opened() -> contextlib.closing[Any]:
    import orbax.checkpoint as ocp

    return contextlib.closing(ocp.PyTreeCheckpointHandler(type_handler_registry=patient_handlers()))
