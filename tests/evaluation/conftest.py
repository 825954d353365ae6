"""The model that tests of evaluation share."""

import pytest

from sat_jax.weights.checkpoint import save_checkpoint
from tests.support.labelled_clips import tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint():
    return tiny_checkpoint()


@pytest.fixture(scope="session")
def model(checkpoint, tmp_path_factory):
    """A checkpoint folder."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(path, checkpoint)
    return path
