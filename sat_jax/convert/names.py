"""Which PyTorch tensor is which of ours, in one table that is read both ways."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from sat_jax.config import PATCH_SIZE, AnyConfig, MaeConfig
from sat_jax.errors import SatError

Tensors = dict[str, np.ndarray]
"""Tensors by name: PyTorch's dotted names, or ours with slashes ("params/head/bias")."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one array is laid out on either side."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


_SAME = Layout(lambda x: x, lambda x: x)
_PATCHES = Layout(  # [d, 1, 16, 16] <-> [d, 256]
    lambda x: x.reshape(x.shape[0], -1),
    lambda x: x.reshape(x.shape[0], 1, PATCH_SIZE, PATCH_SIZE),
)
_TIME = Layout(lambda x: x[0, :, 0, :].T, lambda x: x.T[None, :, None, :])  # [1,d,1,t] <-> [t,d]
_FREQ = Layout(lambda x: x[0, :, :, 0].T, lambda x: x.T[None, :, :, None])  # [1,d,f,1] <-> [f,d]
_ROW = Layout(lambda x: x[0], lambda x: x[None])  # [1, …] <-> […]
_CELL = Layout(lambda x: x[0, 0], lambda x: x[None, None])  # [1, 1, d] <-> [d]

_Row = tuple[str, str, Layout]


def _linear(torch: str, ours: str) -> list[_Row]:
    return [
        (f"{torch}.weight", f"{ours}/kernel", _SAME),
        (f"{torch}.bias", f"{ours}/bias", _SAME),
    ]


def _norm(torch: str, ours: str) -> list[_Row]:
    return [(f"{torch}.weight", f"{ours}/scale", _SAME), (f"{torch}.bias", f"{ours}/bias", _SAME)]


# "{i}" stands for a block's number.
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
    """The rows of a model that is one part of a larger one."""
    return [
        (f"{part}.{torch}", re.sub(r"^(\w+)/", rf"\1/{part}/", ours), layout)
        for torch, ours, layout in rows
    ]


_TABLE = [*_TRANSFORMER, *_inside("encoder", _TRANSFORMER), *_inside("decoder", _DECODER)]

# Buffers of the published models that are made, not learned.
_NOT_LEARNED = re.compile(r"(encoder\.)?(front_end\..*|init_bn\.1\.num_batches_tracked)")


def _matcher(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{i\}", r"(\d+)"))


_FROM_TORCH = [(_matcher(torch), ours, layout) for torch, ours, layout in _TABLE]
_FROM_OURS = [(_matcher(ours), torch, layout) for torch, ours, layout in _TABLE]


def _fill(template: str, match: re.Match[str]) -> str:
    return template.replace("{i}", match.group(1)) if match.groups() else template


# In CED's Hugging Face layout the normalisation is no part of a sequence of layers.
_BARE_INPUT_NORM = re.compile(r"^((?:encoder\.)?init_bn)\.(?!1\.)")


def canonical_names(state_dict: Tensors) -> Tensors:
    """The published names of a state dict that may have CED's Hugging Face layout.

    CED's models are the same transformer. Their Hugging Face form has all but the classifier
    under "encoder.", as the published autoencoders have, which are told by their decoder.

    Raises:
      SatError: two tensors would get the same name.
    """
    is_mae = any(name.startswith("decoder.") for name in state_dict)
    canonical: Tensors = {}
    for name, array in state_dict.items():
        new = _BARE_INPUT_NORM.sub(r"\1.1.", name)
        new = new if is_mae else new.removeprefix("encoder.")
        if new in canonical:
            raise SatError(f"two tensors go by the name {new}")
        canonical[new] = array
    return canonical


def from_torch(state_dict: Tensors) -> Tensors:
    """Renames and lays out a published state dict as ours.

    Args:
      state_dict: PyTorch names; query, key and value projections fused or split.

    Returns:
      Our names; every learned tensor was used exactly once.

    Raises:
      SatError: tensors that no row of the table knows; all of them are listed.
    """
    ours: Tensors = {}
    unknown = []
    for name, array in fuse_qkv(state_dict).items():
        if not is_learned(name):
            continue
        rows = [(m, to, how) for p, to, how in _FROM_TORCH if (m := p.fullmatch(name))]
        if not rows:
            unknown.append(name)
            continue
        match, template, layout = rows[0]
        ours[_fill(template, match)] = np.ascontiguousarray(layout.to_ours(array))
    if unknown:
        raise SatError(f"unexpected tensors, part of no known model: {', '.join(unknown)}")
    return ours


def to_torch(ours: Tensors, config: AnyConfig) -> Tensors:
    """Inverse of `from_torch`: the published names and layouts of a model's tensors.

    Clip models and autoencoders get the fused projections they were published with.

    Raises:
      SatError: a tensor has no published name.
    """
    torch: Tensors = {}
    for name, array in ours.items():
        rows = [(m, to, how) for p, to, how in _FROM_OURS if (m := p.fullmatch(name))]
        if not rows:
            raise SatError(f"{name} has no name in the published models")
        match, template, layout = rows[0]
        torch[_fill(template, match)] = np.ascontiguousarray(layout.to_torch(array))
    fused = isinstance(config, MaeConfig) or not config.is_streaming
    return torch if fused else split_qkv(torch)


def split_qkv(state_dict: Tensors) -> Tensors:
    """Fused [3 d, …] projections (rows: q, k, v) as to_q [d, …] and to_kv [2 d, …]."""

    def parts() -> Iterator[tuple[str, np.ndarray]]:
        for name, array in state_dict.items():
            if ".attn.qkv." not in name:
                yield name, array
                continue
            query, key_value = np.split(array, [array.shape[0] // 3])
            yield name.replace(".qkv.", ".to_q."), query
            yield name.replace(".qkv.", ".to_kv."), key_value

    return dict(parts())


def fuse_qkv(state_dict: Tensors) -> Tensors:
    """Inverse of `split_qkv`; a projection whose other half is missing stays as it is."""
    fused: Tensors = {}
    for name, array in state_dict.items():
        query, key_value = name.replace(".to_kv.", ".to_q."), name.replace(".to_q.", ".to_kv.")
        if query == key_value or not {query, key_value} <= state_dict.keys():
            fused[name] = array
        elif name == query:
            fused_name = name.replace(".attn.to_q.", ".attn.qkv.")
            fused[fused_name] = np.concatenate([array, state_dict[key_value]])
    return fused


def nest(flat: Tensors) -> dict:
    """{"params/head/bias": x} -> {"params": {"head": {"bias": x}}}."""
    tree: dict = {}
    for name, array in flat.items():
        *folders, leaf = name.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[leaf] = array
    return tree


def is_learned(name: str) -> bool:
    """Whether a published tensor is learned, not made (a window, a filterbank, a counter)."""
    return not _NOT_LEARNED.fullmatch(name)


def check_complete(have: Iterable[str], want: Iterable[str]) -> None:
    """Checks that a model gets exactly the tensors it has.

    Raises:
      SatError: some are missing or left over; all of them are listed.
    """
    have, want = set(have), set(want)
    problems = [
        f"{what} tensors: {', '.join(sorted(names))}"
        for what, names in (("missing", want - have), ("unexpected", have - want))
        if names
    ]
    if problems:
        raise SatError("; ".join(problems))
