"""AdamW with warm-up and cosine, as an optax transformation."""

import functools
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


def layer_scales(params: Any, decay: float) -> Any:
    """Share of the learning rate that each weight has with layer-wise decay (BEiT, appendix).

    Args:
      params: a tree of weights of a tagger; an autoencoder has no such thing as a lowest layer.
      decay: rate of a block over that of the block above it, in [0, 1].

    Returns:
      The same tree of floats: 1 for head and last norms, ``decay`` for the last block, and so on
      down to the patch embedding and positions, below the first block.
    """
    blocks = {name: int(name.removeprefix("blocks_")) for name in params if "blocks_" in name}
    depth = len(blocks)
    above = {"norm": depth, "head_norm": depth, "head": depth}

    def scale(path: Any, _: Any) -> float:
        part = path[0].key
        return float(decay ** (depth - above.get(part, blocks.get(part, -1))))

    return jax.tree_util.tree_map_with_path(scale, params)


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW with `make_schedule` and `decay_mask`; float32 memory.

    Args:
      config: its settings.
      num_steps: steps in the run; with ``accumulate``, so many of them make one update.
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
        # Gradients of what stays as it is have no say in how far the others are clipped.
        tx = optax.partition({"learns": tx, "stays": optax.set_to_zero()}, _top_learns)
    if config.accumulate == 1:
        return tx
    return optax.MultiSteps(tx, config.accumulate).gradient_transformation()


def _top_learns(params: Any) -> Any:
    return jax.tree.map(lambda share: "learns" if share else "stays", layer_scales(params, 0.0))


def _scale_layers(updates: Any, params: Any, *, decay: float) -> Any:
    return jax.tree.map(lambda update, share: share * update, updates, layer_scales(params, decay))
