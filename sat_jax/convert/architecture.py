"""What model a file holds: what its tensors show, completed by what the user says."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict

from sat_jax.config import PATCH_SIZE, AnyConfig, MaeConfig, ModelConfig
from sat_jax.convert.evidence import Seen, Shapes, dims, see_decoder, see_transformer
from sat_jax.convert.settings import parse_settings
from sat_jax.errors import SatError
from sat_jax.models.registry import MAES, MODELS

_USUAL_LENGTHS = {62: 1000, 63: 1012}
"""Frames that the published clip models take, by their time positions."""

# A file of a named model may all the same have other classes, or LayerScale.
_MAY_DIFFER = ("num_classes", "layer_scale")


class _Wishes(NamedTuple):
    """What the user asks for, by dotted name of a config's field.

    Attributes:
      typed: settings given one by one; they come first.
      named: all settings of the model that was named; empty if none was.
      model: its name, or "".
    """

    typed: dict[str, Any]
    named: dict[str, Any]
    model: str

    def encoder(self) -> "_Wishes":
        """The wishes for an autoencoder's encoder, named as a `ModelConfig`'s."""
        typed, named = (_inside("encoder.", fields) for fields in (self.typed, self.named))
        return _Wishes(typed, named, self.model)

    def outside_encoder(self) -> "_Wishes":
        """The other wishes for an autoencoder."""
        typed, named = (
            {name: value for name, value in fields.items() if not name.startswith("encoder.")}
            for fields in (self.typed, self.named)
        )
        return _Wishes(typed, named, self.model)


def read_architecture(
    shapes: Shapes, *, model: str | None = None, settings: Mapping[str, str] | None = None
) -> tuple[AnyConfig, list[str]]:
    """Finds the config of a model from its tensors.

    Args:
      shapes: shape of each tensor by its published name.
      model: a model's name, for what shapes don't show: pooling, lengths, pad_last.
      settings: config fields as text, for the same; they come before those of `model`.

    Returns:
      The config, and what was taken for granted, in sentences.

    Raises:
      SatError: the tensors are of no known model, shapes and wishes contradict each other, or a
        setting is unknown.
    """
    is_mae = any(name.startswith("decoder.") for name in shapes)
    kind = MaeConfig if is_mae else ModelConfig
    wishes = _Wishes(parse_settings(kind, settings or {}), _named(model, kind), model or "")
    notes: list[str] = []
    if not is_mae:
        return _read_transformer(shapes, wishes, notes), notes
    encoder_shapes = _inside("encoder.", shapes)
    dims(encoder_shapes, "cls_token", 3)
    encoder = _read_transformer(encoder_shapes, wishes.encoder(), notes)
    fields = _merge(see_decoder(_inside("decoder.", shapes)), wishes.outside_encoder(), notes)
    return MaeConfig(encoder=encoder, **fields), notes


def _inside(prefix: str, items: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): item for name, item in items.items() if name.startswith(prefix)
    }


def _named(model: str | None, kind: type[AnyConfig]) -> dict[str, Any]:
    if model is None:
        return {}
    known: dict[str, AnyConfig] = {**MODELS, **MAES}
    if model not in known:
        raise SatError(f"unknown model {model!r}; the models are {', '.join(known)}")
    if not isinstance(known[model], kind):
        has, lacks = ("has a", "none") if kind is MaeConfig else ("has no", "one")
        raise SatError(f"the file {has} decoder, {model} has {lacks}: name another model")
    return flatten_dict(known[model].to_dict(), sep=".")


def _read_transformer(shapes: Shapes, wishes: _Wishes, notes: list[str]) -> ModelConfig:
    seen = see_transformer(shapes)
    is_clip = seen["cache_length"].value == 0
    fields = {"pad_last": is_clip} | _merge(seen, wishes, notes)
    positions = dims(shapes, "time_pos_embed", 4)[3]
    fields |= _lengths(positions, wishes, notes, is_clip=is_clip)
    return ModelConfig.from_dict(unflatten_dict(fields, sep="."))


def _merge(seen: Mapping[str, Seen], wishes: _Wishes, notes: list[str]) -> dict[str, Any]:
    """Wishes completed by what the file shows, which they may not contradict."""
    fields = wishes.named | wishes.typed
    for name, evidence in seen.items():
        if name not in fields:
            if evidence.fits and evidence.value is not None:
                notes.append(f"{name}={evidence.value} is the usual one; the file can't tell")
        elif evidence.allows(fields[name]):
            continue
        elif name in _MAY_DIFFER and name not in wishes.typed:
            notes.append(f"{name}={evidence.value}, unlike {wishes.model}: {evidence.evidence}")
        else:
            raise _contradiction(name, fields[name], evidence, wishes)
        fields[name] = evidence.value
    return fields


def _contradiction(name: str, value: Any, evidence: Seen, wishes: _Wishes) -> SatError:
    whose = "" if name in wishes.typed else f" of {wishes.model}"
    means = "" if evidence.fits else f" ({name}={evidence.value})"
    return SatError(f"{name}={value}{whose} contradicts the file: {evidence.evidence}{means}")


def _lengths(positions: int, wishes: _Wishes, notes: list[str], *, is_clip: bool) -> dict[str, int]:
    """Frames of a piece and of its past, which share the time positions."""
    names = ("target_length", "cache_length")
    typed = [wishes.typed.get(name) for name in names]
    named = [wishes.named.get(name, 0) for name in names]
    cache = 0 if is_clip else typed[1]
    if typed[0] is not None or cache:
        lengths = _complete_lengths(positions, typed[0], cache, is_clip=is_clip)
    elif sum(named) // PATCH_SIZE == positions:
        lengths = named[0], named[1]
    else:
        lengths = _usual_lengths(positions, is_clip=is_clip)
        shared = "" if is_clip else f" and cache_length={lengths[1]}, equal shares"
        unlike = f", unlike {wishes.model}" if wishes.model else ""
        notes.append(
            f"target_length={lengths[0]}{shared}: the file has {positions} time positions{unlike}"
        )
    return dict(zip(names, lengths, strict=True))


def _complete_lengths(
    positions: int, target: int | None, cache: int | None, *, is_clip: bool
) -> tuple[int, int]:
    total = positions * PATCH_SIZE
    target = total - (cache or 0) if target is None else target
    if cache is None:  # In whole patches.
        cache = total - target // PATCH_SIZE * PATCH_SIZE
    too_short = target < PATCH_SIZE or (cache < PATCH_SIZE and not is_clip)
    if (target + cache) // PATCH_SIZE != positions or too_short:
        raise SatError(
            f"target_length={target} and cache_length={cache} contradict the file: its "
            f"time_pos_embed has {positions} positions of {PATCH_SIZE} frames"
        )
    return target, cache


def _usual_lengths(positions: int, *, is_clip: bool) -> tuple[int, int]:
    total = positions * PATCH_SIZE
    if is_clip:
        return _USUAL_LENGTHS.get(positions, total), 0
    if positions % 2:
        raise SatError(
            f"the file's {positions} time positions can't be shared equally by a piece and its "
            f"past: give --set target_length=… and --set cache_length=…, together {total}"
        )
    return total // 2, total // 2
