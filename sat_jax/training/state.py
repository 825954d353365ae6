"""What a training run is, between two steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """All that a run needs to go on; random keys follow from its seed and `step`.

    Attributes:
      step: int32 scalar, steps made so far.
      params: weights, float32.
      ema_params: their moving average; empty in a run without one.
      batch_stats: BatchNorm's running statistics; empty for a model without them.
      opt_state: the optimiser's memory.
    """

    step: jax.Array
    params: Any
    ema_params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variable tree of the model that is measured and exported.

        It holds the moving average where there is one, and no collections that the model lacks.
        """
        stats = {"batch_stats": self.batch_stats} if self.batch_stats else {}
        return {"params": self.ema_params or self.params, **stats}


def init_state(
    variables: Any, tx: optax.GradientTransformation, *, with_ema: bool = False
) -> TrainState:
    """The state before the first step.

    Args:
      variables: {"params": …} and, with BatchNorm, {"batch_stats": …}.
      tx: the optimiser.
      with_ema: whether a moving average of the weights is kept.
    """
    # Copies: a training step gives its state's memory away, and these may be someone else's.
    params = jax.tree.map(jnp.array, variables["params"])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.array, params) if with_ema else {},
        batch_stats=jax.tree.map(jnp.array, variables.get("batch_stats", {})),
        opt_state=tx.init(params),
    )
