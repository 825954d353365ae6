"""One training step as a pure function (floor 4)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import numpy as np
import optax

from sat_jax.cache import init_cache
from sat_jax.frontend import log_mel
from sat_jax.losses import binary_cross_entropy
from sat_jax.models.clip import Variables, run_pieces
from sat_jax.models.transformer import INPUT_NORM_MOMENTUM, AudioTransformer
from sat_jax.training.state import TrainState


class Batch(TypedDict):
    """Labelled windows of sound.

    Attributes:
      waveform: float32 [b, s] in [-1, 1] at the model's rate.
      target: float32 [b, y] in [0, 1].
      clips: what people call the clips, b names; shown when a batch breaks the run.
    """

    waveform: np.ndarray
    target: np.ndarray
    clips: NotRequired[Sequence[str]]


class StepMetrics(NamedTuple):
    """What a step tells about itself, float32 scalars.

    Attributes:
      loss: of the batch, before the update.
      grad_norm: global L2 norm of its gradient, before clipping.
    """

    loss: jax.Array
    grad_norm: jax.Array


class Answer(NamedTuple):
    """What a model says to a batch in training.

    Attributes:
      probs: float32 [b, y], mean over the pieces of a window.
      batch_stats: BatchNorm's new running statistics; empty for a model without them.
    """

    probs: jax.Array
    batch_stats: Any


Rngs = dict[str, jax.Array]


def training_loss(
    params: Any,
    batch_stats: Any,
    waveform: jax.Array,
    target: jax.Array,
    *,
    model: AudioTransformer,
    rngs: Rngs,
) -> tuple[jax.Array, Answer]:
    """Binary cross-entropy of a batch, a function of `params` to differentiate.

    The log-mel of a whole window is made and normalised, then cut into pieces that a streaming
    model takes in turn, from an empty cache. Through cached tokens gradients reach the
    projections, but not the pieces that left them.

    Args:
      params: weights.
      batch_stats: BatchNorm's running statistics, or an empty dict.
      waveform: float32 [b, s].
      target: float32 [b, y].
      model: the network.
      rngs: keys named "dropout" and "patchout".

    Returns:
      float32 scalar, and the model's answer.
    """
    config = model.config
    variables = {"params": params, "batch_stats": batch_stats}
    spectrogram = log_mel(waveform, config.frontend)
    normalized, batch_stats = _normalize(model, variables, spectrogram)
    # Keys and values already projected would cut the gradients of the past's projections.
    cache = init_cache(config, waveform.shape[0], "tokens")
    scores, _ = run_pieces(model, variables, normalized, cache, train=True, rngs=rngs)
    probs = (jax.nn.sigmoid(scores) if config.pooling == "logit" else scores).mean(0)
    return binary_cross_entropy(probs, target), Answer(probs, batch_stats)


def train_step(
    state: TrainState,
    waveform: jax.Array,
    target: jax.Array,
    *,
    model: AudioTransformer,
    tx: optax.GradientTransformation,
    key: jax.Array,
) -> tuple[TrainState, StepMetrics]:
    """Updates a model with one batch.

    Args:
      state: before.
      waveform: float32 [b, s].
      target: float32 [b, y].
      model: the network.
      tx: the optimiser.
      key: the run's `jax.random.key`; the step's own follows from it and ``state.step``.

    Returns:
      The state after, and what to log.
    """
    keys = jax.random.split(jax.random.fold_in(key, state.step))
    loss_of = partial(training_loss, model=model, rngs={"dropout": keys[0], "patchout": keys[1]})
    (loss, answer), grads = jax.value_and_grad(loss_of, has_aux=True)(
        state.params, state.batch_stats, waveform, target
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    after = TrainState(state.step + 1, params, answer.batch_stats, opt_state)
    return after, StepMetrics(loss, optax.tree.norm(grads))


def make_train_step(
    model: AudioTransformer, tx: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Compiles `train_step`; the memory of the state before is given to the state after."""
    return jax.jit(partial(train_step, model=model, tx=tx), donate_argnums=0)


def _normalize(
    model: AudioTransformer, variables: Variables, spectrogram: jax.Array
) -> tuple[jax.Array, Any]:
    """Input normalisation with the batch's statistics, and the new running ones."""
    normalized, changed = model.apply(
        variables, spectrogram, train=True, method="normalize", mutable=["batch_stats"]
    )
    if not variables["batch_stats"]:
        return normalized, {}
    before = variables["batch_stats"]["input_norm"]
    after = changed["batch_stats"]["input_norm"]
    count = spectrogram.shape[0] * spectrogram.shape[2]
    var = _unbiased(before["var"], after["var"], count)
    return normalized, {"input_norm": {"mean": after["mean"], "var": var}}


def _unbiased(before: jax.Array, after: jax.Array, count: int) -> jax.Array:
    """The running variance as PyTorch keeps it.

    Flax adds the variance of the batch's `count` values over `count`, PyTorch that over
    `count` - 1, which is larger by the 1 / (count - 1)th part of it.
    """
    added = after - INPUT_NORM_MOMENTUM * before
    return after + added / (count - 1)
