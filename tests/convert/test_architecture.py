"""Models read off the names and shapes of their tensors."""

import dataclasses
from typing import Any

import pytest
import torch

from sat_jax.convert.architecture import read_architecture
from sat_jax.errors import SatError
from sat_jax.models.registry import MAES, MODELS
from sat_jax.weights.catalog import PUBLISHED_FILES
from tests.reference.torch_model import build
from tests.support.golden_models import SMALL, mae_config, small_config
from tests.support.golden_weights import load_models

Shapes = dict[str, tuple[int, ...]]


def shapes_of(name: str) -> Shapes:
    return {key: tuple(shape) for key, shape in load_models()[name]["state_dict_shapes"].items()}


def full_size_shapes(name: str) -> Shapes:
    """As an independent PyTorch model of the same mathematics has them."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build(name).state_dict().items()}


def read(shapes: Shapes, model: str | None = None, **settings: str) -> tuple[Any, list[str]]:
    return read_architecture(shapes, model=model, settings=settings)


def with_positions(shapes: Shapes, count: int) -> Shapes:
    width = shapes["time_pos_embed"][1]
    return shapes | {"time_pos_embed": (1, width, 1, count)}


SAT_SHAPES = shapes_of("sat_mean_2s")
VIT_SHAPES = shapes_of("vit_mean")
TOKEN_SHAPES = shapes_of("sat_token_2s")
MAE_SHAPES = shapes_of("mae")


@pytest.mark.parametrize("name", SMALL)
def test_every_small_golden_model(name: str) -> None:
    want = small_config(name)
    settings = {"pooling": want.pooling, "target_length": str(want.target_length)}
    if want.layer_scale is not None:
        settings["layer_scale"] = str(want.layer_scale)
    assert read(shapes_of(name), **settings) == (want, [])


def test_the_golden_autoencoder() -> None:
    config, notes = read(MAE_SHAPES)
    assert config == mae_config()
    assert len(notes) == 1 and "target_length=208" in notes[0]


@pytest.mark.parametrize("name", PUBLISHED_FILES)
def test_every_published_model_by_name_and_without(name: str) -> None:
    shapes = full_size_shapes(name)
    assert read(shapes, name) == (MODELS[name], [])
    assert read(shapes)[0] == MODELS[name]


@pytest.mark.parametrize("name", load_models()["full_size"]["state_dict_shapes"])
def test_published_models_as_their_own_code_has_them(name: str) -> None:
    shapes = load_models()["full_size"]["state_dict_shapes"][name]
    assert full_size_shapes(name) == {key: tuple(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("positions", "lengths"), [(24, (192, 192)), (12, (96, 96)), (18, (144, 144))]
)
def test_without_a_name_a_stream_shares_its_positions_equally(
    positions: int, lengths: tuple[int, int]
) -> None:
    config, notes = read(with_positions(SAT_SHAPES, positions), pooling="mean")
    assert (config.target_length, config.cache_length) == lengths
    assert len(notes) == 1
    assert f"target_length={lengths[0]} and cache_length={lengths[1]}" in notes[0]


def test_the_file_knows_better_than_the_registry() -> None:
    """SAT_S_1s is registered with the lengths of the 2 s model."""
    shapes = with_positions(full_size_shapes("SAT_S_1s"), 12)
    config, notes = read(shapes, "SAT_S_1s")
    assert config == dataclasses.replace(MODELS["SAT_S_1s"], target_length=96, cache_length=96)
    (note,) = notes
    assert "target_length=96 and cache_length=96" in note and "SAT_S_1s" in note


def test_an_odd_number_of_positions_needs_a_length() -> None:
    shapes = with_positions(SAT_SHAPES, 15)
    with pytest.raises(SatError, match=r"15 .*--set target_length=.*--set cache_length=.* 240"):
        read(shapes)
    config, _ = read(shapes, target_length="192")
    assert (config.target_length, config.cache_length) == (192, 48)
    config, _ = read(shapes, cache_length="96")
    assert (config.target_length, config.cache_length) == (144, 96)
    config, _ = read(shapes, target_length="100")
    assert config.cache_length == 144, "in whole patches"
    config, _ = read(shapes, target_length="100", cache_length="144")
    assert (config.target_length, config.cache_length) == (100, 144)


@pytest.mark.parametrize(
    ("positions", "length"), [(63, 1012), (62, 1000), (19, 304), (64, 1024), (1, 16)]
)
def test_lengths_of_clip_models(positions: int, length: int) -> None:
    config, notes = read(with_positions(VIT_SHAPES, positions), pooling="mean")
    assert (config.target_length, config.cache_length, config.pad_last) == (length, 0, True)
    (note,) = notes
    assert f"target_length={length}" in note and f"{positions} time positions" in note
    assert read(with_positions(VIT_SHAPES, positions), cache_length="0")[0] == config
    typed, _ = read(with_positions(VIT_SHAPES, positions), target_length=str(16 * positions + 9))
    assert typed.target_length == 16 * positions + 9


def test_a_named_clip_model_of_another_length() -> None:
    shapes = with_positions(full_size_shapes("audiotransformer_tiny"), 19)
    config, notes = read(shapes, "audiotransformer_tiny")
    assert config == dataclasses.replace(MODELS["audiotransformer_tiny"], target_length=304)
    assert "target_length=304" in notes[0] and "audiotransformer_tiny" in notes[0]


def test_other_classes_than_the_named_model() -> None:
    shapes = full_size_shapes("SAT_T_2s") | {
        "outputlayer.1.weight": (50, 192),
        "outputlayer.1.bias": (50,),
    }
    config, notes = read(shapes, "SAT_T_2s")
    assert config == dataclasses.replace(MODELS["SAT_T_2s"], num_classes=50)
    (note,) = notes
    assert "num_classes=50" in note and "527" in note and "SAT_T_2s" in note


@pytest.mark.parametrize(
    ("shapes", "model", "settings", "named"),
    [
        (SAT_SHAPES, None, {"width": "192"}, ["width=192", "width=128"]),
        (SAT_SHAPES, None, {"depth": "12"}, ["depth=12", "depth=2"]),
        (SAT_SHAPES, None, {"num_classes": "527"}, ["num_classes=527", "num_classes=11"]),
        (SAT_SHAPES, None, {"pooling": "token"}, ["pooling=token", "pooling=mean"]),
        (TOKEN_SHAPES, None, {"pooling": "dm"}, ["pooling=dm", "pooling=token"]),
        (SAT_SHAPES, None, {"input_norm": "fixed"}, ["input_norm=fixed", "input_norm=batch"]),
        (SAT_SHAPES, None, {"n_mels": "128"}, ["n_mels=128", "n_mels=64"]),
        (SAT_SHAPES, None, {"mlp_ratio": "2"}, ["mlp_ratio=2.0", "mlp_ratio=4.0"]),
        (SAT_SHAPES, None, {"layer_scale": "0.1"}, ["layer_scale=0.1", "layer_scale=None"]),
        (SAT_SHAPES, None, {"cache_length": "0"}, ["cache_length=0", "cache_length=192"]),
        (VIT_SHAPES, None, {"cache_length": "192"}, ["cache_length=192", "cache_length=0"]),
        (SAT_SHAPES, None, {"target_length": "384"}, ["target_length=384", "24"]),
        (SAT_SHAPES, None, {"target_length": "400"}, ["target_length=400", "24"]),
        (SAT_SHAPES, None, {"target_length": "0"}, ["target_length=0", "24"]),
        (VIT_SHAPES, None, {"target_length": "1024"}, ["target_length=1024", "63"]),
        (
            SAT_SHAPES,
            None,
            {"target_length": "96", "cache_length": "96"},
            ["target_length=96", "cache_length=96", "24"],
        ),
        (SAT_SHAPES, "SAT_T_2s", {}, ["width=192 of SAT_T_2s", "width=128"]),
        (full_size_shapes("SAT_T_2s"), "SAT_XS_2s", {}, ["width=128 of SAT_XS_2s", "width=192"]),
        (full_size_shapes("SAT_T_2s"), "audiotransformer_tiny", {}, ["cache_length=0 of audio"]),
        (full_size_shapes("audiotransformer_tiny"), "SAT_T_2s", {}, ["cache_length=192 of SAT"]),
        (full_size_shapes("SAT_S_2s"), "SAT_T_2s", {}, ["width=192 of SAT_T_2s", "width=384"]),
        (VIT_SHAPES, "mae_tiny", {}, ["mae_tiny", "decoder"]),
        (MAE_SHAPES, "audiotransformer_tiny", {}, ["audiotransformer_tiny", "decoder"]),
        (MAE_SHAPES, "mae_tiny", {}, ["width=192 of mae_tiny", "width=128"]),
        (MAE_SHAPES, None, {"decoder_depth": "4"}, ["decoder_depth=4", "decoder_depth=1"]),
        (VIT_SHAPES, "SAT_T_3s", {}, ["'SAT_T_3s'", "SAT_T_2s", "mae_tiny"]),
    ],
)
def test_contradictions_name_both_sides(
    shapes: Shapes, model: str | None, settings: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(SatError) as raised:
        read_architecture(shapes, model=model, settings=settings)
    message = str(raised.value)
    assert all(part in message for part in named), message
    assert "\n" not in message


def test_a_typed_setting_comes_before_the_named_model() -> None:
    config, notes = read(
        full_size_shapes("SAT_T_2s"), "SAT_T_2s", pooling="dm", cache_length="96", pad_last="yes"
    )
    assert config == dataclasses.replace(
        MODELS["SAT_T_2s"], pooling="dm", target_length=288, cache_length=96, pad_last=True
    )
    assert notes == []


def test_assumed_settings_are_noted() -> None:
    _, notes = read(shapes_of("sat_ls_2s"), target_length="192")
    assert len(notes) == 2
    assert "pooling=mean" in notes[0] and "layer_scale=1e-05" in notes[1]


def test_layer_scale_of_a_named_model() -> None:
    shapes = full_size_shapes("SAT_T_2s") | {"blocks.0.ls1.gamma": (192,)}
    config, notes = read(shapes, "SAT_T_2s")
    assert config.layer_scale == 1e-5
    assert "layer_scale=1e-05" in notes[0] and "SAT_T_2s" in notes[0]
    with pytest.raises(SatError, match="layer_scale=None"):
        read(shapes, layer_scale="none")


def test_128_mel_bands() -> None:
    shapes = VIT_SHAPES | {"freq_pos_embed": (1, 128, 8, 1), "init_bn.1.weight": (128,)}
    assert read(shapes)[0].frontend.n_mels == 128
    without_norm = {name: shape for name, shape in shapes.items() if "init_bn" not in name}
    config = read(without_norm)[0]
    assert (config.frontend.n_mels, config.input_norm) == (128, "fixed")
    with pytest.raises(SatError, match=r"init_bn.*64.*freq_pos_embed.*128"):
        read(shapes | {"init_bn.1.weight": (64,)})


@pytest.mark.parametrize(("width", "hidden"), [(448, 61), (192, 500), (128, 128)])
def test_any_width_of_the_mlp(width: int, hidden: int) -> None:
    shapes = VIT_SHAPES | {
        "patch_embed.proj.weight": (width, 1, 16, 16),
        "blocks.0.mlp.fc1.weight": (hidden, width),
    }
    config, _ = read(shapes)
    assert int(config.width * config.mlp_ratio) == hidden


@pytest.mark.parametrize("name", MAES)
def test_masked_autoencoders_by_name(name: str) -> None:
    """The registry's autoencoders differ from the golden one in numbers only."""
    config = MAES[name]
    encoder, decoder = config.encoder.width, config.decoder_width
    shapes = {
        "encoder.cls_token": (1, 1, encoder),
        "encoder.time_pos_embed": (1, encoder, 1, config.encoder.time_positions),
        "encoder.freq_pos_embed": (1, encoder, 4, 1),
        "encoder.init_bn.1.weight": (64,),
        "encoder.patch_embed.proj.weight": (encoder, 1, 16, 16),
        "encoder.blocks.0.attn.qkv.weight": (3 * encoder, encoder),
        "decoder.input_proj.weight": (decoder, encoder),
    }
    for part, width, depth in (
        ("encoder", encoder, config.encoder.depth),
        ("decoder", decoder, config.decoder_depth),
    ):
        for i in range(depth):
            shapes[f"{part}.blocks.{i}.mlp.fc1.weight"] = (4 * width, width)
    assert read(shapes, name) == (config, [])
    assert read(shapes)[0] == config
    masked, _ = read(shapes, name, mask_ratio="0.6", normalize_target="false", dropout="0.1")
    assert (masked.mask_ratio, masked.normalize_target) == (0.6, False)
    assert masked.encoder == dataclasses.replace(config.encoder, dropout=0.1)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "patch_embed"),
        ({"layer1.0.conv1.weight": (64, 3, 7, 7)}, "patch_embed"),
        (VIT_SHAPES | {"patch_embed.proj.weight": (128,)}, r"patch_embed.*\[128\]"),
        (VIT_SHAPES | {"time_pos_embed": (63, 128)}, r"time_pos_embed.*\[63, 128\]"),
        (VIT_SHAPES | {"patch_embed.proj.weight": (0, 1, 16, 16)}, r"\[0, 1, 16, 16\]"),
        (VIT_SHAPES | {"patch_embed.proj.weight": (100, 1, 16, 16)}, "width=100"),
        (VIT_SHAPES | {"blocks.9999999.norm1.bias": (128,)}, r"blocks\.2"),
        (
            {n: s for n, s in VIT_SHAPES.items() if "qkv" not in n},
            r"blocks\.0\.attn\.to_kv\.weight",
        ),
        ({n: s for n, s in MAE_SHAPES.items() if "cls" not in n}, r"encoder\.cls_token"),
        ({"decoder.weight": (3,)}, "patch_embed"),
    ],
)
def test_other_files_are_refused(shapes: Shapes, message: str) -> None:
    with pytest.raises(SatError, match=message):
        read(shapes)


def test_values_out_of_range_are_the_configs_to_refuse() -> None:
    with pytest.raises(SatError, match=r"dropout=1\.5"):
        read(VIT_SHAPES, dropout="1.5")
