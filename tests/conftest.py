"""Keeps tests on the CPU and away from the user's own cache folder."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import signal

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
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of golden numbers; its README says how they were made."""
    return pathlib.Path(__file__).parent / "golden"
