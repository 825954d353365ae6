"""Files of weights: read, refused and written."""

import argparse
import datetime
import io
import os
import pickle
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from sat_jax.convert import convert_file
from sat_jax.convert.tensor_files import read_tensors, write_tensors
from sat_jax.errors import SatError
from tests.support.golden_tensors import as_torch, assert_same, weights


def test_the_old_file_format_of_torch(tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    with (tmp_path / "old.pt").open("wb") as file:
        torch.save(as_torch(tensors), file, _use_new_zipfile_serialization=False)
    assert_same(read_tensors(tmp_path / "old.pt"), tensors)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_widened(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    narrow = {
        "w": torch.linspace(-3.0, 3.0, 12).reshape(3, 4).T.contiguous().to(dtype),
        "n": torch.tensor(7),
    }
    path = tmp_path / f"file{suffix}"
    torch.save(narrow, path) if suffix == ".pt" else safetensors.torch.save_file(narrow, path)
    read = read_tensors(path)
    assert read["w"].dtype == np.float32
    np.testing.assert_array_equal(read["w"], narrow["w"].float().numpy())
    assert read["n"].dtype == np.int64
    assert read["n"] == 7


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "odd", [torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.int8)]
)
def test_other_types_are_refused(odd: torch.Tensor, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    tensors = {"fine": torch.zeros(2), "odd": odd}
    torch.save(tensors, path) if suffix == ".pt" else safetensors.torch.save_file(tensors, path)
    with pytest.raises(SatError, match=r"file\..*float32.*odd \("):
        read_tensors(path)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.ones(4, 4).to_sparse(), r"odd \(sparse_coo\).*to_dense\(\)"),
        (lambda: torch.ones(4, 4).to_sparse_csr(), r"odd \(sparse_csr\).*to_dense\(\)"),
        (lambda: torch.empty(4, 4, device="meta"), r"odd \(on meta, without values\)"),
    ],
    ids=["sparse", "compressed", "meta"],
)
@pytest.mark.filterwarnings("ignore:Sparse.*beta state:UserWarning")
def test_tensors_without_dense_values_are_named(
    make: Callable[[], torch.Tensor], kind: str, tmp_path: Path
) -> None:
    torch.save({"fine": torch.zeros(2), "odd": make()}, tmp_path / "file.pt")
    with pytest.raises(SatError, match=rf"file\.pt.*{kind}") as raised:
        read_tensors(tmp_path / "file.pt")
    assert "\n" not in str(raised.value) and "fine" not in str(raised.value)


