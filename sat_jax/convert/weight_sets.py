"""Finds a model's tensors in a file, under whatever names a training program gave them.

A file is a tree of names. A set of weights begins at its root, such as "state_dict.model" in a
file by Lightning or "model_ema" in one by timm. PyTorch's own wrappers add names at any depth.
"""

import re
from collections.abc import Iterable, Mapping

from sat_jax.errors import SatError

_WRAPPERS = {
    "module",  # DistributedDataParallel, and averages by torch.optim.swa_utils
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}

_LANDMARK = re.compile(r"((?:[^.]+\.)*?)(?:encoder\.)?patch_embed\.proj\.weight")
"""A tensor of every model; what stands before it is the root."""

# In CED's Hugging Face layout the normalisation is not inside a torch.nn.Sequential.
_BARE_INPUT_NORM = re.compile(r"^((?:encoder\.)?init_bn)\.(?!1\.)")


def published_names(names: Iterable[str], part: str | None = None) -> dict[str, str]:
    """Returns the published name of each tensor in a set of weights, by its name in the file.

    CED models are the same transformer. Their Hugging Face layout has everything except the
    classifier under "encoder.". So have the published autoencoders, which also have a "decoder.".

    Args:
      names: dotted names of all tensors in a file.
      part: root of the set to read, such as "model_ema"; None if the file has only one.

    Raises:
      SatError: there are several sets and no `part`, or `part` is not among them, or two tensors
        would get the same name.
    """
    unwrapped = {name: _without_wrappers(name) for name in names}
    roots = {match[1] for name in unwrapped.values() if (match := _LANDMARK.fullmatch(name))}
    root = _chosen_root(roots, part)
    # A set inside another, such as an average beside the weights, is no part of that other.
    inner = tuple(each for each in roots if each != root and each.startswith(root))
    inside = {
        name: new.removeprefix(root)
        for name, new in unwrapped.items()
        if new.startswith(root) and not new.startswith(inner)
    }
    is_mae = any(name.startswith("decoder.") for name in inside.values())
    published: dict[str, str] = {}
    for name, new in inside.items():
        new = _BARE_INPUT_NORM.sub(r"\1.1.", new)
        published[name] = new if is_mae else new.removeprefix("encoder.")
    _check_unique(published)
    return published


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _chosen_root(roots: set[str], part: str | None) -> str:
    by_part = {root.rstrip(".") or "top": root for root in sorted(roots)}
    if part is not None:
        if part not in by_part:
            raise SatError(f"no weights at {part!r}: there are {', '.join(by_part) or 'none'}")
        return by_part[part]
    if len(by_part) > 1:
        raise SatError(
            f"there are {len(by_part)} sets of weights, {', '.join(by_part)}: choose one by "
            f"`sat-jax convert --part`"
        )
    return next(iter(roots), "")


def _check_unique(published: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for name, new in published.items():
        if new in seen:
            raise SatError(f"two tensors are {new}: {seen[new]} and {name}")
        seen[new] = name
