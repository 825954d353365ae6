"""Weights from PyTorch files to checkpoint folders and back, exactly."""

import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.torch
import torch

import sat_jax.labels
from sat_jax.commands import convert as command
from sat_jax.convert import convert_file, export_file
from sat_jax.convert.checkpoints import published_shapes
from sat_jax.convert.files import read_tensors, write_tensors
from sat_jax.convert.names import from_torch, fuse_qkv, is_learned
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels, read_labels
from sat_jax.models.registry import MODELS
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.pieces import clip_scores
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.warm_start import fresh_variables
from tests.reference.torch_model import SAT, Config
from tests.support.golden_models import (
    SMALL,
    clip,
    mae_config,
    numbers,
    small_config,
    small_weights,
)
from tests.support.golden_weights import GOLDEN, load_models, state_dict_by_rule

Tensors = dict[str, np.ndarray]

PUBLISHED = ("sat_mean_2s", "sat_token_2s", "vit_token")
"""Golden models that come as the published code saves them."""

ALL = (*SMALL, "mae")


def weights(name: str) -> Tensors:
    model = load_models()[name]
    return state_dict_by_rule(model["state_dict_shapes"], model["seed"])


def settings_of(name: str) -> dict[str, str]:
    """What the shapes of a golden model don't show."""
    if name == "mae":
        return {}
    config = small_config(name)
    return {"pooling": config.pooling, "target_length": str(config.target_length)}


def as_torch(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}


