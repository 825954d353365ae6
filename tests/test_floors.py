"""The map in CONTRIBUTING.md: every file says its floor, and imports nothing from above it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(
        [
            *(ROOT / "sat_jax").rglob("*.py"),
            *(ROOT / "data_pipeline").rglob("*.py"),
            *(ROOT / "configs").glob("*.py"),
            *(ROOT / "recipes").glob("*.py"),
            *(ROOT / name for name in ("infer.py", "evaluate.py", "train.py")),
        ]
    )
}
PACKAGES = ("sat_jax", "data_pipeline", "configs", "recipes")


PROGRAMS = re.compile(r"(.*\.)?(infer|evaluate|train|__main__|verify_published|packages)")
TOP = 6


def floor_of(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    found = re.findall(r"\(floor (\d)\)", ast.get_docstring(tree) or "")
    if not found and (name.split(".")[0] in ("configs", "recipes") or PROGRAMS.fullmatch(name)):
        return TOP
    # A package that only says what is in it.
    if not found and len(tree.body) == 1 and FILES[name].name == "__init__.py":
        return 0
    return int(found[0]) if len(found) == 1 else None


def imports_of(name):
    """Files of this project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (part if part in FILES else node.module for part in parts)


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_from_its_own_floor_or_below(name):
    floor = floor_of(name)
    assert floor is not None, "its docstring has no (floor N)"
    above = {other: floor_of(other) for other in imports_of(name) if floor_of(other) > floor}
    assert not above, f"floor {floor} imports from above"
