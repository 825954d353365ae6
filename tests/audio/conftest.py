"""Audio tests run without ffmpeg, except where they say so."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_ffmpeg(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("no_programs")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audio")
