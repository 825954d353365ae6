"""The state of a run, and one training step as a pure and as a compiled function."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from sat_jax.runtime.sharding import replicated, state_sharding
from sat_jax.training.config import TrainConfig
from sat_jax.training.objectives import Arrays, Objective, make_objective
from sat_jax.training.optimizer import make_optimizer
from sat_jax.weights.warm_start import fresh_variables

Step = Callable[..., tuple["TrainState", "StepMetrics"]]


class TrainState(NamedTuple):
    """State of a run, enough to resume it; random keys follow from its seed and `step`.

    Attributes:
      step: int32 scalar, number of steps made.
      params: weights, float32.
      ema_params: moving average of the weights; empty in a run without it.
      batch_stats: running statistics of BatchNorm; empty for a model without it.
      opt_state: state of the optimiser.
    """

    step: jax.Array
    params: Any
    ema_params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The Flax variable tree that is validated and exported.

        Its weights are the moving average if there is one.
        """
        stats = {"batch_stats": self.batch_stats} if self.batch_stats else {}
        return {"params": self.ema_params or self.params, **stats}


class StepMetrics(NamedTuple):
    """Results of a step, float32 scalars.

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
      state: the state before.
      batch: see `Arrays`.
      objective: from `make_objective`.
      tx: the optimiser.
      ema_decay: decay of the moving average of the weights; 0 for none.
      key: the run's `jax.random.key`. The step's key follows from it and ``state.step``.

    Returns:
      The state after, and the results to log.
    """
    step_key = jax.random.fold_in(key, state.step)
    (loss, output), grads = jax.value_and_grad(objective, has_aux=True)(
        state.params, state.batch_stats, batch, step_key
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    after = TrainState(
        step=state.step + 1,
        params=params,
        ema_params=_update_average(state, params, ema_decay),
        batch_stats=output.batch_stats,
        opt_state=opt_state,
    )
    return after, StepMetrics(loss, optax.tree.norm(grads))


def _update_average(state: TrainState, params: optax.Params, decay: float) -> optax.Params:
    """Returns the moving average; a smaller decay at first keeps it from the initial weights."""
    if not decay:
        return state.ema_params
    age = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + age) / (10.0 + age))
    return optax.incremental_update(params, state.ema_params, 1.0 - keep)


def init_state(
    variables: Any, tx: optax.GradientTransformation, *, with_ema: bool = False
) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: {"params": …} and, with BatchNorm, {"batch_stats": …}.
      tx: the optimiser.
      with_ema: whether a moving average of the weights is kept.
    """
    # Copies, because a training step donates the memory of its state.
    params = jax.tree.map(jnp.array, variables["params"])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.array, params) if with_ema else {},
        batch_stats=jax.tree.map(jnp.array, variables.get("batch_stats", {})),
        opt_state=tx.init(params),
    )


def make_state(config: TrainConfig, variables: Any) -> TrainState:
    """Returns the state of a run before its first step."""
    tx = make_optimizer(config.optimizer, config.num_steps)
    return init_state(variables, tx, with_ema=config.ema_decay > 0.0)


def state_shape(config: TrainConfig, mesh: Mesh) -> TrainState:
    """Returns shapes, dtypes and shardings of a run's state as `jax.ShapeDtypeStruct`."""
    shape = jax.eval_shape(
        lambda key: make_state(config, fresh_variables(config.model, key)), jax.random.key(0)
    )
    shardings = state_sharding(mesh, shape, fsdp=config.fsdp)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shape,
        shardings,
    )


@functools.cache  # A run that is resumed in the same process is not compiled again.
def compiled_step(config: TrainConfig, mesh: Mesh) -> Step:
    """Returns `train_step` of a run, jitted for a mesh. It donates the state it is given.

    Args:
      config: the run.
      mesh: its devices. They need not exist: `lower` and `compile` work for described ones.

    Returns:
      A function of ``state``, ``batch`` and the run's ``key=``.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state_shape(config, mesh))
    return jax.jit(
        functools.partial(
            train_step,
            objective=make_objective(config),
            tx=make_optimizer(config.optimizer, config.num_steps),
            ema_decay=config.ema_decay,
        ),
        donate_argnums=0,
        out_shardings=(shardings, replicated(mesh)),
    )