def assert_same(actual: Any, desired: Any) -> None:
    """Same tree, and arrays equal to the bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def run(*arguments: object) -> int:
    """The exit code of the program."""
    program = command.PROGRAM
    with pytest.raises(SystemExit) as stop:
        program.run_parsed(program.parse(["sat-jax convert", *map(str, arguments)]))
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(name="vit_file")
def _vit_file(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "vit.pt", weights("vit_mean"))
    return tmp_path / "vit.pt"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_round_trip_through_a_checkpoint_is_exact(name: str, suffix: str, tmp_path: Path) -> None:
    original = torch.load(GOLDEN / f"{name}.pt", weights_only=True)["model"]
    folder, file = tmp_path / "model", tmp_path / f"model{suffix}"
    assert run(GOLDEN / f"{name}.pt", folder) == 0
    assert run(folder, file) == 0
    again = read_tensors(file)
    assert {n: x.shape for n, x in again.items()} == {
        n: tuple(x.shape) for n, x in original.items()
    }
    for tensor, value in original.items():
        assert again[tensor].dtype == value.numpy().dtype, tensor
        if is_learned(tensor):
            np.testing.assert_array_equal(again[tensor], value.numpy(), tensor)
        elif "front_end" in tensor:
            np.testing.assert_allclose(again[tensor], value.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_every_kind_of_model_round_trips(name: str, tmp_path: Path) -> None:
    tensors = weights(name)
    write_tensors(tmp_path / "in.safetensors", tensors)
    checkpoint = convert_file(tmp_path / "in.safetensors", settings=settings_of(name))
    export_file(checkpoint, tmp_path / "out.safetensors")
    again = read_tensors(tmp_path / "out.safetensors")
    shapes = load_models()[name]["state_dict_shapes"]
    assert {n: list(x.shape) for n, x in again.items()} == shapes
    for tensor, value in tensors.items():
        if is_learned(tensor):
            np.testing.assert_array_equal(again[tensor], value, tensor)


@pytest.mark.parametrize("name", ALL)
def test_every_tensor_is_used_once(name: str) -> None:
    learned = {n: x for n, x in fuse_qkv(weights(name)).items() if is_learned(n)}
    ours = from_torch(weights(name))
    assert len(ours) == len(learned)
    # Random numbers: a value that is there twice, or missing, would show.
    np.testing.assert_array_equal(
        np.sort(np.concatenate([x.ravel() for x in ours.values()])),
        np.sort(np.concatenate([x.ravel() for x in learned.values()])),
    )


@pytest.mark.parametrize("name", load_models()["full_size"]["state_dict_shapes"])
def test_full_size_models_have_the_published_tensors(name: str) -> None:
    shapes = load_models()["full_size"]["state_dict_shapes"][name]
    assert published_shapes(MODELS[name]) == {
        tensor: tuple(shape) for tensor, shape in shapes.items() if is_learned(tensor)
    }


def test_pytorch_loads_an_exported_file_strictly(tmp_path: Path) -> None:
    checkpoint = convert_file(GOLDEN / "sat_token_2s.pt")
    export_file(checkpoint, tmp_path / "out.pt")
    golden = small_config("sat_token_2s")
    network = SAT(
        Config(
            embed_dim=golden.width,
            depth=golden.depth,
            outputdim=golden.num_classes,
            pooling=golden.pooling,
            target_length=golden.target_length,
            cache_length=golden.cache_length,
        )
    )
    state_dict = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    network.load_state_dict(state_dict, strict=True)
    with torch.inference_mode():
        scores = network.eval().forward_clip(torch.from_numpy(clip()[None]))
    np.testing.assert_allclose(scores[0], numbers("sat_token_2s")["clip_mean"], atol=1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_converted_file_gives_the_published_answers(name: str) -> None:
    checkpoint = convert_file(GOLDEN / f"{name}.pt")
    assert checkpoint.config == small_config(name)
    assert checkpoint.labels == tuple(f"class {i}" for i in range(11))
    assert checkpoint.source == f"{name}.pt"
    assert_same(checkpoint.variables, small_weights(name))
    score = jax.jit(clip_scores, static_argnums=0)
    scores = score(AudioTransformer(checkpoint.config), checkpoint.variables, clip()[None])
    answers = numbers(name)
    want = answers["clip_mean"] if "clip_mean" in answers else answers["clip_full"]
    np.testing.assert_allclose(scores[0], want, atol=1e-4)


def test_an_autoencoder_of_our_own_gets_the_classifier_that_strict_loading_wants(
    tmp_path: Path,
) -> None:
    config = mae_config()
    shapes = jax.eval_shape(partial(fresh_variables, config), jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    checkpoint = Checkpoint(config=config, variables=variables, labels=())
    export_file(checkpoint, tmp_path / "mae.safetensors")
    written = read_tensors(tmp_path / "mae.safetensors")
    shapes = load_models()["mae"]["state_dict_shapes"]
    assert {n: list(x.shape) for n, x in written.items()} == shapes
    again = convert_file(tmp_path / "mae.safetensors")
    assert again.config == config
    assert again.labels == ()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"model": tensors},
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": {"state_dict": tensors}, "optimizer": {"state": {}}},
        lambda tensors: {
            n: torch.nn.Parameter(x, x.is_floating_point()) for n, x in tensors.items()
        },
    ],
    ids=["bare", "model", "state_dict", "nested", "parameters"],
)
def test_where_a_file_keeps_its_state_dict(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    torch.save(wrap(as_torch(tensors)), tmp_path / "file.pt")
    assert_same(read_tensors(tmp_path / "file.pt"), tensors)


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
    with pytest.raises(SatError, match=r"file\..*: not float32, float16 or bfloat16: odd \("):
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


def _bit_flipped(data: bytes) -> bytes:
    at = data.find(np.full(4, 1.5, np.float32).tobytes())
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


BAD_FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "web page": (lambda _: b"\n<!DOCTYPE html><html></html>", "is a web page"),
    "pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "text": (
        lambda _: b"these are no weights",
        "weights.pt is no file of weights, or a damaged one",
    ),
    "truncated": (lambda p: _torch_bytes({"w": torch.ones(999)}, p)[:-400], "damaged"),
    "bit flipped": (
        lambda p: _bit_flipped(_torch_bytes({"w": torch.full((4,), 1.5)}, p)),
        "damaged one: checksum",
    ),
    "plain pickle": (lambda _: pickle.dumps({"w": [1, 2]}), "damaged"),
    "trap": (lambda p: _torch_bytes({"w": _Trap(p.with_name("ran"))}, p), "could run any code"),
    "module": (lambda p: _torch_bytes(torch.nn.Linear(2, 2), p), "could run any code"),
    "tensor": (lambda p: _torch_bytes(torch.ones(2), p), "a Tensor, not tensors by name"),
    "nothing": (lambda p: _torch_bytes({}, p), "holds no tensors"),
    "nothing inside": (lambda p: _torch_bytes({"model": {}}, p), "holds no tensors"),
    "words": (lambda p: _torch_bytes({"model": {"w": "x"}}, p), "no named tensor: w"),
    "numbered": (lambda p: _torch_bytes({3: torch.ones(2)}, p), "no named tensor: 3"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    make, reason = BAD_FILES[kind]
    path = tmp_path / "weights.pt"
    path.write_bytes(make(path))
    with pytest.raises(SatError) as raised:
        convert_file(path)
    message = str(raised.value)
    assert str(path) in message
    assert reason in message
    assert "\n" not in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [0, 4, 100, -3])
def test_truncated_safetensors(size: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"w": np.ones((30, 30), np.float32)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SatError, match=r"weights\.safetensors is (empty|no file of weights)"):
        read_tensors(path)


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    with pytest.raises(SatError, match=r"cannot read .*none\.pt: No such file"):
        convert_file(tmp_path / "none.pt")
    with pytest.raises(SatError, match=r"cannot read .*: Is a directory"):
        convert_file(tmp_path)


@pytest.mark.parametrize(("suffix", "module"), [(".pt", "torch"), (".safetensors", "safetensors")])
def test_a_missing_library_is_named(
    suffix: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"file{suffix}"
    write_tensors(path, {"w": np.ones(2, np.float32)})
    for name in (module, f"{module}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    advice = rf"file\{suffix} needs {module}: pip install 'sat-jax\[convert\]'"
    with pytest.raises(SatError, match=advice):
        read_tensors(path)
    path.unlink()
    with pytest.raises(SatError, match=advice):
        write_tensors(path, {"w": np.ones(2, np.float32)})


def test_missing_and_unexpected_tensors_are_all_listed(tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    del tensors["blocks.1.attn.qkv.bias"], tensors["norm.weight"]
    tensors |= {"blocks.0.ls1.gamma": np.ones(128, np.float32), "extra": np.ones(3, np.float32)}
    write_tensors(tmp_path / "vit.pt", tensors)
    with pytest.raises(SatError) as raised:
        convert_file(tmp_path / "vit.pt")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'vit.pt'}: ")
    missing, unexpected = message.split("; ")
    assert missing.endswith(
        "missing tensors: blocks.0.ls2.gamma, blocks.1.attn.qkv.bias, blocks.1.ls1.gamma, "
        "blocks.1.ls2.gamma, norm.weight"
    )
    assert unexpected == "unexpected tensors: extra"


def test_tensors_of_other_shapes_are_all_listed(tmp_path: Path) -> None:
    tensors = weights("vit_mean") | {
        "norm.bias": np.ones(64, np.float32),
        "outputlayer.1.bias": np.ones((11, 1), np.float32),
    }
    write_tensors(tmp_path / "vit.pt", tensors)
    with pytest.raises(SatError) as raised:
        convert_file(tmp_path / "vit.pt")
    assert "norm.bias [64] instead of [128]" in str(raised.value)
    assert "outputlayer.1.bias [11, 1] instead of [11]" in str(raised.value)


def _hugging_face(name: str) -> str:
    """CED's names there: all but the classifier in an encoder, a bare normalisation."""
    if name.startswith("outputlayer"):
        return name
    return "encoder." + name.replace("init_bn.1.", "init_bn.")


