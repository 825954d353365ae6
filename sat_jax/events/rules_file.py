r"""Rules in a TOML file: what to watch, and when it counts as heard.

[groups]
kitchen = ["*Glass", "Microwave oven"]

[rules.default]
watch = ["kitchen", "Dog"]
min_off = 5.0

[rules.default.class."Dog"]
on = 0.7
"""

import json
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sat_jax.errors import SatError, one_line
from sat_jax.events.rules import Rule
from sat_jax.events.watching import Parents, Watch
from sat_jax.runtime.files import atomic_write

DEFAULT = "default"
"""The rules that are used if no others are named."""

_Table = TypeVar("_Table", bound=msgspec.Struct)


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The attributes of `sat_jax.events.Rule`; None is the default or that of all sounds."""

    on: float | None = None
    off: float | None = None
    min_on: float | None = None
    min_off: float | None = None
    max_on: float | None = None
    cooldown: float | None = None
    smooth: int | None = None


class RulesTable(Settings, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A table ``[rules.NAME]``, see `sat_jax.events.Watch`."""

    watch: list[str] = []
    without: list[str] = []
    parents: Parents = "fold"
    by_name: dict[str, Settings] = msgspec.field(name="class", default_factory=dict)

    def as_watch(self, groups: Mapping[str, list[str]]) -> Watch:
        """Returns the settings with these groups."""
        return Watch(
            watch=self.watch,
            without=self.without,
            parents=self.parents,
            rule=_given(self),
            by_name={name: _given(settings) for name, settings in self.by_name.items()},
            groups=groups,
        )


class RulesFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A file of rules."""

    groups: dict[str, list[str]] = {}
    rules: dict[str, RulesTable] = {}

    def named(self, name: str = DEFAULT) -> Watch:
        """Returns the rules of this name.

        Raises:
          SatError: there are none.
        """
        if name == DEFAULT and name not in self.rules:
            return Watch(groups=self.groups)
        if name not in self.rules:
            raise SatError(f"no rules {name!r}: add a table [rules.{name}]")
        return self.rules[name].as_watch(self.groups)


def read_rules(path: str | Path) -> RulesFile:
    """Reads a file of rules.

    Raises:
      SatError: it can't be read, is not TOML, or has unknown keys or wrong values.
    """
    return read_toml(path, RulesFile)


def write_rules(path: str | Path, rules: Mapping[str, Rule], *, about: str) -> None:
    """Writes a file of rules; replaces an existing one.

    Args:
      path: the file.
      rules: by the name of the class; all with the same `min_on` and `min_off`.
      about: a line on where they come from.

    Raises:
      SatError: it can't be written.
    """
    shared = next(iter(rules.values()))
    lines = [f"# {one_line(about)}", f"[rules.{DEFAULT}]"]
    lines += [f"min_on = {shared.min_on}", f"min_off = {shared.min_off}"]
    for name, rule in rules.items():
        # A JSON string is a TOML string too.
        lines += ["", f"[rules.{DEFAULT}.class.{json.dumps(name, ensure_ascii=False)}]"]
        lines += [f"on = {rule.on}", f"off = {rule.off_score}"]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_toml(path: str | Path, kind: type[_Table]) -> _Table:
    """Reads a TOML file as a `msgspec.Struct`.

    Raises:
      SatError: it can't be read, is not TOML, or has unknown keys or wrong values; the message
        names the key.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # Of TOML or of UTF-8.
        raise SatError(f"{path}: not a TOML file: {one_line(str(error))}") from error
    return to_struct(table, kind, str(path))


def to_struct(table: Mapping[str, Any], kind: type[_Table], source: str) -> _Table:
    """Converts a table to a `msgspec.Struct`.

    Args:
      table: from a file or a message.
      kind: the struct.
      source: named in errors.

    Raises:
      SatError: it has unknown keys or wrong values; the message names the key.
    """
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        text = str(error).replace("Object contains unknown field", "unknown key")
        for name in _path_of_error(table, kind):
            # msgspec does not tell which entry of a dict is wrong.
            text = text.replace("[...]", f".{name}", 1)
        raise SatError(f"{source}: {text.replace('`$.', '`')}") from error


def _path_of_error(table: Mapping[str, Any], kind: type[msgspec.Struct]) -> list[str]:
    """Returns the keys of the dicts that lead to the first wrong value."""
    for field in msgspec.structs.fields(kind):
        if typing.get_origin(field.type) is not dict:
            continue
        inner = typing.get_args(field.type)[1]
        entries = table.get(field.encode_name)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            try:
                msgspec.convert(entry, inner)
            except msgspec.ValidationError:
                is_table = isinstance(entry, dict) and isinstance(inner, type)
                is_struct = is_table and issubclass(inner, msgspec.Struct)
                return [name, *(_path_of_error(entry, inner) if is_struct else ())]
    return []


def _given(settings: Settings) -> dict[str, float]:
    return {
        name: value
        for name in Settings.__struct_fields__
        if (value := getattr(settings, name)) is not None
    }
