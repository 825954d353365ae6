"""The config of a model, read from the names and shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from sat_jax.config import PATCH_SIZE, AnyConfig, MaeConfig, ModelConfig
from sat_jax.convert.settings import parse_settings
from sat_jax.errors import SatError
from sat_jax.models.registry import MAES, MODELS

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by published name, see `sat_jax.convert.weight_sets.published_names`."""

_Fields = dict[str, Any]
"""Values by dotted name of a config's field, such as "encoder.frontend.n_mels"."""

_USUAL_LENGTHS = {62: 1000, 63: 1012}
"""Frames of the published clip models, by their number of time positions."""

_ASSUMED = {"pooling": "mean", "layer_scale": 1e-5}
"""Values to assume for fields that tensors only show in part."""

_SHOWN = {"pooling": "token", "layer_scale": None, "cache_length": 0}
"""The one value of these fields that tensors show; they cannot tell the other values apart."""

_MAY_DIFFER = ("num_classes", "layer_scale")
"""Fields in which a file may differ from the model that the user names."""


def read_architecture(
    shapes: Shapes, *, model: str | None = None, settings: Mapping[str, str] | None = None
) -> tuple[AnyConfig, list[str]]:
    """Reads the config of a model from its tensors.

    Args:
      shapes: shape of each tensor by its published name.
      model: name of a model, for settings that shapes do not show: pooling, lengths, pad_last.
      settings: config fields as text, for the same; they take precedence over `model`.

    Returns:
      The config, and notes on settings that were assumed.

    Raises:
      SatError: the tensors belong to no known model, they contradict `model` or `settings`, or a
        setting is unknown.
    """
    is_mae = any(name.startswith("decoder.") for name in shapes)
    kind, part = (MaeConfig, "encoder.") if is_mae else (ModelConfig, "")
    typed = parse_settings(kind, settings or {})
    named = _fields_of(model, kind) if model else {}
    found = {part + name: value for name, value in _find_transformer(shapes, part).items()}
    if is_mae:
        _dims(shapes, "encoder.cls_token", 3)
        decoder = _find_blocks(shapes, "decoder.", "input_proj.weight", 2)
        found |= {"decoder_width": decoder["width"], "decoder_depth": decoder["depth"]}

    notes: list[str] = []
    fields = {f"{part}pad_last": found[f"{part}cache_length"] == 0}
    fields |= _combine(found, typed, named, model, notes)
    target, cache = f"{part}target_length", f"{part}cache_length"
    fields[target], fields[cache] = _lengths(
        shapes[f"{part}time_pos_embed"][3],
        (typed.get(target), typed.get(cache) if found[cache] else 0),
        (named.get(target, 0), named.get(cache, 0)),
        model,
        notes,
    )
    config: AnyConfig = kind.from_dict(unflatten_dict(fields, sep="."))
    return config, notes


def _fields_of(model: str, kind: type[AnyConfig]) -> _Fields:
    known: dict[str, AnyConfig] = {**MODELS, **MAES}
    if model not in known:
        raise SatError(f"unknown model {model!r}; the models are {', '.join(known)}")
    if not isinstance(known[model], kind):
        has, lacks = ("a", "no") if kind is MaeConfig else ("no", "a")
        raise SatError(f"the file has {has} decoder, but {model} has {lacks} decoder")
    return flatten_dict(known[model].to_dict(), sep=".")


def _find_transformer(shapes: Shapes, part: str) -> _Fields:
    """Fields of a `ModelConfig` that the tensors under `part` show; lengths only roughly."""
    found = _find_blocks(shapes, part, "patch_embed.proj.weight", 4)
    bands = _dims(shapes, f"{part}freq_pos_embed", 4)[2] * PATCH_SIZE
    positions = _dims(shapes, f"{part}time_pos_embed", 4)[3]
    has_norm = f"{part}init_bn.1.weight" in shapes
    if has_norm and (normed := _dims(shapes, f"{part}init_bn.1.weight", 1)[0]) != bands:
        raise SatError(f"init_bn is for {normed} mel bands, but freq_pos_embed for {bands}")
    is_clip = f"{part}blocks.0.attn.qkv.weight" in shapes
    if not is_clip:
        _dims(shapes, f"{part}blocks.0.attn.to_kv.weight", 2)
    if f"{part}outputlayer.1.weight" in shapes:
        found["num_classes"] = _dims(shapes, f"{part}outputlayer.1.weight", 2)[0]
    return found | {
        "frontend.n_mels": bands,
        "input_norm": "batch" if has_norm else "fixed",
        "pooling": "token" if f"{part}cls_token" in shapes else _ASSUMED["pooling"],
        "layer_scale": _ASSUMED["layer_scale"] if f"{part}blocks.0.ls1.gamma" in shapes else None,
        "cache_length": 0 if is_clip else positions * PATCH_SIZE // 2,
    }


