"""One table of the published PyTorch tensors and our arrays, used in both directions."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sat_jax.config import PATCH_SIZE, AnyConfig, MaeConfig
from sat_jax.errors import SatError

Tensors = dict[str, np.ndarray]
"""Arrays by PyTorch name, such as "blocks.0.norm1.weight"."""


class _Layout(NamedTuple):
    """Shapes of an array on both sides."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


_SAME = _Layout(lambda x: x, lambda x: x)
_PATCHES = _Layout(  # [d, 1, 16, 16] <-> [d, 256]
    lambda x: x.reshape(x.shape[0], -1),
    lambda x: x.reshape(x.shape[0], 1, PATCH_SIZE, PATCH_SIZE),
)
_TIME = _Layout(lambda x: x[0, :, 0, :].T, lambda x: x.T[None, :, None, :])  # [1,d,1,t] <-> [t,d]
_FREQ = _Layout(lambda x: x[0, :, :, 0].T, lambda x: x.T[None, :, :, None])  # [1,d,f,1] <-> [f,d]
_ROW = _Layout(lambda x: x[0], lambda x: x[None])  # [1, …] <-> […]
_CELL = _Layout(lambda x: x[0, 0], lambda x: x[None, None])  # [1, 1, d] <-> [d]

_Row = tuple[str, str, _Layout]


def _linear(torch: str, ours: str) -> list[_Row]:
    return [
        (f"{torch}.weight", f"{ours}/kernel", _SAME),
        (f"{torch}.bias", f"{ours}/bias", _SAME),
    ]


def _norm(torch: str, ours: str) -> list[_Row]:
    return [(f"{torch}.weight", f"{ours}/scale", _SAME), (f"{torch}.bias", f"{ours}/bias", _SAME)]


# "{i}" is the number of a block.
_BLOCKS_AND_HEAD: list[_Row] = [
    *_norm("blocks.{i}.norm1", "params/blocks_{i}/norm1"),
    *_linear("blocks.{i}.attn.qkv", "params/blocks_{i}/attn/qkv"),
    *_linear("blocks.{i}.attn.proj", "params/blocks_{i}/attn/proj"),
    ("blocks.{i}.ls1.gamma", "params/blocks_{i}/ls1/gamma", _SAME),
    *_norm("blocks.{i}.norm2", "params/blocks_{i}/norm2"),
    *_linear("blocks.{i}.mlp.fc1", "params/blocks_{i}/mlp/fc1"),
    *_linear("blocks.{i}.mlp.fc2", "params/blocks_{i}/mlp/fc2"),
    ("blocks.{i}.ls2.gamma", "params/blocks_{i}/ls2/gamma", _SAME),
    *_norm("norm", "params/norm"),
    *_norm("outputlayer.0", "params/head_norm"),
    *_linear("outputlayer.1", "params/head"),
]

_TRANSFORMER: list[_Row] = [
    ("time_pos_embed", "params/time_pos_embed", _TIME),
    ("freq_pos_embed", "params/freq_pos_embed", _FREQ),
    ("cls_token", "params/cls_token", _CELL),
    ("token_pos_embed", "params/token_pos_embed", _ROW),
    ("patch_embed.proj.weight", "params/patch_embed/kernel", _PATCHES),
    ("patch_embed.proj.bias", "params/patch_embed/bias", _SAME),
    *_norm("init_bn.1", "params/input_norm"),
    ("init_bn.1.running_mean", "batch_stats/input_norm/mean", _SAME),
    ("init_bn.1.running_var", "batch_stats/input_norm/var", _SAME),
    *_BLOCKS_AND_HEAD,
]

_DECODER: list[_Row] = [
    ("mask_token", "params/mask_token", _CELL),
    ("pos_embed", "params/pos_embed", _ROW),
    *_linear("input_proj", "params/input_proj"),
    *_BLOCKS_AND_HEAD,
]


def _inside(part: str, rows: list[_Row]) -> list[_Row]:
    """The rows of a model that is a part of a larger one."""
    return [
        (f"{part}.{torch}", ours.replace("/", f"/{part}/", 1), layout)
        for torch, ours, layout in rows
    ]


