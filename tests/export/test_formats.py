"""LiteRT and StableHLO compute the step, too."""

import dataclasses
import json
import math
import re

import jax
import numpy as np
import pytest

from sat_jax import Tagger
from sat_jax.commands import export
from sat_jax.errors import SatError
from sat_jax.export import stablehlo
from sat_jax.export.check import compare
from sat_jax.export.formats import FORMATS
from sat_jax.export.runner import run
from sat_jax.models.portable import erf, portable
from tests.export.test_onnx import TINY, fresh, model_of
from tests.reference.torch_model import MODELS
from tests.support.golden_models import full_size, small_config, small_weights
from tests.support.programs import run_program

VARIANTS = [
    ({}, {"seconds": 0.2}),
    ({"pooling": "token", "layer_scale": 0.3}, {}),
    ({"pooling": "logit", "pad_last": True}, {"seconds": 1.5}),
    ({"pooling": "dm"}, {"kind": "seamless"}),
    ({"cache_length": 0, "input_norm": "fixed"}, {"seconds": 0.5}),
]


@pytest.fixture(params=["litert", "stablehlo"])
def kind(request):
    return FORMATS[request.param]


def assert_same(kind, model, variables, *, precision="float32", tolerance=2e-5):
    exported = kind.export(model, variables, precision, None)
    found = compare(model, variables, exported.run, batch_sizes=exported.batch_sizes)
    assert found.probs < tolerance and found.same_top > 0.9


@pytest.mark.parametrize(("changes", "how"), VARIANTS)
def test_variants(kind, changes, how):
    config = dataclasses.replace(TINY, **changes)
    assert_same(kind, model_of(config, **how), fresh(config))


@pytest.mark.parametrize("name", ["sat_mean_2s", "sat_token_2s"])
def test_golden_models(kind, name):
    assert_same(kind, model_of(small_config(name)), small_weights(name))


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-3), ("int8", 5e-2)])
def test_smaller_weights(precision, tolerance):
    kind, model, variables = FORMATS["litert"], model_of(TINY), fresh(TINY)
    assert_same(kind, model, variables, precision=precision, tolerance=tolerance)
    whole, small = (
        kind.export(model, variables, each, None).content for each in ("float32", precision)
    )
    assert len(small) < 0.9 * len(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_full_size(kind, name):
    config, variables = full_size(name)
    assert_same(kind, model_of(config), variables)


def test_litert_has_built_in_operators_only():
    content = FORMATS["litert"].export(model_of(TINY), fresh(TINY), "float32", None).content
    assert not re.search(rb"Flex[A-Z]|XlaCallModule", content)


def test_litert_refuses_other_sizes_of_the_fourier_transform():
    frontend = dataclasses.replace(TINY.frontend, n_fft=400)
    config = dataclasses.replace(TINY, frontend=frontend)
    with pytest.raises(SatError, match="400"):
        FORMATS["litert"].export(model_of(config), fresh(config), "float32", None)


def test_stablehlo_runs_on_several_platforms():
    content = stablehlo.write_stablehlo(model_of(TINY), fresh(TINY))
    assert jax.export.deserialize(bytearray(content)).platforms == ("cpu", "cuda", "tpu")


def test_the_error_function_of_exports():
    x = np.linspace(-6, 6, 100_001, dtype=np.float32)
    with portable(True):
        ours = jax.jit(lambda x: erf(x))(x)
    np.testing.assert_allclose(ours, np.vectorize(math.erf)(x), atol=1e-6)


def test_the_program_runs_them(kind, tmp_path):
    name = next(name for name, each in FORMATS.items() if each is kind)
    folder = tmp_path / name
    assert run_program(export.PROGRAM, "export", f"--format={name}", "--nocheck", str(folder)) == 0
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert (about["kind"], about["model_file"]) == (name, kind.file)
    step = run.Step(folder)
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 70_000).astype(np.float32)
    chunks = list(Tagger.load("SAT_XS_2s").tag(np.pad(sound, (0, 32_000))))[:3]
    stream = run.Stream(step)
    found = stream.push(sound) + stream.finish()
    for (_, _, probs), chunk in zip(found, chunks, strict=True):
        np.testing.assert_allclose(probs, chunk.probs, atol=2e-3)


def test_the_command_offers_all_formats():
    assert set(export.FLAGS["format"].parser.enum_values) == set(FORMATS)
