"""Keeps all tests on the CPU and away from the user's cache folder; says what was left out."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import signal
from typing import Any

import pytest

# A shell's background jobs ignore Ctrl-C, and so would every program that a test starts and stops.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """All workers, the programs they start and the next run share what XLA compiles."""
    if getattr(config, "cache", None) is not None:  # There is none with -p no:cacheprovider.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("compiled")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture(autouse=True)
def _own_cache_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    # Tests of one process share programs in memory.
    monkeypatch.setenv("SAT_JAX_KEEP_PROGRAMS", "0")


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of golden numbers; its README says how they were made."""
    return pathlib.Path(__file__).parent / "tests" / "golden"


_LEFT_OUT: set[str] = set()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remembers the slow tests that do not run."""
    _LEFT_OUT.update(item.nodeid for item in items if item.get_closest_marker("slow"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands what a worker of pytest-xdist left out to the main process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = sorted(_LEFT_OUT)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes what `pytest_sessionfinish` handed over."""
    _LEFT_OUT.update(getattr(node, "workeroutput", {}).get("left_out", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the files whose slow tests did not run."""
    if _LEFT_OUT:
        files = sorted({name.split("::")[0] for name in _LEFT_OUT})
        terminalreporter.section("left out")
        terminalreporter.line(f"{len(_LEFT_OUT)} tests in {', '.join(files)}")
