"""Config fields given as text, such as ``--set pooling=dm``."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sat_jax.config import AnyConfig
from sat_jax.errors import SatError, did_you_mean

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_settings(kind: type[AnyConfig], settings: Mapping[str, str]) -> dict[str, Any]:
    """Parses settings by the types of a config's fields.

    Args:
      kind: the class of the config.
      settings: text by field. The last part of a nested field's name is enough: "n_mels" means
        "frontend.n_mels".

    Returns:
      Values by full dotted name.

    Raises:
      SatError: a field is unknown, or a value has the wrong type.
    """
    hints = _hints(kind)
    parsed = {}
    for key, text in settings.items():
        names = [name for name in hints if f".{name}".endswith(f".{key}")]
        if len(names) != 1:
            near = did_you_mean(key, hints)
            link = f"{near} The" if near else "; the"
            raise SatError(f"there is no setting {key!r}{link} settings are {', '.join(hints)}")
        parsed[names[0]] = _parse(names[0], text, hints[names[0]])
    return parsed


def _hints(kind: type, prefix: str = "") -> dict[str, Any]:
    """Types by dotted name of all fields, nested ones included."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        is_nested = dataclasses.is_dataclass(hint)
        found |= _hints(hint, f"{prefix}{name}.") if is_nested else {prefix + name: hint}
    return found


def _parse(name: str, text: str, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):  # `X | None`
        if text.lower() == "none":
            return None
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        choices: dict[str, Any] = {choice: choice for choice in get_args(hint)}
    elif hint is bool:
        choices, text = _BOOLEANS, text.lower()
    else:
        try:
            return hint(text)
        except ValueError as error:
            kind = "a whole number" if hint is int else "a number"
            raise SatError(f"{name}={text!r} is not {kind}") from error
    if text not in choices:
        raise SatError(f"{name}={text!r} is not one of {', '.join(choices)}")
    return choices[text]
