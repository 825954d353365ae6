"""Whether plain data is of the types that a config's fields want."""

import functools
import types
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sat_jax.errors import SatError

_KINDS: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "text"),
}


def check_types(config: Any, prefix: str = "") -> None:
    """Refuses values of other types than the fields': configs come from JSON and from callers.

    Args:
      config: a dataclass of numbers, truths, texts and other dataclasses, each perhaps None.
      prefix: what stands before the names of fields in messages.

    Raises:
      SatError: a value is of another type, such as a fraction for a whole number.
    """
    for name, hint in _hints(config.__class__):
        value = getattr(config, name)
        if isinstance(hint, types.UnionType):  # `X | None`; there are no others.
            if value is None:
                continue
            hint = get_args(hint)[0]
        kind, words = _kind(hint)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise SatError(f"{prefix}{name}={value!r} is not {words}")


@functools.cache
def _hints(kind: type) -> list[tuple[str, Any]]:
    return list(get_type_hints(kind).items())


def _kind(hint: Any) -> tuple[type, str]:
    if get_origin(hint) is Literal:
        return _KINDS[str]
    return _KINDS.get(hint) or (hint, f"a {hint.__name__}")
