"""Runs that many tests compare with."""

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
