"""AdamW with warm-up and cosine, as an optax transformation (floor 4)."""

from typing import Any

import jax
import optax

from sat_jax.training.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """The learning rate over a run.

    Args:
      config: the optimiser's settings.
      num_steps: updates in the run.

    Returns:
      From the number of updates made so far to the learning rate of the next one: a line that
      reaches the highest at the last update of the warm-up, then a half cosine that reaches the
      final one at the last update.
    """
    warmup_steps = round(config.warmup_fraction * num_steps)
    schedule = optax.cosine_decay_schedule(
        config.learning_rate, max(num_steps - warmup_steps, 1), alpha=config.final_fraction
    )
    if warmup_steps:
        line = optax.linear_schedule(0.0, config.learning_rate, warmup_steps)
        schedule = optax.join_schedules([line, schedule], [warmup_steps])
    # optax counts updates from 0, where a rate of 0 would waste the first.
    return lambda count: schedule(count + 1)


def decay_mask(params: Any) -> Any:
    """Which weights decay: kernels of linear layers, and nothing else.

    Positions, cls token and its position, mask token, biases, LayerScale and the scales of
    normalisations must stay free to be what they are.

    Args:
      params: a tree of weights.

    Returns:
      The same tree of bools.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW with `make_schedule` and `decay_mask`; float32 memory.

    Args:
      config: its settings.
      num_steps: updates in the run.
    """
    adamw = optax.adamw(
        make_schedule(config, num_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    if not config.clip_norm:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
