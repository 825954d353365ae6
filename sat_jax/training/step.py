"""One training step as a pure function."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sat_jax.training.objectives import Arrays, Objective
from sat_jax.training.state import TrainState


class StepMetrics(NamedTuple):
    """What a step tells about itself, float32 scalars.

    Attributes:
      loss: of the batch, before the update.
      grad_norm: global L2 norm of its gradient, before clipping.
    """

    loss: jax.Array
    grad_norm: jax.Array


def train_step(
    state: TrainState,
    batch: Arrays,
    *,
    objective: Objective,
    tx: optax.GradientTransformation,
    ema_decay: float,
    key: jax.Array,
) -> tuple[TrainState, StepMetrics]:
    """Updates a model with one batch.

    Args:
      state: before.
      batch: what is learned from.
      objective: from `make_objective`.
      tx: the optimiser.
      ema_decay: share that the moving average of the weights keeps; 0 without one.
      key: the run's `jax.random.key`; the step's own follows from it and ``state.step``.

    Returns:
      The state after, and what to log.
    """
    step_key = jax.random.fold_in(key, state.step)
    (loss, answer), grads = jax.value_and_grad(objective, has_aux=True)(
        state.params, state.batch_stats, batch, step_key
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    after = TrainState(
        step=state.step + 1,
        params=params,
        ema_params=_average(state, params, ema_decay),
        batch_stats=answer.batch_stats,
        opt_state=opt_state,
    )
    return after, StepMetrics(loss, optax.tree.norm(grads))


def _average(state: TrainState, params: optax.Params, decay: float) -> optax.Params:
    """The moving average of the weights; young ones forget faster, or they kept the first ones."""
    if not decay:
        return state.ema_params
    age = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + age) / (10.0 + age))
    return optax.incremental_update(params, state.ema_params, 1.0 - keep)
