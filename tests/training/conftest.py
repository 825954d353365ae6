"""Runs that many tests compare with, and a disk that is full."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.small_run import run, validation


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the workdir of a run that was never stopped; tests leave it as it is."""
    workdir = tmp_path_factory.mktemp("whole")
    assert run(workdir).step == 6
    return workdir


@pytest.fixture(scope="session")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the same with validation after every second step."""
    workdir = tmp_path_factory.mktemp("validated")
    assert run(workdir, validation=validation).step == 6
    return workdir


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Returns a function that limits the size of files; the limit ends with the test."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
