"""Finds and loads config files, by path or by name."""

import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from sat_jax.errors import SatError


class ConfigParser(flags.ArgumentParser):
    """Parser of a flag whose value is FILE or FILE:ARGUMENT; see `load_config`.

    Attributes:
      config: the config of the last value; None before, or if it could not be loaded.
    """

    config: ConfigDict | None = None

    def parse(self, argument: str) -> ConfigDict:
        """Returns the config that `argument` names."""
        self.config = None
        self.config = load_config(argument)
        return self.config


def load_config(argument: str) -> ConfigDict:
    """Loads a config.

    Args:
      argument: FILE or FILE:ARGUMENT, which is passed to the file's ``get_config``; see
        `find_config`.

    Returns:
      The config, whose fields can be changed, but not added.

    Raises:
      SatError: the file is not found, or ``get_config`` refuses the argument.
      OSError: the file can't be read.
    """
    path, rest = find_config(argument)
    spec = importlib.util.spec_from_file_location("sat_jax_config", path)
    if spec is None or spec.loader is None:
        raise SatError(f"--config={path}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*rest).lock()


def find_unknown_field(config: ConfigDict, path: str) -> str | None:
    """Describes why a path such as "optimizer.lr" is no field that can be set.

    Returns:
      The message, which names the closest field if there is one; None if the config has the field.
    """
    parent: Any = config
    known: list[str] = []
    for name in path.split("."):
        if not isinstance(parent, ConfigDict):
            return f"the config's {'.'.join(known)} is not a group of fields: it is {parent}"
        if name not in parent:
            return f"the config has no field {path}{_hint(config, parent, path, known)}"
        known.append(name)
        parent = parent[name]
    if isinstance(parent, ConfigDict):
        return f"{path} is a group of fields: set one, such as {path}.{min(parent)}"
    return None


def _hint(config: ConfigDict, group: ConfigDict, path: str, known: Sequence[str]) -> str:
    """The nearest field, also of another group; else those of the group, unless it is the top."""
    fields = {name.rpartition(".")[2]: name for name in flatten_dict(config.to_dict(), sep=".")}
    here = {name: ".".join([*known, name]) for name in group}
    for word, names in (
        (path.rpartition(".")[2], fields | here),
        (path.split(".")[len(known)], here),
    ):
        if close := difflib.get_close_matches(word, names, n=1):
            return f": did you mean {names[close[0]]}?"
    return (
        f": use one of {', '.join(here.values())}" if known else "; the file of --config lists all"
    )


def find_config(argument: str) -> tuple[Path, list[str]]:
    """Finds the file of a config.

    Args:
      argument: FILE or FILE:ARGUMENT. FILE is a path, or the name of a shipped config such as
        ``sat.py``, ``sat`` or ``configs/sat.py``. An existing path comes first.

    Returns:
      The file's path, and the argument if there is one.

    Raises:
      SatError: FILE is neither an existing file nor a name.
    """
    file, *rest = argument.split(":", 1)
    if Path(file).is_file():
        return Path(file), rest
    shipped = {path.stem: path for path in sorted(_shipped_folder().glob("[!_]*.py"))}
    stem = file.removeprefix("configs/").removesuffix(".py")
    if stem not in shipped:
        names = ", ".join(path.name for path in shipped.values())
        raise SatError(f"--config={file}: no such file; give a path, or one of {names}")
    return shipped[stem], rest


def _shipped_folder() -> Path:
    """Returns the folder of the shipped configs: in a wheel, or at the top of a clone."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
