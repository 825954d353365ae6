"""What the names and shapes of tensors show about the model they are from."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sat_jax.config import PATCH_SIZE
from sat_jax.errors import SatError

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by published name, see `sat_jax.convert.names.canonical_names`."""

_USUAL_LAYER_SCALE = 1e-5


class Seen(NamedTuple):
    """What a file shows about one setting.

    Attributes:
      evidence: which tensor shows it, to follow "where".
      value: the setting's value, or the usual one of those that are possible.
      fits: whether another value is possible, too; None where the file leaves no choice.
    """

    evidence: str
    value: Any
    fits: Callable[[Any], bool] | None = None

    def allows(self, value: Any) -> bool:
        """Whether the file may have been made with this value."""
        return self.fits(value) if self.fits else value == self.value


def dims(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there.

    Raises:
      SatError: it is not, or has not `rank` dimensions of at least 1.
    """
    shape = shapes.get(name)
    if shape is None:
        raise SatError(f"these are the weights of no model known here: there is no {name}")
    if len(shape) != rank or 0 in shape:
        raise SatError(f"{name} has shape {list(shape)}, not {rank} dimensions of at least 1")
    return tuple(shape)


def see_transformer(shapes: Shapes) -> dict[str, Seen]:
    """Evidence by dotted name of a `ModelConfig`'s field; of lengths only the cache's kind.

    Raises:
      SatError: these are not a transformer's tensors, or they contradict each other.
    """
    seen = _see_blocks(shapes, "patch_embed.proj.weight", 4) | _see_input(shapes)
    if "outputlayer.1.weight" in shapes:
        classes = dims(shapes, "outputlayer.1.weight", 2)[0]
        seen["num_classes"] = Seen(f"outputlayer.1.weight has {classes} rows", classes)
    if "cls_token" in shapes:
        seen["pooling"] = Seen("there is a cls_token", "token")
    else:
        seen["pooling"] = Seen("there is no cls_token", "mean", lambda x: x != "token")
    if "blocks.0.ls1.gamma" in shapes:
        evidence = "there is blocks.0.ls1.gamma"
        seen["layer_scale"] = Seen(evidence, _USUAL_LAYER_SCALE, lambda x: x is not None)
    else:
        seen["layer_scale"] = Seen("there is no blocks.0.ls1.gamma", None)
    if "blocks.0.attn.qkv.weight" in shapes:
        seen["cache_length"] = Seen("blocks.0.attn.qkv.weight is a clip model's", 0)
    else:
        dims(shapes, "blocks.0.attn.to_kv.weight", 2)
        evidence = "blocks.0.attn.to_kv.weight is a streaming model's"
        seen["cache_length"] = Seen(evidence, None, lambda x: x > 0)
    return seen


def see_decoder(shapes: Shapes) -> dict[str, Seen]:
    """Evidence by name of a `MaeConfig`'s field, from the tensors of the decoder.

    Raises:
      SatError: these are not a decoder's tensors.
    """
    seen = _see_blocks(shapes, "input_proj.weight", 2)
    return {"decoder_width": seen["width"], "decoder_depth": seen["depth"]}


def _see_input(shapes: Shapes) -> dict[str, Seen]:
    bands = dims(shapes, "freq_pos_embed", 4)[2] * PATCH_SIZE
    seen = {"frontend.n_mels": Seen(f"freq_pos_embed is for {bands} mel bands", bands)}
    if "init_bn.1.weight" not in shapes:
        return seen | {"input_norm": Seen("there is no init_bn", "fixed")}
    normed = dims(shapes, "init_bn.1.weight", 1)[0]
    if normed != bands:
        raise SatError(
            f"init_bn.1.weight is for {normed} mel bands, freq_pos_embed for {bands}: the file "
            f"contradicts itself"
        )
    return seen | {"input_norm": Seen("there is an init_bn", "batch")}


def _see_blocks(shapes: Shapes, embedding: str, rank: int) -> dict[str, Seen]:
    """Width, depth and MLP ratio of a stack of blocks behind an embedding [width, …]."""
    width = dims(shapes, embedding, rank)[0]
    hidden = dims(shapes, "blocks.0.mlp.fc1.weight", 2)[0]
    numbers = {int(m[1]) for name in shapes if (m := re.match(r"blocks\.(\d+)\.", name))}
    if missing := set(range(len(numbers))) - numbers:
        raise SatError(f"missing tensors: all of {', '.join(f'blocks.{i}' for i in missing)}")
    return {
        "width": Seen(f"{embedding} has {width} rows", width),
        "depth": Seen(f"there are {len(numbers)} blocks", len(numbers)),
        "mlp_ratio": Seen(f"blocks.0.mlp.fc1.weight has {hidden} rows", _ratio(hidden, width)),
    }


def _ratio(hidden: int, width: int) -> float:
    """The ratio for which int(width * ratio) is `hidden`, in spite of rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
