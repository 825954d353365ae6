"""What a training run is, between two steps (floor 4)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """All that a run needs to go on; random keys follow from its seed and `step`.

    Attributes:
      step: int32 scalar, updates made so far.
      params: weights, float32.
      batch_stats: BatchNorm's running statistics; empty for a model without them.
      opt_state: the optimiser's memory.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The model's variable tree, without collections that it does not have."""
        stats = {"batch_stats": self.batch_stats} if self.batch_stats else {}
        return {"params": self.params, **stats}


def init_state(variables: Any, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    Args:
      variables: {"params": …} and, with BatchNorm, {"batch_stats": …}.
      tx: the optimiser.
    """
    # Copies: a training step gives its state's memory away, and these may be someone else's.
    params = jax.tree.map(jnp.array, variables["params"])
    batch_stats = jax.tree.map(jnp.array, variables.get("batch_stats", {}))
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params))
