"""Warm starts: the first weights of a model from the weights of another.

Clip models, streaming models and the encoders of autoencoders are the same transformer, so each
can start from any other. Arrays that fit are copied, positions are resized, the rest is random.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.tree_util import tree_map_with_path

from sat_jax.config import AnyConfig, MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.linear import LINEAR_STD
from sat_jax.models.mae import init_mae_variables
from sat_jax.models.positions import resize_positions
from sat_jax.models.transformer import init_variables
from sat_jax.weights.checkpoint import Checkpoint

_Arrays = dict[str, np.ndarray]
"""Arrays by name, such as "params/head/bias"."""


class FreshStart(NamedTuple):
    """Settings of random weights.

    Attributes:
      head_bias: bias of every class, a logit; an autoencoder has no classes and ignores it.
      glorot: scale each matrix by its size (Glorot and Bengio 2010, eq. 16) instead of 0.02, which
        suits widths of some hundreds.
    """

    head_bias: float = 0.0
    glorot: bool = False


AS_PUBLISHED = FreshStart()


def fresh_variables(config: AnyConfig, key: jax.Array, start: FreshStart = AS_PUBLISHED) -> Any:
    """Returns random weights as a Flax variable tree.

    Args:
      config: the model.
      key: a `jax.random.key`.
      start: their settings.
    """
    if isinstance(config, MaeConfig):
        variables = init_mae_variables(config, key)
    else:
        variables = init_variables(config, key)
        head = variables["params"]["head"]
        head = {**head, "bias": jnp.full_like(head["bias"], start.head_bias)}
        variables = {**variables, "params": {**variables["params"], "head": head}}
    if not start.glorot:
        return variables
    return {**variables, "params": tree_map_with_path(_to_glorot, variables["params"])}


def _to_glorot(path: Sequence[Any], array: jax.Array) -> jax.Array:
    if path[-1].key != "kernel" or array.ndim != 2:
        return array
    return array * (math.sqrt(2.0 / sum(array.shape)) / LINEAR_STD)


def start_from(
    source: Checkpoint,
    config: AnyConfig,
    key: jax.Array,
    start: FreshStart = AS_PUBLISHED,
    *,
    labels: Sequence[str] = (),
) -> tuple[Any, list[str]]:
    """Makes the first weights of a model from a checkpoint of another.

    Args:
      source: the model to start from.
      config: the model to train.
      key: a `jax.random.key` for random arrays.
      start: settings of random arrays.
      labels: class names to train, if known. If the source has other classes, or another order,
        the head is random.

    Returns:
      The variables of `config` as NumPy arrays, with BatchNorm statistics; and notes on arrays that
      were resized, random or left out.

    Raises:
      SatError: the transformers differ in width, depth or MLP ratio.
    """
    _check_same_blocks(source.config, config)
    shapes = flatten_dict(jax.eval_shape(partial(fresh_variables, config), key), sep="/")
    offered, refused = _offers(source, config)
    if labels and tuple(labels) != source.labels:
        heads = {name for name in offered if re.fullmatch(r"\w+/head/.*", name)}
        same_size = {n for n in heads & shapes.keys() if shapes[n].shape == offered[n].shape}
        offered = {name: array for name, array in offered.items() if name not in same_size}
        refused |= same_size
    fitted = {
        name: _fitted(name, offered[name], shapes[name].shape, source.config, config)
        for name in shapes.keys() & offered.keys()
    }
    taken = {name: array for name, array in fitted.items() if array is not None}
    resized = [name for name, array in taken.items() if array.shape != offered[name].shape]
    notes = [
        *(f"resized: {_part(n)}, {len(offered[n])} to {len(taken[n])}" for n in sorted(resized)),
        *_note("fresh, of another size", fitted.keys() - taken.keys()),
        *_note("fresh, not in the source", shapes.keys() - offered.keys()),
        *_note("left out", refused | (offered.keys() - shapes.keys())),
    ]
    fresh = partial(fresh_variables, config, start=start)
    arrays = taken | _some_arrays(fresh, key, shapes.keys() - taken.keys())
    return unflatten_dict({name: arrays[name] for name in shapes}, sep="/"), notes


def copies_input_statistics(source: AnyConfig, config: AnyConfig) -> bool:
    """Whether `start_from` copies the BatchNorm statistics of the input."""
    have, want = _transformer(source), _transformer(config)
    same_bands = have.frontend.n_mels == want.frontend.n_mels
    return have.input_norm == want.input_norm == "batch" and same_bands


def _some_arrays(fresh: Callable[[jax.Array], Any], key: jax.Array, names: Set[str]) -> _Arrays:
    """The named arrays of random variables; faster than making all of them."""

    def some(key: jax.Array) -> dict[str, jax.Array]:
        flat = flatten_dict(fresh(key), sep="/")
        return {name: flat[name] for name in names}

    return {name: np.asarray(x) for name, x in jax.jit(some)(key).items()} if names else {}


def _check_same_blocks(source: AnyConfig, config: AnyConfig) -> None:
    have, want = _transformer(source), _transformer(config)
    for name in ("width", "depth", "mlp_ratio"):
        if getattr(have, name) != getattr(want, name):
            raise SatError(
                f"a model with {name}={getattr(want, name)} cannot start from one with "
                f"{name}={getattr(have, name)}"
            )


def _transformer(config: AnyConfig) -> ModelConfig:
    return config.encoder if isinstance(config, MaeConfig) else config


def _flat(variables: Any) -> _Arrays:
    return {name: np.asarray(x) for name, x in flatten_dict(variables, sep="/").items()}


def _offers(source: Checkpoint, config: AnyConfig) -> tuple[_Arrays, set[str]]:
    """The source's arrays, renamed as in `config`; and the names of unusable ones."""
    flat = _flat(source.variables)
    if not isinstance(source.config, MaeConfig):
        if isinstance(config, MaeConfig):
            flat = {name.replace("/", "/encoder/", 1): x for name, x in flat.items()}
        return flat, set()
    # The classifier of a published autoencoder was never trained.
    useless = [r"\w+/encoder/head(_norm)?/.*"]
    if not isinstance(config, MaeConfig) or _decoder_size(source.config) != _decoder_size(config):
        useless.append(r"\w+/decoder/.*")
    refused = {name for name in flat if any(re.fullmatch(p, name) for p in useless)}
    inside = "/encoder/" if isinstance(config, MaeConfig) else "/"
    kept = {n.replace("/encoder/", inside): x for n, x in flat.items() if n not in refused}
    return kept, refused


def _decoder_size(config: MaeConfig) -> tuple[int, int]:
    return config.decoder_width, config.decoder_depth


def _fitted(
    name: str, array: np.ndarray, shape: tuple[int, ...], source: AnyConfig, config: AnyConfig
) -> np.ndarray | None:
    """Returns an array in the wanted shape, or None if it cannot be resized."""
    if array.shape == shape:
        return array
    if name.endswith(("time_pos_embed", "freq_pos_embed")):
        return resize_positions(array, shape[0])
    rows = _transformer(config).freq_patches
    if name.endswith("decoder/pos_embed") and rows == _transformer(source).freq_patches:
        cls, grid = array[:1], array[1:].reshape(rows, -1, array.shape[1])  # frequency-major
        return np.concatenate([cls, *(resize_positions(row, shape[0] // rows) for row in grid)])
    return None


def _note(what: str, names: Iterable[str]) -> list[str]:
    parts = sorted({_part(name) for name in names})
    return [f"{what}: {', '.join(parts)}"] if parts else []


def _part(name: str) -> str:
    """Short name of an array: "ls1" for "params/blocks_3/ls1/gamma"."""
    path = re.sub(r"^\w+/(encoder/)?(blocks_\d+/)?", "", name)
    return path.split("/")[0]