_TABLE = [*_TRANSFORMER, *_inside("encoder", _TRANSFORMER), *_inside("decoder", _DECODER)]

# Tensors that are computed or counted, not learned; torch.optim.swa_utils adds n_averaged.
_NOT_LEARNED = re.compile(r"(encoder\.)?(front_end\..*|init_bn\.1\.num_batches_tracked)|n_averaged")

_Pattern = tuple[re.Pattern[str], str, Callable[[np.ndarray], np.ndarray]]


def _pattern(name: str, new_name: str, layout: Callable[[np.ndarray], np.ndarray]) -> _Pattern:
    pattern = re.escape(name).replace(r"\{i\}", r"(\d+)")
    return re.compile(pattern), new_name.replace("{i}", r"\1"), layout


_FROM_TORCH = [_pattern(torch, ours, layout.to_ours) for torch, ours, layout in _TABLE]
_TO_TORCH = [_pattern(ours, torch, layout.to_torch) for torch, ours, layout in _TABLE]


def from_torch(state_dict: Tensors) -> Any:
    """Converts a published state dict to a Flax variable tree.

    Args:
      state_dict: arrays by published name; attention projections as qkv, or as to_q and to_kv.

    Returns:
      {"params": …, "batch_stats": …}; every learned tensor is used exactly once.

    Raises:
      SatError: tensors are not in the table (all of them are listed), or hold NaN or infinity.
    """
    learned = {name: x for name, x in state_dict.items() if is_learned(name)}
    return unflatten_dict(_apply(_FROM_TORCH, fuse_qkv(learned)), sep="/")


def to_torch(variables: Any, config: AnyConfig) -> Tensors:
    """Converts a Flax variable tree to the published names and shapes.

    Clip models and autoencoders get qkv projections, streaming models to_q and to_kv, as published.

    Raises:
      SatError: arrays are not in the table (all of them are listed), or hold NaN or infinity.
    """
    torch = _apply(_TO_TORCH, flatten_dict(variables, sep="/"))
    fused = isinstance(config, MaeConfig) or not config.is_streaming
    return torch if fused else split_qkv(torch)


def _apply(patterns: list[_Pattern], arrays: dict[str, Any]) -> Tensors:
    """Renames arrays and changes their layout by the first pattern that matches."""
    found: Tensors = {}
    unknown = []
    for name, array in arrays.items():
        for pattern, template, layout in patterns:
            if match := pattern.fullmatch(name):
                found[match.expand(template)] = np.ascontiguousarray(layout(np.asarray(array)))
                break
        else:
            unknown.append(name)
    if unknown:
        raise SatError(f"unexpected tensors, part of no known model: {', '.join(unknown)}")
    if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise SatError(
            f"NaN or infinity in {', '.join(broken[:3])}{more}: the training diverged or the file "
            f"is damaged, use an earlier checkpoint"
        )
    return found


def split_qkv(state_dict: Tensors) -> Tensors:
    """Splits qkv projections [3 d, …] (rows: q, k, v) into to_q [d, …] and to_kv [2 d, …]."""
    split: Tensors = {}
    for name, array in state_dict.items():
        if ".attn.qkv." in name:
            query, key_value = np.split(array, [array.shape[0] // 3])
            split[name.replace(".qkv.", ".to_q.")] = query
            split[name.replace(".qkv.", ".to_kv.")] = key_value
        else:
            split[name] = array
    return split


def fuse_qkv(state_dict: Tensors) -> Tensors:
    """Inverse of `split_qkv`.

    Raises:
      SatError: a to_q has no to_kv, or the other way round.
    """
    fused: Tensors = {}
    for name, array in state_dict.items():
        query, key_value = name.replace(".to_kv.", ".to_q."), name.replace(".to_q.", ".to_kv.")
        if query == key_value:
            fused[name] = array
        elif missing := {query, key_value} - state_dict.keys():
            raise SatError(f"missing tensors: {', '.join(missing)}")
        elif name == query:
            both = np.concatenate([array, state_dict[key_value]])
            fused[name.replace(".to_q.", ".qkv.")] = both
    return fused


def is_learned(name: str) -> bool:
    """Whether a published tensor is learned; windows, filterbanks and counters are not."""
    return not _NOT_LEARNED.fullmatch(name)