def test_ced_in_either_layout(tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    write_tensors(tmp_path / "original.pt", tensors)
    write_tensors(
        tmp_path / "hugging_face.safetensors", {_hugging_face(n): x for n, x in tensors.items()}
    )
    write_tensors(
        tmp_path / "trunk_first.pt",
        {n.replace("init_bn.1.", "init_bn."): x for n, x in tensors.items()},
    )
    original = convert_file(tmp_path / "original.pt")
    assert original.config == small_config("vit_mean")
    for name in ("hugging_face.safetensors", "trunk_first.pt"):
        other = convert_file(tmp_path / name)
        assert other.config == original.config
        assert_same(other.variables, original.variables)


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    write_tensors(tmp_path / "twice.pt", tensors | {"encoder.norm.bias": tensors["norm.bias"]})
    with pytest.raises(SatError, match=r"twice\.pt: two tensors go by the name norm\.bias"):
        convert_file(tmp_path / "twice.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_older_file_is_never_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"older")
    with pytest.raises(SatError, match=rf"out\{suffix} exists: choose another name"):
        write_tensors(path, {"w": np.ones(2, np.float32)})
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_failed_export_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond this, as on a disk that is almost full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(SatError, match=rf"cannot write .*out\{suffix}: "):
            write_tensors(tmp_path / f"out{suffix}", {"w": np.ones(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


# The command line.


def test_the_command_line_tells_what_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    arguments = ["--set", "pooling=dm", GOLDEN / "sat_mean_2s.pt", folder]
    assert run(*arguments, "--set", "target_length = 288") == 0
    first, *notes = capsys.readouterr().out.splitlines()
    assert first == (
        f"{folder}: SAT (streaming model), width 128, depth 2, dm pooling, 11 classes, pieces of "
        "288 frames, a past of 96, 0.435 M parameters"
    )
    assert notes == []
    assert load_checkpoint(folder).config.cache_length == 96  # type: ignore[union-attr]

    assert run(GOLDEN / "vit_token.pt", tmp_path / "vit") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'vit'}: ViT (clip model), width 128, depth 2, token pooling, 11 classes, "
        "pieces of 1012 frames, 0.440 M parameters",
        "note: target_length=1012: the file has 63 time positions",
    ]

    write_tensors(tmp_path / "mae.pt", weights("mae"))
    assert run(tmp_path / "mae.pt", tmp_path / "mae") == 0
    assert "masked autoencoder, encoder width 128" in capsys.readouterr().out
    assert run(tmp_path / "mae", tmp_path / "mae.safetensors") == 0
    assert "masked autoencoder, encoder width 128" in capsys.readouterr().out
    back = read_tensors(tmp_path / "mae.safetensors")
    for name, array in weights("mae").items():
        if is_learned(name):
            np.testing.assert_array_equal(back[name], array, err_msg=name)
    assert run(tmp_path / "vit", tmp_path / "vit.safetensors") == 0
    assert "ViT (clip model)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{vit}", "{tmp}/out", "--model", "SAT_T_2s"], "width=192 of SAT_T_2s contradicts"),
        (["{vit}", "{tmp}/out", "--set", "depht=3"], "no setting 'depht'"),
        (["{vit}", "{tmp}/out", "--set", "f_max=nan"], "frontend.f_max=nan"),
        (["{vit}", "{tmp}/out", "--set", "f_min=9000"], "frontend.f_min=9000.0"),
        (["{vit}", "{tmp}/out", "--set", "top_db=nan"], "frontend.top_db=nan"),
        (["{vit}", "{tmp}/out", "--set", "top_db=-1"], "frontend.top_db=-1.0"),
        (["{vit}", "{tmp}/out", "--set", "sample_rate=1"], "frontend.sample_rate=1 is not from"),
        (["{vit}", "{tmp}/out", "--set", "hop_length=100000"], "frontend.hop_length=100000 is"),
        (["{sat}", "{tmp}/out", "--set", "cache_length=17"], "cache_length=17 is no number of"),
        (["{vit}", "{tmp}/out", "--labels", "{tmp}/none.csv"], "cannot read {tmp}/none.csv"),
        (["{tmp}/none.pt", "{tmp}/out"], "cannot read {tmp}/none.pt"),
        (["{vit}", "{vit}"], "{vit} exists"),
        (["{tmp}", "{tmp}/out.pt"], "{tmp} is no checkpoint folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    reason: str,
    vit_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"vit": vit_file, "sat": GOLDEN / "sat_mean_2s.pt", "tmp": tmp_path}
    assert run(*(argument.format(**places) for argument in arguments)) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("sat_jax.convert: ")
    assert reason.format(**places) in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["in.pt"],
        ["in.pt", "out", "more"],
        ["in.pt", ""],
        ["", "out"],
        ["in.pt", "out", "--modle", "SAT_T_2s"],
        ["in.pt", "out", "--set", "pooling"],
        ["in.pt", "out", "--set", "=mean"],
        ["in.pt", "out", "--model", ""],
        ["{tmp}", "out.pt", "--model", "SAT_T_2s"],
        ["{tmp}", "out.pt", "--labels", "labels.csv"],
    ],
)
def test_wrong_usage_has_code_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(argument.format(tmp=tmp_path) for argument in arguments)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("sat_jax.convert: ")
    assert output.err.endswith("; see python -m sat_jax.convert --help\n")
    assert output.err.count("\n") == 1


