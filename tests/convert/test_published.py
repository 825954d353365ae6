"""Published models by name: fetched from a server on loopback, converted once, then kept."""

import io
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from filelock import FileLock

from sat_jax.convert import load_published
from sat_jax.convert.weight_table import from_torch
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.models.registry import MODELS
from sat_jax.runtime.files import cache_dir
from sat_jax.weights.catalog import fetch_published
from sat_jax.weights.checkpoint import Checkpoint
from tests.support.file_server import Remote, serve
from tests.support.golden_weights import load_models, state_dict_by_rule

NAME = "audiotransformer_tiny"


@pytest.fixture(name="tensors", scope="module")
def _tensors() -> dict[str, np.ndarray]:
    golden = load_models()["full_size"]
    return state_dict_by_rule(golden["state_dict_shapes"][NAME], golden["seed"])


@pytest.fixture(name="remote")
def _remote(tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # urllib looks at the environment when it builds its first opener, and keeps that.
    monkeypatch.setattr(urllib.request, "_opener", None)
    file = io.BytesIO()
    torch.save({"model": {n: torch.from_numpy(np.array(x)) for n, x in tensors.items()}}, file)
    with serve(Remote(body=file.getvalue())) as remote:
        monkeypatch.setenv("SAT_JAX_WEIGHTS_URL", remote.url)
        yield remote


def assert_right(checkpoint: Checkpoint, tensors: dict[str, np.ndarray], url: str) -> None:
    assert checkpoint.config == MODELS[NAME]
    assert checkpoint.labels == tuple(label.name for label in audioset_labels())
    assert checkpoint.source.startswith(url)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.variables, from_torch(tensors))


def test_from_the_server_then_from_the_cache(
    remote: Remote, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_right(load_published(NAME), tensors, remote.url)
    assert len(remote.requests) == 1
    folder = cache_dir() / "converted" / NAME
    assert {path.name for path in folder.parent.iterdir()} <= {NAME, f"{NAME}.lock"}

    # Once converted, neither the file nor torch is needed.
    shutil.rmtree(cache_dir() / "published")
    with monkeypatch.context() as without_torch:
        without_torch.setitem(sys.modules, "torch", None)
        assert_right(load_published(NAME), tensors, remote.url)
    assert len(remote.requests) == 1

    # A damaged copy is made anew.
    damaged = [path for path in (folder / "weights").rglob("*") if path.is_file()]
    for path in damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_right(load_published(NAME), tensors, remote.url)
    assert len(remote.requests) == 2
    assert_right(load_published(NAME), tensors, remote.url)
    assert len(remote.requests) == 2


def test_a_file_of_another_model(remote: Remote) -> None:
    with pytest.raises(SatError, match="SAT_T_2s") as caught:
        load_published("SAT_T_2s")
    assert str(cache_dir() / "published") in str(caught.value)
    assert not (cache_dir() / "converted" / "SAT_T_2s").exists()


def test_names_without_published_weights() -> None:
    for name in ("SAT_XS_2s", "../SAT_T_2s", ""):
        with pytest.raises(SatError, match=re.escape(repr(name))):
            load_published(name)


def test_a_cache_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "file"))) as caught:
        load_published(NAME)
    assert "SAT_JAX_CACHE" in str(caught.value)


def test_without_torch_nothing_is_fetched(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SatError, match=r"torch.*sat-jax\[convert\]"):
        load_published(NAME)
    assert not remote.requests


def test_a_cache_that_may_only_be_read(
    remote: Remote, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the disk is not asked."""
    fetch_published(NAME)
    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert_right(load_published(NAME), tensors, remote.url)
    assert not (cache_dir() / "converted" / NAME).exists()
    assert len(remote.requests) == 1


def refuse(*_: object, **__: object) -> None:
    raise PermissionError("read-only")