def _find_blocks(shapes: Shapes, part: str, embedding: str, rank: int) -> _Fields:
    """Width, depth and MLP ratio of the blocks after an embedding [width, …]."""
    width = _dims(shapes, part + embedding, rank)[0]
    hidden = _dims(shapes, f"{part}blocks.0.mlp.fc1.weight", 2)[0]
    block = re.compile(re.escape(part) + r"blocks\.(\d+)\.")
    numbers = {int(match[1]) for name in shapes if (match := block.match(name))}
    if missing := sorted(set(range(len(numbers))) - numbers):
        raise SatError(f"missing tensors: all of {', '.join(f'{part}blocks.{i}' for i in missing)}")
    ratio = hidden / width
    if int(width * ratio) != hidden:  # The model computes int(width * ratio).
        ratio = math.nextafter(ratio, math.inf)
    return {"width": width, "depth": len(numbers), "mlp_ratio": ratio}


def _dims(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor that every model has.

    Raises:
      SatError: it is missing, or does not have `rank` dimensions of at least 1.
    """
    shape = shapes.get(name)
    if shape is None:
        raise SatError(f"not the weights of a known model: {name} is missing")
    if len(shape) != rank or 0 in shape:
        raise SatError(f"{name} has shape {list(shape)} instead of {rank} dimensions")
    return tuple(shape)


def _combine(
    found: _Fields, typed: _Fields, named: _Fields, model: str | None, notes: list[str]
) -> _Fields:
    """The fields that the user asks for, completed by those found; they must not contradict."""
    fields = named | typed
    for name, value in found.items():
        leaf = name.rpartition(".")[2]
        if name not in fields:
            if value == _ASSUMED.get(leaf):
                notes.append(f"assumed {name}={value}, which the file does not show")
        elif fields[name] == value:
            continue
        elif leaf in _SHOWN and _SHOWN[leaf] not in (fields[name], value):
            continue  # The file may have either value.
        elif leaf in _MAY_DIFFER and name not in typed:
            notes.append(f"{name}={value} in the file, {fields[name]} in {model}")
        else:
            whose = "" if name in typed else f" of {model}"
            raise SatError(
                f"{name}={fields[name]}{whose} contradicts the file, which has {name}={value}"
            )
        fields[name] = value
    return fields


def _lengths(
    positions: int,
    typed: tuple[int | None, int | None],
    named: tuple[int, int],
    model: str | None,
    notes: list[str],
) -> tuple[int, int]:
    """Frames of a chunk and of the cache, which share the time positions.

    Args:
      positions: number of time positions, each for `PATCH_SIZE` frames.
      typed: both as the user gives them; None if not. The cache of a clip model is 0.
      named: both as in `model`; 0 without one.
      model: the model that the user names, if any.
      notes: gets a note if lengths are assumed.
    """
    total = positions * PATCH_SIZE
    target, cache = typed
    if target is None and not cache:
        if sum(named) // PATCH_SIZE == positions:
            return named
        target, cache = _usual_lengths(positions, is_streaming=cache is None)
        both = f"target_length={target}" + (f" and cache_length={cache}" if cache else "")
        unlike = f", unlike {model}" if model else ""
        notes.append(f"assumed {both}, from {positions} time positions{unlike}")
        return target, cache
    target = total - (cache or 0) if target is None else target
    cache = total - target // PATCH_SIZE * PATCH_SIZE if cache is None else cache
    is_cache_short = typed[1] != 0 and cache < PATCH_SIZE
    if (target + cache) // PATCH_SIZE != positions or target < PATCH_SIZE or is_cache_short:
        raise SatError(
            f"target_length={target} and cache_length={cache} contradict the file, which has "
            f"{positions} time positions of {PATCH_SIZE} frames"
        )
    return target, cache


def _usual_lengths(positions: int, *, is_streaming: bool) -> tuple[int, int]:
    total = positions * PATCH_SIZE
    if not is_streaming:
        return _USUAL_LENGTHS.get(positions, total), 0
    if positions % 2:
        raise SatError(
            f"the file has {positions} time positions, which chunk and cache cannot share equally: "
            f"give --set target_length=… and --set cache_length=…, together {total}"
        )
    return total // 2, total // 2
