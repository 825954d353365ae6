"""Weights under the names that training programs give them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from sat_jax.convert import convert_file
from sat_jax.convert.tensor_files import write_tensors
from sat_jax.convert.weight_sets import published_names
from sat_jax.errors import SatError
from tests.reference.torch_model import SAT, Config
from tests.support.golden_models import small_config, small_weights
from tests.support.golden_tensors import ALL, as_torch, assert_same, weights
from tests.support.golden_weights import GOLDEN

StateDict = dict[str, torch.Tensor]


def _before_each(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name


def _hugging_face(name: str) -> str:
    """CED's names there: all but the classifier in an encoder, a bare normalisation."""
    if name.startswith("outputlayer"):
        return name
    return "encoder." + name.replace("init_bn.1.", "init_bn.")


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize(
    "rename",
    [
        *(
            _before_each(prefix)
            for prefix in (
                "",
                "module.",
                "_orig_mod.",
                "module._orig_mod.",
                "_orig_mod.module.",
                "_fsdp_wrapped_module._orig_mod.",
                "model.",
                "net.module.",
                "state_dict.model._orig_mod.",
                "ema_model.module.",
            )
        ),
        lambda name: name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."),
        lambda name: "model." + name.replace("norm1.", "_checkpoint_wrapped_module.norm1."),
    ],
)
def test_a_prefix_changes_nothing(rename: Callable[[str], str], model: str) -> None:
    names = list(weights(model))
    found = published_names([rename(name) for name in names])
    assert found == {rename(name): name for name in names}


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_hugging_face_s_layout_of_ced(prefix: str) -> None:
    names = list(weights("vit_mean"))
    found = published_names([prefix + _hugging_face(name) for name in names])
    assert list(found.values()) == names


def _reference() -> torch.nn.Module:
    config = small_config("sat_mean_2s")
    model = SAT(
        Config(
            embed_dim=config.width,
            depth=config.depth,
            outputdim=config.num_classes,
            pooling=config.pooling,
            target_length=config.target_length,
            cache_length=config.cache_length,
        )
    )
    model.load_state_dict(torch.load(GOLDEN / "sat_mean_2s.pt", weights_only=True)["model"])
    return model


def _with_checkpointing(model: torch.nn.Module) -> torch.nn.Module:
    model.blocks[0] = checkpoint_wrapper(model.blocks[0])
    return model


def _inside(model: torch.nn.Module) -> torch.nn.Module:
    """As a LightningModule keeps its network, beside a loss with weights of its own."""
    outer = torch.nn.Module()
    outer.net, outer.loss = model, torch.nn.BCEWithLogitsLoss(pos_weight=torch.ones(11))
    return outer


@pytest.mark.parametrize(
    "wrap",
    [
        torch.nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        _with_checkpointing,
        lambda model: _inside(torch.nn.DataParallel(model)),
    ],
)
def test_files_of_wrapped_models_are_the_same_model(
    wrap: Callable[[torch.nn.Module], torch.nn.Module], tmp_path: Path
) -> None:
    file = tmp_path / "wrapped.pt"
    torch.save({"state_dict": wrap(_reference()).state_dict(), "epoch": 3}, file)
    checkpoint = convert_file(file)
    assert checkpoint.config == small_config("sat_mean_2s")
    assert_same(checkpoint.variables, small_weights("sat_mean_2s"))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"model": tensors},
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": {"state_dict": tensors}, "optimizer": {"state": {0: tensors}}},
        lambda tensors: {"model": tensors, "state_dict": tensors},  # One set, there twice.
        lambda tensors: {"a": {"b": {"c": {"d": {"e": {"f": tensors}}}}}},
        lambda tensors: {
            n: torch.nn.Parameter(x, x.is_floating_point()) for n, x in tensors.items()
        },
    ],
)
def test_where_a_file_keeps_its_state_dict(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    torch.save(wrap(as_torch(weights("vit_mean"))), tmp_path / "file.pt")
    checkpoint = convert_file(tmp_path / "file.pt")
    assert_same(checkpoint.variables, small_weights("vit_mean"))


def test_of_two_sets_the_user_chooses_one(tmp_path: Path) -> None:
    tensors = as_torch(weights("vit_mean"))
    average = {f"module.{name}": x + 1 for name, x in tensors.items()}
    torch.save({"model": tensors, "model_ema": average}, tmp_path / "two.pt")
    with pytest.raises(SatError, match=r"two\.pt: .* model, model_ema: .*--part"):
        convert_file(tmp_path / "two.pt")
    for part, added in (("model", 0), ("model_ema", 1)):
        checkpoint = convert_file(tmp_path / "two.pt", part=part)
        bias = checkpoint.variables["params"]["norm"]["bias"]
        assert_same(bias, (tensors["norm.bias"] + added).numpy())
    with pytest.raises(SatError, match=r"two\.pt: .*'ema'.* model, model_ema"):
        convert_file(tmp_path / "two.pt", part="ema")


def test_a_set_inside_another(tmp_path: Path) -> None:
    tensors = weights("vit_mean")
    average = {f"ema.{name}": x + 1 for name, x in tensors.items()}
    write_tensors(tmp_path / "two.safetensors", tensors | average)
    with pytest.raises(SatError, match="top, ema"):
        convert_file(tmp_path / "two.safetensors")
    checkpoint = convert_file(tmp_path / "two.safetensors", part="top")
    assert_same(checkpoint.variables, small_weights("vit_mean"))


def test_two_tensors_of_one_name() -> None:
    names = [*weights("vit_mean"), "encoder.norm.bias"]
    with pytest.raises(SatError, match=r"norm\.bias: norm\.bias and encoder\.norm\.bias"):
        published_names(names)
