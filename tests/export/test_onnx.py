"""Exported ONNX models compute the step, in all variants."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
import soundfile

from sat_jax import Tagger
from sat_jax.config import FrontendConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.export.check import compare
from sat_jax.export.onnx_graph import quantize
from sat_jax.export.onnx_runtime import load_step
from sat_jax.export.onnx_writer import OPSETS, write_onnx
from sat_jax.export.signature import from_arrays, host_arrays, initial_state, state_arrays
from sat_jax.models.transformer import init_variables
from sat_jax.streaming.framing import make_framing
from sat_jax.streaming.model import StreamingModel
from tests.reference.torch_model import MODELS
from tests.support.golden_models import SMALL, full_size, small_config, small_weights

HELD_OUT = Path(__file__).parents[1] / "held_out"
TINY = ModelConfig(width=64, depth=2, num_classes=7, target_length=64, cache_length=64)


def model_of(config, *, kind="chunk", seconds=None):
    return StreamingModel(config, make_framing(config, kind, chunk_seconds=seconds))


def fresh(config):
    """Random weights, with all biases and statistics unlike 0 and 1."""
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(1))
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(2)
    noisy = [
        np.abs(x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
        if x.ndim == 1
        else np.asarray(x)
        for x in leaves
    ]
    return jax.tree.unflatten(tree, noisy)


def assert_same(model, variables, *, tolerance=2e-5, **how):
    exported = write_onnx(model, variables, **({"precision": "float32"} | how))
    found = compare(model, variables, load_step(exported.SerializeToString()))
    assert found.probs < tolerance and found.same_top > 0.9


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", SMALL)
def test_golden_models(name, opset):
    assert_same(model_of(small_config(name)), small_weights(name), opset=opset)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {"seconds": 0.2}),  # A cache of several chunks.
        ({"pooling": "token"}, {"seconds": 0.35}),  # Old cls tokens stay in the cache.
        ({"pad_last": True}, {"seconds": 1.5}),  # Several pieces, the last one shorter.
        ({"pooling": "logit"}, {"seconds": 1.5}),
        ({"pooling": "dm"}, {"kind": "seamless"}),
        ({"cache_length": 0}, {"kind": "seamless", "seconds": 0.32}),
        ({"cache_length": 0, "pad_last": True}, {"seconds": 1.0}),
        ({"depth": 1}, {}),  # No keys and values.
        ({"frontend": FrontendConfig(n_mels=128), "input_norm": "fixed"}, {}),
        (
            {
                "frontend": FrontendConfig(
                    sample_rate=8_000, f_max=3_900.0, n_fft=401, hop_length=77
                )
            },
            {},
        ),
        ({"layer_scale": 0.3, "mlp_ratio": 2.5}, {}),
    ],
)
def test_variants(changes, how, opset):
    config = dataclasses.replace(TINY, **changes)
    assert_same(model_of(config, **how), fresh(config), opset=opset)


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-3), ("int8", 5e-2)])
def test_smaller_weights(precision, tolerance):
    model, variables = model_of(TINY), fresh(TINY)
    assert_same(model, variables, precision=precision, tolerance=tolerance)
    whole, small = (write_onnx(model, variables, precision=each) for each in ("float32", precision))
    matrices = {leaf.size for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 2}
    by_type = {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8}
    stored = [each for each in small.graph.initializer if each.data_type in by_type]
    assert matrices and len(stored) >= len(matrices)
    assert len(small.SerializeToString()) < len(whole.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_full_size(name):
    config, variables = full_size(name)
    model = model_of(config)
    assert_same(model, variables)
    assert_same(model, variables, precision="float16", tolerance=2e-3)


@pytest.mark.parametrize(("precision", "same"), [("float16", 1.0), ("int8", 0.98)])
def test_smaller_weights_name_the_same_sounds(precision, same):
    """The most probable class of the held-out sounds."""
    tagger = Tagger.load("SAT_XS_2s")
    samples, rate = soundfile.read(HELD_OUT / "sounds.ogg", dtype="float32")
    windows = samples.reshape(-1, 2 * rate)
    exported = write_onnx(tagger.streams, tagger.variables, precision=precision)
    state = host_arrays(tagger.streams, tagger.init(len(windows)).model)
    outputs = load_step(exported.SerializeToString())({"samples": windows, **state})
    probs, _ = tagger.step(windows, tagger.init(len(windows)))
    assert np.mean(outputs["probs"].argmax(1) == np.asarray(probs).argmax(1)) >= same


def test_a_wrong_weight_is_found():
    model, variables = model_of(TINY), fresh(TINY)
    wrong = jax.tree.map(np.array, variables)
    wrong["params"]["blocks_1"]["attn"]["qkv"]["kernel"] *= 2.0
    exported = write_onnx(model, wrong, precision="float32").SerializeToString()
    assert compare(model, variables, load_step(exported)).probs > 1e-4


def test_eight_bits_by_brute_force():
    rng = np.random.default_rng(3)
    matrix = (rng.standard_normal((50, 4)) * [1.0, 1e-3, 10.0, 0.0]).astype(np.float32)
    matrix[:, 2] = np.abs(matrix[:, 2]) + 5.0
    levels, scale = quantize(matrix)
    assert levels.dtype == np.int8
    for column in range(4):
        step = np.abs(matrix[:, column]).max() / 127
        restored = levels[:, column].astype(float) * scale[column]
        assert np.abs(restored - matrix[:, column]).max() <= 0.501 * step


def test_names_and_shapes_are_the_signature():
    model, variables = model_of(TINY, kind="seamless"), fresh(TINY)
    exported = write_onnx(model, variables, doc="a note")
    assert exported.graph.doc_string == "a note"
    assert [each.name for each in exported.graph.input] == [
        "samples",
        "tokens",
        "kv",
        "num_real",
        "peak_db",
    ]
    assert [each.name for each in exported.graph.output] == [
        "probs",
        "new_tokens",
        "new_kv",
        "new_num_real",
        "new_peak_db",
    ]
    shapes = {
        each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in exported.graph.input
    }
    assert shapes == {
        "samples": ["batch", model.framing.window],
        **{each.name: ["batch", *each.shape] for each in state_arrays(model)},
    }
    names = {node.name for node in exported.graph.node}
    assert "blocks.1/Attention" in names


@pytest.mark.parametrize("kind", ["chunk", "seamless"])
@pytest.mark.parametrize("changes", [{}, {"depth": 1}, {"cache_length": 0}])
def test_states_go_there_and_back(changes, kind):
    config = dataclasses.replace(TINY, **changes)
    model, variables = model_of(config, kind=kind, seconds=0.64), fresh(config)
    state = model.init(variables, 3)
    arrays = host_arrays(model, state)
    back = from_arrays(model, arrays, 3)
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert {each.name: (3, *each.shape) for each in state_arrays(model)} == {
        name: array.shape for name, array in arrays.items()
    }
    for name, array in initial_state(model, variables).items():
        np.testing.assert_array_equal(array, arrays[name][0])


@pytest.mark.parametrize("opset", [17, 24])
def test_other_operator_sets_are_refused(opset):
    with pytest.raises(SatError, match=f"opset {opset}: use 18 to 23"):
        write_onnx(model_of(TINY), fresh(TINY), opset=opset)
