"""Names and shapes of a model's weights, computed from its config.

`jax.eval_shape` gives the same, but takes 0.29 s (one block alone 0.11 s) of the 1.3 s of processor
time that `sat-jax tag` needs for a short file. A test compares both for all models.
"""

from collections.abc import Iterator

from sat_jax.config import PATCH_SIZE, AnyConfig, MaeConfig, ModelConfig

Named = Iterator[tuple[str, tuple[int, ...]]]
_PATCH_VALUES = PATCH_SIZE * PATCH_SIZE


def weight_shapes(config: AnyConfig) -> Named:
    """Yields name, such as "params/head/bias", and shape of each array of a model's variables."""
    if isinstance(config, MaeConfig):
        yield from _under("params/decoder", _decoder(config))
        params, statistics = "params/encoder", "batch_stats/encoder"
        transformer = config.encoder
    else:
        params, statistics = "params", "batch_stats"
        transformer = config
        yield from _under(f"{params}/head_norm", _norm(config.width))
        yield from _under(f"{params}/head", _linear(config.width, config.num_classes))
    yield from _under(params, _encoder(transformer))
    if transformer.input_norm == "batch":
        bands = (transformer.frontend.n_mels,)
        yield from _under(f"{params}/input_norm", _norm(*bands))
        yield from _under(f"{statistics}/input_norm", iter([("mean", bands), ("var", bands)]))


def _encoder(config: ModelConfig) -> Named:
    width = config.width
    yield "time_pos_embed", (config.time_positions, width)
    yield "freq_pos_embed", (config.freq_patches, width)
    if config.pooling == "token":
        yield "cls_token", (width,)
        yield "token_pos_embed", (width,)
    yield from _under("patch_embed", _linear(_PATCH_VALUES, width))
    yield from _under("norm", _norm(width))
    hidden, has_gains = int(width * config.mlp_ratio), config.layer_scale is not None
    for index in range(config.depth):
        yield from _under(f"blocks_{index}", _block(width, hidden, has_gains=has_gains))


def _decoder(config: MaeConfig) -> Named:
    width = config.decoder_width
    yield from _under("input_proj", _linear(config.encoder.width, width))
    yield "mask_token", (width,)
    yield "pos_embed", (config.num_patches + 1, width)
    yield from _under("norm", _norm(width))
    yield from _under("head_norm", _norm(width))
    yield from _under("head", _linear(width, _PATCH_VALUES))
    for index in range(config.decoder_depth):
        yield from _under(f"blocks_{index}", _block(width, 4 * width, has_gains=False))


def _block(width: int, hidden: int, *, has_gains: bool) -> Named:
    for norm in ("norm1", "norm2"):
        yield from _under(norm, _norm(width))
    yield from _under("attn/qkv", _linear(width, 3 * width))
    yield from _under("attn/proj", _linear(width, width))
    yield from _under("mlp/fc1", _linear(width, hidden))
    yield from _under("mlp/fc2", _linear(hidden, width))
    if has_gains:
        yield "ls1/gamma", (width,)
        yield "ls2/gamma", (width,)


def _linear(inputs: int, outputs: int) -> Named:
    yield "kernel", (outputs, inputs)
    yield "bias", (outputs,)


def _norm(features: int) -> Named:
    yield "scale", (features,)
    yield "bias", (features,)


def _under(prefix: str, named: Named) -> Named:
    for name, shape in named:
        yield f"{prefix}/{name}", shape
