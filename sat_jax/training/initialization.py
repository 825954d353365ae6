"""Decides what a run starts from: class names, weights and input statistics."""

from collections.abc import Sequence
from typing import Any

import jax

from sat_jax.config import AnyConfig, MaeConfig
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.weights.checkpoint import Checkpoint
from sat_jax.weights.warm_start import (
    FreshStart,
    copies_input_statistics,
    fresh_variables,
    start_from,
)


def output_names(
    model: AnyConfig, labels: Sequence[str], init: Checkpoint | None = None
) -> Sequence[str]:
    """Returns the class names of a model's outputs.

    Args:
      model: the model to train.
      labels: the user's own classes; empty if there are none.
      init: the model whose classes are kept if there are no own ones and the numbers agree.

    Returns:
      Own classes, else those of `init`, else AudioSet's; none for an autoencoder.

    Raises:
      SatError: own classes are given for an autoencoder.
    """
    if isinstance(model, MaeConfig):
        if labels:
            raise SatError("an autoencoder has no classes: leave out --labels")
        return ()
    if not labels and init and len(init.labels) == model.num_classes:
        return init.labels
    return labels or default_label_names(model.num_classes)


def check_input_norm(model: AnyConfig, init: Checkpoint | None, name: str | None) -> None:
    """Checks that a run with ``frozen_input_norm`` has input statistics to keep.

    Args:
      model: the model to train.
      init: the model to start from.
      name: what the user called it.

    Raises:
      SatError: the model needs statistics, and `init` has none for it.
    """
    if getattr(model, "input_norm", None) != "batch":
        return
    if init is None or not copies_input_statistics(init.config, model):
        lack = f"--init={name} has no input statistics for it" if init else "there is no --init"
        raise SatError(
            f"frozen_input_norm=True keeps the input statistics of --init, but {lack}: give a "
            "model that has them, or set --config.frozen_input_norm=False"
        )


def initial_variables(
    model: AnyConfig,
    key: jax.Array,
    fresh: FreshStart,
    *,
    init: Checkpoint | None = None,
    labels: Sequence[str] = (),
) -> tuple[Any, Sequence[str]]:
    """Returns the weights that a run starts from.

    Args:
      model: the model to train.
      key: a `jax.random.key`.
      fresh: how random weights are drawn.
      init: the model whose weights are used where they fit; None draws all at random.
      labels: the user's own classes; see `start_from`.

    Returns:
      The Flax variable tree, and notes on what was not taken from `init`.

    Raises:
      SatError: the transformers of `init` and `model` differ.
    """
    if init is None:
        return jax.jit(fresh_variables, static_argnums=(0, 2))(model, key, fresh), ()
    return start_from(init, model, key, fresh, labels=labels)
