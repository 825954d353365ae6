"""Models from PyTorch files and back, exactly."""

import copy
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from flax.traverse_util import unflatten_dict

from sat_jax.config import ModelConfig
from sat_jax.convert import convert_file, export_file
from sat_jax.convert.checkpoints import published_shapes
from sat_jax.convert.tensor_files import read_tensors, write_tensors
from sat_jax.convert.weight_table import is_learned
from sat_jax.errors import SatError
from sat_jax.models.registry import MODELS
from sat_jax.models.shapes import weight_shapes
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.reference.torch_model import SAT, Config
from tests.support.golden_models import clip, mae_config, numbers, small_config, small_weights
from tests.support.golden_tensors import ALL, assert_same, settings_of, weights
from tests.support.golden_weights import GOLDEN, load_models

PUBLISHED = ("sat_mean_2s", "sat_token_2s", "vit_token")
"""Golden models in files as the published code saves them."""


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_round_trip_through_a_checkpoint_is_exact(name: str, suffix: str, tmp_path: Path) -> None:
    original = torch.load(GOLDEN / f"{name}.pt", weights_only=True)["model"]
    folder, file = tmp_path / "model", tmp_path / f"model{suffix}"
    save_checkpoint(folder, convert_file(GOLDEN / f"{name}.pt"))
    export_file(load_checkpoint(folder), file)
    again = read_tensors(file)
    assert {n: x.shape for n, x in again.items()} == {
        n: tuple(x.shape) for n, x in original.items()
    }
    for tensor, value in original.items():
        assert again[tensor].dtype == value.numpy().dtype, tensor
        if is_learned(tensor):
            np.testing.assert_array_equal(again[tensor], value.numpy(), tensor)
    # What the documentation says of the others.
    others = {"spectrogram.window": 2e-7, "mel_scale.fb": 1e-5}
    for tensor, error in others.items():
        tensor = f"front_end.0.{tensor}"
        np.testing.assert_allclose(again[tensor], original[tensor].numpy(), rtol=0, atol=error)
    assert again["init_bn.1.num_batches_tracked"] == 0


def write_with_front_end(path: Path, f_max: float, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a golden model whose file has a filterbank up to `f_max`, by librosa."""
    bank = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=64, fmax=f_max, htk=True, norm=None)
    content = torch.load(GOLDEN / "sat_mean_2s.pt", weights_only=True)
    content["model"]["front_end.0.mel_scale.fb"] = torch.from_numpy(bank.T.copy()).to(dtype)
    torch.save(content, path)
    return path


def test_a_filterbank_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = write_with_front_end(tmp_path / "low.pt", 7_600.0)
    with pytest.raises(SatError, match=r"low\.pt: front_end\.0\.mel_scale\.fb .*f_max=8000.*--set"):
        convert_file(path)
    config = convert_file(path, settings={"f_max": "7600"}).config
    assert isinstance(config, ModelConfig) and config.frontend.f_max == 7_600.0


def test_a_window_of_another_kind_is_refused(tmp_path: Path) -> None:
    content = torch.load(GOLDEN / "sat_mean_2s.pt", weights_only=True)
    content["model"]["front_end.0.spectrogram.window"] = torch.hamming_window(512)
    torch.save(content, tmp_path / "hamming.pt")
    with pytest.raises(SatError, match=r"front_end\.0\.spectrogram\.window"):
        convert_file(tmp_path / "hamming.pt")


def test_a_rounded_filterbank_is_accepted(tmp_path: Path) -> None:
    assert convert_file(write_with_front_end(tmp_path / "a.pt", 8_000.0, torch.bfloat16)).labels


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
    streams = StreamingModel(checkpoint.config, make_framing(checkpoint.config))
    scores = streams.clip(checkpoint.variables, clip()[None])
    answers = numbers(name)
    want = answers["clip_mean"] if "clip_mean" in answers else answers["clip_full"]
    np.testing.assert_allclose(scores[0], want, atol=1e-4)


def test_an_autoencoder_of_our_own_gets_the_classifier_that_strict_loading_wants(
    tmp_path: Path,
) -> None:
    config = mae_config()
    ones = {name: np.ones(shape, np.float32) for name, shape in weight_shapes(config)}
    checkpoint = Checkpoint(config=config, variables=unflatten_dict(ones, sep="/"), labels=())
    export_file(checkpoint, tmp_path / "mae.safetensors")
    written = read_tensors(tmp_path / "mae.safetensors")
    shapes = load_models()["mae"]["state_dict_shapes"]
    assert {n: list(x.shape) for n, x in written.items()} == shapes
    again = convert_file(tmp_path / "mae.safetensors")
    assert again.config == config
    assert again.labels == ()


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
    for name in ("blocks.0.ls2.gamma", "blocks.1.attn.qkv.bias", "blocks.1.ls1.gamma"):
        assert name in missing
    assert missing.endswith(" norm.weight") and unexpected.endswith(" extra")


def test_half_of_a_projection_is_missing(tmp_path: Path) -> None:
    tensors = weights("sat_mean_2s")
    del tensors["blocks.1.attn.to_kv.bias"]
    write_tensors(tmp_path / "sat.pt", tensors)
    with pytest.raises(SatError, match=r"missing.*blocks\.1\.attn\.to_kv\.bias"):
        convert_file(tmp_path / "sat.pt")


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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(bad: float, tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    tensors["blocks.1.norm2.bias"][5] = bad
    write_tensors(tmp_path / "vit.pt", tensors)
    with pytest.raises(SatError, match=r"vit\.pt: NaN or infinity in blocks\.1\.norm2\.bias"):
        convert_file(tmp_path / "vit.pt")
    variables = copy.deepcopy(small_weights("vit_mean"))
    variables["params"]["blocks_1"]["norm2"]["bias"][5] = bad
    checkpoint = Checkpoint(config=small_config("vit_mean"), variables=variables, labels=())
    with pytest.raises(SatError, match="params/blocks_1/norm2/bias"):
        export_file(checkpoint, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(("name", "named"), [("mae", "autoencoder"), ("vit_mean", "11")])
def test_labels_that_do_not_fit(name: str, named: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / "weights.pt", weights(name))
    with pytest.raises(SatError, match=named):
        convert_file(tmp_path / "weights.pt", labels=["a"])
