"""Where the weights of named models are."""

import re
import socket
import urllib.request
from pathlib import Path

import platformdirs
import pytest

from sat_jax.errors import SatError
from sat_jax.models.registry import MODELS
from sat_jax.runtime.files import cache_dir
from sat_jax.weights.catalog import (
    DEFAULT_MODEL,
    PUBLISHED_FILES,
    bundled_folder,
    fetch_published,
    num_parameters,
    published_url,
)
from sat_jax.weights.checkpoint import is_checkpoint
from tests.support.file_server import Remote, serve


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("SAT_JAX_CACHE", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("SAT_JAX_CACHE", "")
    assert cache_dir() == Path(platformdirs.user_cache_dir("sat_jax"))


def test_the_default_model_is_bundled() -> None:
    folder = bundled_folder(DEFAULT_MODEL)
    assert folder is not None and is_checkpoint(folder)


@pytest.mark.parametrize("name", ["SAT_T_2s", "", ".", "..", "../data", "no such model", "/etc"])
def test_other_names_have_no_bundled_folder(name: str) -> None:
    assert bundled_folder(name) is None


@pytest.mark.parametrize("name", PUBLISHED_FILES)
def test_published_urls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAT_JAX_WEIGHTS_URL", raising=False)
    assert name in MODELS
    stem = name.replace("_1s", "_stream1s").replace("_2s", "_stream2s")
    form = rf"https://zenodo\.org/record/7964975/files/{stem}_mAP_4\d_\d\d\.pt\?download=1"
    assert re.fullmatch(form, published_url(name))


def test_unpublished_names_are_refused() -> None:
    for name in ("SAT_X", "SAT_XS_1s", "../SAT_T_2s", ""):
        with pytest.raises(SatError, match="SAT_T_2s") as caught:
            published_url(name)
        assert repr(name) in str(caught.value)


def test_a_named_model_without_weights_is_told_apart() -> None:
    with pytest.raises(SatError, match="--random_weights") as caught:
        published_url("audiotransformer_xs")
    assert "'audiotransformer_xs'" in str(caught.value)


def test_parameters_are_the_published_ones() -> None:
    assert round(num_parameters("SAT_T_2s") / 1e6, 3) == 5.496
    assert round(num_parameters("audiotransformer_base") / 1e6, 2) == 85.71


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # urllib reads the environment when it builds its first opener, and keeps that.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.mark.parametrize("mirror", ["/mirror", "/mirror/", "/mirror/{name}?download=1"])
def test_download_from_a_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str
) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    file_name = PUBLISHED_FILES["SAT_T_2s"]
    with serve(Remote(body=b"PK\x03\x04")) as remote:
        monkeypatch.setenv("SAT_JAX_WEIGHTS_URL", remote.url.replace("/weights.pt", mirror))
        for _ in range(2):
            file = fetch_published("SAT_T_2s", progress=False)
            assert file == tmp_path / "published" / file_name
            assert file.read_bytes() == remote.body
    asked = mirror.format(name=file_name) if "{name}" in mirror else f"/mirror/{file_name}"
    assert [path for path, _ in remote.requests] == [asked]


def test_a_file_that_cannot_hold_these_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    with serve(Remote(body=b"PK\x03\x04", claimed_extra=2**30)) as remote:
        monkeypatch.setenv("SAT_JAX_WEIGHTS_URL", remote.url)
        with pytest.raises(SatError, match=PUBLISHED_FILES["SAT_T_2s"]):
            fetch_published("SAT_T_2s")


def test_without_a_server_the_message_names_url_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound_but_deaf.getsockname()[1]}"
        monkeypatch.setenv("SAT_JAX_WEIGHTS_URL", url)
        with pytest.raises(SatError) as caught:
            fetch_published("SAT_T_2s")
    name = PUBLISHED_FILES["SAT_T_2s"]
    assert f"{url}/{name}" in str(caught.value)
    assert str(tmp_path / "published" / name) in str(caught.value)