def test_an_export_needs_a_known_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Checkpoint(
        config=small_config("vit_mean"),
        variables=small_weights("vit_mean"),
        labels=tuple("abcdefghijk"),
    )
    save_checkpoint(tmp_path / "model", checkpoint)
    assert run(tmp_path / "model", tmp_path / "model.onnx") == 1
    assert "model.onnx says not what to write" in capsys.readouterr().err


def test_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sat_jax.convert", tmp_path / "none.pt", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"sat_jax.convert: cannot read {tmp_path / 'none.pt'}: No such file or directory\n"
    )


# Labels.


def test_labels_of_either_layout(vit_file: Path, tmp_path: Path) -> None:
    names = [f"sound, {i}" for i in range(11)]
    (tmp_path / "plain.txt").write_text("\ufeff" + "\n".join(names) + "\n\n", encoding="utf-8")
    rows = [f'{i},/m/{i},"{name}"' for i, name in enumerate(names)]
    (tmp_path / "table.csv").write_text(
        "\n".join(["index,mid,display_name", *reversed(rows)]), encoding="utf-8"
    )
    for file in ("plain.txt", "table.csv"):
        folder = tmp_path / f"from_{file}"
        assert run(vit_file, folder, "--labels", tmp_path / file) == 0
        assert load_checkpoint(folder).labels == tuple(names)


def test_audiosets_own_list_of_labels() -> None:
    source = Path(sat_jax.labels.__file__).parent / "data" / "class_labels_indices.csv"
    assert read_labels(source) == tuple(label.name for label in audioset_labels())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a\nb\n", "2 labels are given for 11 classes"),
        (b"", "is empty: give names"),
        (b"index,mid,display_name\n", "has columns but no rows"),
        (b"index,mid,display_name\n0,x,a\n1,y\n", "has no display_name for index 1"),
        (b"index,mid,display_name\n0,x,a\n2,x,c\n", "2 rows, but none of index '1'"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
    ],
)
def test_bad_labels(content: bytes, reason: str, vit_file: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(SatError, match=reason):
        convert_file(vit_file, labels=read_labels(tmp_path / "labels"))


def test_an_autoencoder_has_no_labels(tmp_path: Path) -> None:
    write_tensors(tmp_path / "mae.pt", weights("mae"))
    with pytest.raises(SatError, match="no classes"):
        convert_file(tmp_path / "mae.pt", labels=["a"])
