"""AdamW with warm-up and cosine decay, as an optax transformation."""

import functools
from typing import Any

import jax
import optax

from sat_jax.training.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Returns the learning rate schedule of a run.

    Args:
      config: the optimiser's settings.
      num_steps: number of updates in the run.

    Returns:
      From the number of updates made so far to the learning rate of the next one. It rises
      linearly to the maximum, reached at the last update of the warm-up, then follows half a cosine
      to the final value, reached at the last update.
    """
    warmup_steps = round(config.warmup_fraction * num_steps)
    schedule = optax.cosine_decay_schedule(
        config.learning_rate, max(num_steps - warmup_steps, 1), alpha=config.final_fraction
    )
    if warmup_steps:
        line = optax.linear_schedule(0.0, config.learning_rate, warmup_steps)
        schedule = optax.join_schedules([line, schedule], [warmup_steps])
    # optax counts updates from 0; a rate of 0 would waste the first one.
    return lambda count: schedule(count + 1)


def decay_mask(params: Any) -> Any:
    """Selects the weights that decay: the kernels of linear layers.

    Position embeddings, cls and mask tokens, biases, LayerScale and norm scales don't decay.

    Args:
      params: a tree of weights.

    Returns:
      The same tree of bools.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def layer_scales(params: Any, decay: float) -> Any:
    """Returns the learning rate factor of each weight, for layer-wise decay (BEiT, appendix).

    Args:
      params: the weights of a tagger.
      decay: learning rate of a block relative to that of the next block, in [0, 1].

    Returns:
      The same tree of floats: 1 for the head and the last norms, ``decay`` for the last block, and
      so on down to the patch embedding and positions, one level below the first block.
    """
    blocks = {name: int(name.removeprefix("blocks_")) for name in params if "blocks_" in name}
    depth = len(blocks)
    above = {"norm": depth, "head_norm": depth, "head": depth}

    def scale(path: Any, _: Any) -> float:
        part = path[0].key
        return float(decay ** (depth - above.get(part, blocks.get(part, -1))))

    return jax.tree_util.tree_map_with_path(scale, params)


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Returns gradient clipping, then AdamW with `make_schedule` and `decay_mask`, in float32.

    Args:
      config: the optimiser's settings.
      num_steps: number of steps in the run; ``accumulate`` of them make one update.
    """
    parts = [
        optax.adamw(
            make_schedule(config, -(-num_steps // config.accumulate)),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        )
    ]
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if 0.0 < config.layer_decay < 1.0:
        parts.append(optax.stateless(functools.partial(_scale_layers, decay=config.layer_decay)))
    tx = optax.chain(*parts)
    if config.layer_decay == 0.0:
        # Clipping must not depend on the gradients of frozen weights. Checkpoints hold the labels.
        tx = optax.partition({"learns": tx, "stays": optax.set_to_zero()}, _freeze_all_but_head)
    if config.accumulate == 1:
        return tx
    return optax.MultiSteps(tx, config.accumulate).gradient_transformation()


def _freeze_all_but_head(params: Any) -> Any:
    scales = layer_scales(params, 0.0)
    return jax.tree.map(lambda scale: "learns" if scale else "stays", scales)


def _scale_layers(updates: Any, params: Any, *, decay: float) -> Any:
    return jax.tree.map(lambda update, scale: scale * update, updates, layer_scales(params, decay))
