"""Settings given as text, typed by the config's own fields."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sat_jax.config import AnyConfig
from sat_jax.errors import SatError

_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_settings(kind: type[AnyConfig], settings: Mapping[str, str]) -> dict[str, Any]:
    """Reads ``key=value`` settings.

    Args:
      kind: the config they are for.
      settings: text by field; of a nested field the last part is enough, "n_mels" means
        "frontend.n_mels".

    Returns:
      Values by full dotted name.

    Raises:
      SatError: an unknown field, which lists all of them, or a value of the wrong type.
    """
    types_by_name = _field_types(kind)
    return {
        (name := _full_name(key, types_by_name)): _parse(name, text, types_by_name[name])
        for key, text in settings.items()
    }


def _field_types(kind: type, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= _field_types(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            found[prefix + name] = hint
    return found


def _full_name(key: str, names: Mapping[str, Any]) -> str:
    matches = [name for name in names if f".{name}".endswith(f".{key}")]
    if len(matches) != 1:
        raise SatError(f"there is no setting {key!r}; the settings are {', '.join(names)}")
    return matches[0]


def _parse(name: str, text: str, hint: Any) -> Any:
    if get_origin(hint) is types.UnionType:
        if text.lower() == "none":
            return None
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        parsed, wanted = text, f"one of {', '.join(get_args(hint))}"
        if text in get_args(hint):
            return parsed
    elif hint is bool:
        wanted = "true or false"
        if text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
    else:
        wanted = "a whole number" if hint is int else "a number"
        try:
            return hint(text)
        except ValueError:
            pass
    raise SatError(f"{name}={text!r} is not {wanted}")
