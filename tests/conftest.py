"""Keeps tests on the CPU and away from the user's own cache folder."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import signal

import pytest

# A shell's background jobs ignore Ctrl-C, and so would every program that a test starts and stops.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of golden numbers; its README says how they were made."""
    return pathlib.Path(__file__).parent / "golden"
