"""The compiled step of a run, and the shapes that go into it.

Nothing here needs arrays, so a step can be compiled for devices that are not there.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sat_jax.config import MaeConfig
from sat_jax.runtime.sharding import batch_sharding, replicated, state_sharding
from sat_jax.streaming.pieces import Variables
from sat_jax.training.config import TrainConfig
from sat_jax.training.objectives import make_objective
from sat_jax.training.optimizer import make_optimizer
from sat_jax.training.state import TrainState, init_state
from sat_jax.training.step import StepMetrics, train_step
from sat_jax.weights.warm_start import fresh_variables

Step = Callable[..., tuple[TrainState, StepMetrics]]


@functools.cache  # A run that is taken up again in the same process is not compiled again.
def compiled_step(config: TrainConfig, mesh: Mesh) -> Step:
    """`train_step` of a run on a mesh; the memory of the state before is given to the one after.

    Args:
      config: the run.
      mesh: its devices.

    Returns:
      From ``state``, ``batch`` and the run's ``key=`` to the next state and what to log; made by
      `jax.jit`.
    """
    placed = jax.tree.map(lambda x: x.sharding, state_shape(config, mesh))
    return jax.jit(
        functools.partial(
            train_step,
            objective=make_objective(config),
            tx=make_optimizer(config.optimizer, config.num_steps),
            ema_decay=config.ema_decay,
        ),
        donate_argnums=0,
        out_shardings=(placed, replicated(mesh)),
    )


def make_state(config: TrainConfig, variables: Variables) -> TrainState:
    """The state of a run before its first step."""
    tx = make_optimizer(config.optimizer, config.num_steps)
    return init_state(variables, tx, with_ema=config.ema_decay > 0.0)


def state_shape(config: TrainConfig, mesh: Mesh) -> TrainState:
    """Shapes, types and places of a run's state."""
    shape = jax.eval_shape(
        lambda key: make_state(config, fresh_variables(config.model, key)), jax.random.key(0)
    )
    places = state_sharding(mesh, shape, fsdp=config.fsdp)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shape, places
    )


def batch_shape(
    config: TrainConfig, mesh: Mesh, *, batch_size: int, num_samples: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and places of a batch.

    Args:
      config: the run.
      mesh: its devices.
      batch_size: examples on all devices together.
      num_samples: samples of each.
    """
    shapes = {"waveform": (batch_size, num_samples)}
    if not isinstance(config.model, MaeConfig):
        shapes["target"] = (batch_size, config.model.num_classes)
    place = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
        for name, shape in shapes.items()
    }