def test_a_model_of_other_types_is_not_listed_in_full(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save({f"w{n}": torch.zeros(2, dtype=torch.float64) for n in range(5)}, path)
    with pytest.raises(SatError, match=r"w0 \(float64\), w1 .*, w2 \(float64\) and 2 more"):
        read_tensors(path)


class _Trap:
    """Runs a command when a pickle of it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _torch_bytes(content: Any, path: Path) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


class _Shell(_Trap):
    """The same by a shell, which torch does not let anyone allow."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class _Process(_Trap):
    """The same by another program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.call, (["touch", str(self.path)],)


def _old_bytes(content: Any, path: Path) -> bytes:
    with path.open("wb") as file:
        torch.save(content, file, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def _bit_flipped(data: bytes) -> bytes:
    at = data.find(np.full(4, 1.5, np.float32).tobytes())
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _self_containing() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


def _out_of_memory(*_: Any, **__: Any) -> None:
    raise MemoryError


def _nested(depth: int) -> dict[str, Any]:
    return {"model": _nested(depth - 1)} if depth else {}


def _compressed(archive: bytes) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


BAD_FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda _: b"", "empty"),
    "web page": (lambda _: b"\n<!DOCTYPE html><html></html>", "web page"),
    "pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "text": (lambda _: b"these are no weights", ".safetensors"),
    "truncated": (lambda p: _torch_bytes({"w": torch.ones(999)}, p)[:-400], "damaged"),
    "bit flipped": (
        lambda p: _bit_flipped(_torch_bytes({"w": torch.full((4,), 1.5)}, p)),
        "checksum",
    ),
    "plain pickle": (lambda _: pickle.dumps({"w": [1, 2]}), "damaged"),
    "trap": (lambda p: _torch_bytes({"w": _Trap(p.with_name("ran"))}, p), "run any code"),
    "trap alone": (lambda p: _torch_bytes(_Process(p.with_name("ran")), p), "run any code"),
    "old trap": (lambda p: _old_bytes({"w": _Trap(p.with_name("ran"))}, p), "run any code"),
    "trap inside": (lambda p: _torch_bytes({"w": _Process(p.with_name("ran"))}, p), "no tensors"),
    "blocked trap": (lambda p: _torch_bytes({"w": _Shell(p.with_name("ran"))}, p), "system"),
    "module": (lambda p: _torch_bytes(torch.nn.Linear(2, 2), p), "run any code"),
    "tensor": (lambda p: _torch_bytes(torch.ones(2), p), "Tensor"),
    "nothing": (lambda p: _torch_bytes({}, p), "no tensors"),
    "nothing inside": (lambda p: _torch_bytes({"model": {}}, p), "no tensors"),
    "words": (lambda p: _torch_bytes({"model": {"w": "x"}}, p), "no tensors"),
    "numbered": (lambda p: _torch_bytes({3: torch.ones(2)}, p), "no tensors"),
    "itself": (lambda p: _torch_bytes(_self_containing(), p), "no tensors"),
    "deep": (lambda p: _torch_bytes(_nested(100), p), "no tensors"),
    "long": (lambda p: _torch_bytes({"w": torch.ones(2), "log": "x" * (3 << 20)}, p), "2 MB"),
    "long and old": (lambda _: b"\x80\x02" + b"]" * (3 << 20) + b".", "2 MB"),
    "repeated": (lambda p: _torch_bytes({"w": torch.ones(1).expand(10**12)}, p), "larger"),
    "compressed": (lambda p: _compressed(_torch_bytes({"w": torch.ones(99999)}, p)), "larger"),
    "too large for memory": (lambda p: _torch_bytes({"w": torch.ones(2)}, p), "memory"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, named = BAD_FILES[kind]
    path = tmp_path / "weights.pt"
    path.write_bytes(make(path))
    if kind == "too large for memory":
        monkeypatch.setattr(torch, "load", _out_of_memory)
    with pytest.raises(SatError) as caught:
        convert_file(path)
    message = str(caught.value)
    assert str(path) in message and named in message
    assert "\n" not in message
    assert not (tmp_path / "ran").exists()


def _zip_of(pickled: bytes) -> bytes:
    """An archive as torch writes it, with another pickle."""
    buffer, new = io.BytesIO(), io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, pickled if name.endswith(".pkl") else old.read(name))
    return new.getvalue()


def _with_key(key: bytes) -> bytes:
    return b"\x80\x02}" + key + b"K\x01s."


_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_OLD_START = _MAGIC + pickle.dumps(1001, protocol=2) + pickle.dumps({}, protocol=2)
_DEEP = b")" + b"\x85" * 500_000
_DEEP_BY_MARKS = b"(" * 500_000 + b"t" * 500_000
_DEEP_IN_MEMO = b")" + b"\x85q\x000h\x00" * 200_000
_DOUBLED = b")" + b"q\x00h\x00\x86" * 60
_DEEP_PICKLES = {
    "levels": _zip_of(_with_key(_DEEP)),
    "levels by marks": _zip_of(_with_key(_DEEP_BY_MARKS)),
    "levels in the memo": _zip_of(_with_key(_DEEP_IN_MEMO)),
    "doubled": _zip_of(_with_key(_DOUBLED)),
    "old format": _OLD_START + _with_key(_DEEP) + b"\x80\x02].",
}


def test_nested_tuples_do_not_end_python(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kind}.pt" for kind in _DEEP_PICKLES]
    for path, pickled in zip(paths, _DEEP_PICKLES.values(), strict=True):
        path.write_bytes(pickled)
    code = (
        "import sys; from sat_jax.convert.tensor_files import read_tensors; "
        "from sat_jax.errors import SatError\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_tensors(path)\n"
        "    except SatError as error: print(error)"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(" is damaged: it nests tuples")[0] for line in done.stdout.splitlines()]
    assert lines == [str(path) for path in paths]


@pytest.mark.parametrize("new", [True, False])
def test_thousands_of_tensors_and_long_tuples_are_read(new: bool, tmp_path: Path) -> None:
    tensors = {f"blocks.{n}.w": torch.full((2,), float(n)) for n in range(5_000)}
    content = {"model": tensors, "order": tuple(range(50_000)), "all": (tuple(tensors.values()),)}
    path = tmp_path / "many.pt"
    torch.save(content, path, _use_new_zipfile_serialization=new)
    read = read_tensors(path)
    assert len(read) == 5_000
    assert all(read[f"model.blocks.{n}.w"][1] == n for n in range(5_000))


def test_python_objects_beside_the_weights_are_ignored(tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    content = {
        "model": as_torch(tensors),
        "args": argparse.Namespace(lr=1e-3, out=tmp_path),
        "best": {"mAP": np.float64(0.47), "at": datetime.date(2026, 11, 29)},
        "hook": _Process(tmp_path / "ran"),
    }
    torch.save(content, tmp_path / "run.pt")
    assert_same(read_tensors(tmp_path / "run.pt"), tensors)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["street.wav", "street.safetensors"])
def test_a_sound_file_is_refused_without_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / name).write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt ")
    with pytest.raises(SatError, match=re.escape(str(tmp_path / name))) as caught:
        convert_file(tmp_path / name)
    assert "pip" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 4, 100, -3])
def test_truncated_safetensors(size: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"w": np.ones((30, 30), np.float32)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SatError, match=re.escape(str(path))):
        read_tensors(path)


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(SatError, match=re.escape(str(path))):
            convert_file(path)


@pytest.mark.parametrize(("suffix", "module"), [(".pt", "torch"), (".safetensors", "safetensors")])
def test_a_missing_library_is_named(
    suffix: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"file{suffix}"
    write_tensors(path, {"w": np.ones(2, np.float32)})
    for name in (module, f"{module}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    advice = rf"file\{suffix} .*{module}: pip install 'sat-jax\[convert\]'"
    with pytest.raises(SatError, match=advice):
        read_tensors(path)
    path.unlink()
    with pytest.raises(SatError, match=advice):
        write_tensors(path, {"w": np.ones(2, np.float32)})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_older_file_is_never_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"older")
    with pytest.raises(SatError, match=re.escape(str(path))):
        write_tensors(path, {"w": np.ones(2, np.float32)})
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_failed_export_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond this, as on a disk that is almost full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(SatError, match=rf"out\{suffix}"):
            write_tensors(tmp_path / f"out{suffix}", {"w": np.ones(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
