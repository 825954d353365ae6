"""The documentation does what it says: code runs, output is shown as it is, names exist."""

import contextlib
import functools
import glob
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sat_jax.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("examples/*.md"),
    *ROOT.glob("sat_jax/data/models/*.md"),
]
PAGES_FOR_DEVELOPERS = [  # Their code needs a clone, downloads or hours, and is not run here.
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *ROOT.glob("projects/**/*.md"),
]
HOMES = [ROOT, *(ROOT / name for name in ("sat_jax", "data_pipeline", "projects/box_model"))]
"""Folders to which the developers' pages shorten paths."""
NOT_THERE = {"site/", "sat_jax/commands/NAME.py", "runs/esc10/results.md"}
"""Paths on the developers' pages that are built, or that are still to be written."""
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.M | re.S)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
ALIASES = {"make demo": "sat-jax tag -k 3 examples/*.flac"}


def blocks(page, language):
    return [text for _, kind, text in FENCE.findall(page.read_text()) if kind == language]


def pages(language):
    found = [page for page in PAGES if blocks(page, language)]
    return pytest.mark.parametrize("page", found, ids=lambda page: str(page.relative_to(ROOT)))


def commands(block):
    """Pairs of a command and the lines of output below it."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:].split("  #")[0].strip(), []))
        else:
            found[-1][1].append(line)
    return [(ALIASES.get(command, command), output) for command, output in found]


def sat_jax_commands(command):
    """Sub-command and arguments of every sat-jax in a shell command; patterns are expanded."""
    for part in command.split("|"):
        words = shlex.split(re.split(" (?:<|>>?) ", part)[0])
        if words[:1] == ["sat-jax"]:
            arguments = [each for word in words for each in expanded(word)]
            yield arguments[1], arguments[2:]


def expanded(word):
    return ("*" in word and sorted(glob.glob(word))) or [word]


def program(name):
    """A sub-command of its own: reading overrides of a config adds flags to it."""
    spec = importlib.util.find_spec(f"sat_jax.commands.{name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PROGRAM


def parse(monkeypatch, name, arguments):
    """The program, and the arguments that are not flags."""
    argv = [f"sat-jax {name}", *arguments]
    monkeypatch.setattr(sys, "argv", argv)  # Overrides of configs are read from here.
    parsed = program(name)
    return parsed, parsed.parse(argv)


def run(monkeypatch, name, arguments):
    parsed, rest = parse(monkeypatch, name, arguments)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stop:
        parsed.run_parsed(rest)
    assert not stop.value.code
    return printed.getvalue()


def assert_shown(shown, printed):
    """Checks lines against printed ones; a line of three dots stands for any number of lines."""
    lines = iter(printed)
    anywhere = False
    for line in shown:
        if line == "...":
            anywhere = True
            continue
        found = next(lines, None)
        while anywhere and found is not None and not same(line, found):
            found = next(lines, None)
        assert found is not None and same(line, found), f"shown: {line!r}, printed: {found!r}"
        anywhere = False
    assert anywhere or not list(lines)


def same(shown, printed):
    numbers = [[float(each) for each in NUMBER.findall(line)] for line in (shown, printed)]
    text = [NUMBER.sub("", line).split() for line in (shown, printed)]
    return text[0] == text[1] and numbers[0] == pytest.approx(numbers[1], abs=2e-3)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Works where a reader does: beside the examples, and some files of their own."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "tests/golden/clip.wav", tmp_path / "street.wav")
    shutil.copy(ROOT / "tests/golden/sat_mean_2s.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pages("python")
def test_python_runs(page, reader):
    names: dict[str, object] = {"__name__": "reader"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pages("console")
def test_shown_output_is_printed(page, reader, monkeypatch):
    for block in blocks(page, "console"):
        for command, output in commands(block):
            found = list(sat_jax_commands(command))
            if not output or not found:
                continue
            ((name, arguments),) = found
            printed = run(monkeypatch, name, arguments)
            assert_shown("\n".join(output).strip().splitlines(), printed.strip().splitlines())


@pytest.mark.slow
def test_ten_clips_train_a_model(reader, monkeypatch):
    page = ROOT / "docs/training.md"
    exec(compile(blocks(page, "python")[0], str(page), "exec"), {})
    (train, _), (tag, _) = commands(blocks(page, "console")[0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *train.replace("sat-jax", "sat_jax").split()]
    subprocess.run([*command, "--config.num_steps=2"], check=True, env=environment)
    ((name, arguments),) = sat_jax_commands(tag)
    assert run(monkeypatch, name, arguments).count("Topk-1") == 4


# ml_collections 1.1 loads configs by it.
@pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")
@pages("console")
def test_flags_are_known(page, reader, monkeypatch):
    for block in blocks(page, "console"):
        for command, _ in commands(block):
            for name, arguments in sat_jax_commands(command):
                assert name in COMMANDS, command
                parse(monkeypatch, name, arguments)


@pytest.mark.parametrize("page", PAGES_FOR_DEVELOPERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_shortened_paths_exist(page):
    for path in set(re.findall(r"`([\w.-]+/[\w./-]*)`", page.read_text())) - NOT_THERE:
        assert any((home / path).exists() for home in HOMES), path


@pytest.mark.parametrize(
    "page", [*PAGES, *PAGES_FOR_DEVELOPERS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_names_exist(page):
    text = page.read_text()
    places = "sat_jax|data_pipeline|projects|tests|benchmarks|configs|constraints|docs|examples"
    for path in re.findall(rf"`((?:{places})/[\w./-]*)`", text) if page in PAGES else ():
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target
    for module in re.findall(
        r"python -m ((?:sat_jax|data_pipeline|projects|benchmarks)[\w.]*)", text
    ):
        assert importlib.util.find_spec(module), module
    for name in re.findall(r"^::: (\S+)$", text, re.M):
        home, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(home), attribute) or importlib.util.find_spec(name)
    for flag in re.findall(r"`--([a-z0-9_]+)", text):
        assert {flag, flag.removeprefix("no")} & known_flags(), flag


@functools.cache
def known_flags():
    """Those of all commands and, by their sources, of the benchmarks and projects."""
    flags = {"help", "version"} | {flag for name in COMMANDS for flag in program(name).flag_values}
    for source in [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("projects/**/*.py")]:
        flags.update(re.findall(r'"(?:--)?([a-z_]+)"', source.read_text()))
    return flags
