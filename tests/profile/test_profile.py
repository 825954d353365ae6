"""What a step costs: counts from the config beside those of the traced and compiled program."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sat_jax.commands import profile as command
from sat_jax.config import FrontendConfig, MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models import registry
from sat_jax.models.registry import MODELS
from sat_jax.models.transformer import init_variables
from sat_jax.profile import published
from sat_jax.profile.analytic import count_multiply_adds, count_parameters, count_tokens
from sat_jax.profile.compiled import compile_step, trace_matmul_flops
from sat_jax.profile.measure import find_subject, profile_step
from sat_jax.profile.timing import time_for
from sat_jax.profile.traced import count_matmul_flops
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint

SAT = ModelConfig(width=64, depth=3, num_classes=5, target_length=32, cache_length=32)
CLIP = ModelConfig(width=64, depth=2, num_classes=5, target_length=64, pad_last=True)
PROGRAM = "sat_jax.profile"

XLA_SHARE = 0.10
"""How much more XLA may count than the matrix products, as docs/cost.md says."""


fresh_weights = jax.jit(init_variables, static_argnums=0)


def changed(config: ModelConfig, **changes: object) -> ModelConfig:
    return dataclasses.replace(config, **changes)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry.MODELS, "tiny", SAT)
    return "tiny"


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        pytest.param(SAT, 0.33, id="a chunk as long as a piece"),
        pytest.param(SAT, 0.16, id="a chunk shorter than the cache"),
        pytest.param(SAT, 1.1, id="pieces in a loop"),
        pytest.param(changed(SAT, pad_last=True), 0.4, id="a shorter last piece"),
        pytest.param(changed(SAT, cache_length=80, pooling="token"), 0.33, id="a longer cache"),
        pytest.param(changed(SAT, pooling="dm", layer_scale=0.1), 0.33, id="an answer a column"),
        pytest.param(changed(SAT, dtype="bfloat16", mlp_ratio=3.0), 0.33, id="another type"),
        pytest.param(changed(SAT, frontend=FrontendConfig(n_mels=128)), 0.33, id="more bands"),
        pytest.param(CLIP, 0.33, id="no cache"),
        pytest.param(changed(CLIP, pooling="logit"), 0.7, id="more frames than positions"),
        pytest.param(changed(CLIP, pooling="token"), 1.5, id="padded to a whole piece"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_multiply_adds_are_those_of_the_traced_step(config, seconds, batch_size):
    framing = make_framing(config, chunk_seconds=seconds)
    work = count_multiply_adds(config, framing)
    assert 2 * batch_size * work.total == trace_matmul_flops(config, framing, batch_size)


@pytest.mark.parametrize("name", ["SAT_XS_1s", "audiotransformer_xs"])
def test_xla_counts_little_more_in_the_smallest_models(name):
    # Of larger ones the products are a larger share.
    step = compile_step(MODELS[name], make_framing(MODELS[name]), batch_size=1)
    assert 1.0 <= step.xla_flops / step.matmul_flops <= 1.0 + XLA_SHARE


def test_flops_of_matrix_products() -> None:
    def program(x: jax.Array, w: jax.Array) -> jax.Array:
        product = jax.jit(jnp.matmul)(x, w)
        return jax.lax.cond(product.sum() > 0, lambda y: y @ w.T, lambda y: y[:, :4], product)

    jaxpr = jax.make_jaxpr(program)(np.ones((2, 3, 4)), np.ones((4, 4)))
    assert count_matmul_flops(jaxpr.jaxpr) == 2 * 2 * (2 * 3 * 4 * 4)


def test_loops_are_counted_as_often_as_they_run():
    def program(x):
        return jax.lax.scan(lambda y, w: (y @ w, y.sum()), x, jnp.ones((7, 4, 4)))

    jaxpr = jax.make_jaxpr(program)(np.ones((2, 4)))
    assert count_matmul_flops(jaxpr.jaxpr) == 7 * 2 * (2 * 4 * 4)


def test_products_in_an_open_loop_are_refused():
    def program(x):
        return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x)

    with pytest.raises(ValueError, match="how often"):
        count_matmul_flops(jax.make_jaxpr(program)(np.ones((2, 2))).jaxpr)


@pytest.mark.parametrize(
    "config", [SAT, changed(SAT, pooling="token", layer_scale=0.1), changed(CLIP, width=128)]
)
def test_parameters_are_those_of_fresh_weights(config):
    weights = fresh_weights(config, jax.random.key(0))
    flat, _ = ravel_pytree(weights["params"])
    assert count_parameters(config) == len(flat)


def test_tokens_are_those_in_the_cache_after_a_step():
    config = changed(SAT, cache_length=320)
    framing = make_framing(config)
    step = compile_step(config, framing, 2)
    weights = fresh_weights(config, jax.random.key(0))
    state = StreamingModel(config, framing).init(weights, 2, warmup="none")
    assert step.state_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    _, state = step.program(weights, np.zeros((2, framing.hop), np.float32), state)
    tokens = count_tokens(config, framing)
    assert list(state.cache.num_real) == [tokens.new] * 2
    assert state.cache.room == tokens.cached


def test_a_profile_has_measured_steps(tiny):
    profile = profile_step(find_subject(tiny), chunk_seconds=None, batch_size=2, seconds=0.05)
    assert profile.temporary_bytes > 0
    assert profile.latency is not None
    assert 0.0 < profile.latency.median_ms <= profile.latency.p95_ms
    assert profile.latency.steps >= 5
    unmeasured = profile_step(find_subject(tiny), chunk_seconds=None)
    assert unmeasured.latency is None
    assert unmeasured.multiply_adds == profile.multiply_adds, "of one stream"
    assert profile.matmul_flops == 2 * unmeasured.matmul_flops, "of all streams"


def test_calls_are_timed_until_the_time_is_up():
    calls = iter(range(1000))
    assert len(time_for(functools.partial(next, calls), 0.0)) == 5
    assert next(calls) == 6, "and one before"


def as_profile(row: published.Published) -> published.Profile:
    """What the published rules are about, nothing compiled."""
    config = MODELS[row.model]
    framing = make_framing(config, chunk_seconds=row.delay)
    return published.Profile(
        model=row.model,
        config=config,
        chunk_seconds=row.delay,
        batch_size=1,
        parameters=count_parameters(config),
        tokens=count_tokens(config, framing),
        multiply_adds=count_multiply_adds(config, framing),
        matmul_flops=0,
        xla_flops=0.0,
        temporary_bytes=2 << 20,
        state_bytes=1 << 20,
        compile_seconds=0.0,
        latency=None,
    )


@pytest.mark.parametrize("row", published.PUBLISHED, ids=lambda row: f"{row.model} {row.delay}")
def test_published_figures_are_explained(row):
    profile = as_profile(row)
    assert published.published_row(profile) is row
    assert f"{published.counted_gflops(profile):.1f}" == row.gflops
    difference = published.summed_mib(profile) / float(row.memory) - 1.0
    lines = list(published.differences(profile, row))
    assert not any("not explained" in line for line in lines), "parameters and tokens agree too"
    # PeakMem of the B models at 1 s is lower than the rule that fits all others.
    odd = row.model in ("audiotransformer_base", "SAT_B_1s") and row.delay == 1.0
    assert (abs(difference) > published.MEMORY_TOLERANCE) == odd
    assert any("does not fit" in line for line in lines) == odd


def test_a_figure_that_is_not_the_published_one_gets_its_line():
    row = next(row for row in published.PUBLISHED if row.model == "SAT_T_2s")
    (gflops, memory) = published.differences(as_profile(row), row)
    assert gflops.startswith("SAT_T_2s, 2 s, GFLOPs: 0.5 published, 0.564 here: 0.515 of layers")
    assert memory.startswith("SAT_T_2s, 2 s, memory: 9 MiB published, 3.0 here")
    wrong = dataclasses.replace(as_profile(row), parameters=5_000_000)
    assert any("5.496 M published, 5.000 M here" in x for x in published.differences(wrong, row))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    program = command.PROGRAM
    with pytest.raises(SystemExit) as ended:
        program.run_parsed([PROGRAM, *program.parse([PROGRAM, *arguments])[1:]])
    return int(ended.value.code or 0), *capsys.readouterr()


def test_all_numbers_come_as_json(tiny, tmp_path, capsys):
    file = tmp_path / "profile.json"
    options = ["--format=json", f"--output={file}", "--nolatency", "--batch=2", "--chunk=0.16"]
    assert run(capsys, tiny, *options) == (0, "", "")
    report = json.loads(file.read_text())
    (model,) = report["models"]
    assert model["multiply_adds"]["total"] * 4 == model["matmul_flops"]
    assert model["tokens"] == {"new": 4, "cached": 8}
    assert model["latency"] is model["published"] is None
    assert report["machine"]["platform"] == "cpu"


def test_the_table_is_for_people(tiny, capsys):
    code, out, err = run(capsys, tiny, "--seconds=0.01")
    assert (code, err) == (0, "")
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert len({row.count("|") for row in rows}) == 1
    assert rows[-1].startswith("| tiny | 0.333313 | 8/8 |")


def test_published_models_stand_beside_the_published_figures(monkeypatch, capsys):
    # Smaller, for the sake of time: what is printed is compared, not what is true.
    monkeypatch.setitem(registry.MODELS, "SAT_T_2s", changed(MODELS["SAT_T_2s"], depth=1))
    rows = tuple(row for row in published.PUBLISHED if row.model == "SAT_T_2s")
    monkeypatch.setattr(published, "PUBLISHED", rows)
    monkeypatch.setattr(published, "EXTRA_SMALL", ())
    code, out, _ = run(capsys, "--nolatency")
    assert code == 0
    assert "| 48/48 (48/48) |" in out
    differences = [line for line in out.splitlines() if line.startswith("- SAT_T_2s, 2 s, ")]
    assert [line.split(", ")[2].split(":")[0] for line in differences] == [
        "parameters",
        "GFLOPs",
        "memory",
    ]


def test_a_checkpoint_folder_is_a_model(tmp_path, capsys):
    weights = fresh_weights(SAT, jax.random.key(0))
    labels = tuple("abcde")
    checkpoint = Checkpoint(config=SAT, variables=weights, labels=labels, source="test")
    save_checkpoint(tmp_path / "model", checkpoint)
    code, out, _ = run(capsys, str(tmp_path / "model"), "--seconds=0.01", "--format=json")
    assert code == 0
    assert json.loads(out)["models"][0]["config"] == SAT.to_dict()


def test_a_failure_leaves_the_older_file(tiny, tmp_path, capsys, monkeypatch):
    def fail(*_args, **_options):
        raise SatError("no luck")

    file = tmp_path / "profile.md"
    file.write_text("older")
    monkeypatch.setattr("sat_jax.profile.measure.compile_step", fail)
    assert run(capsys, tiny, f"--output={file}") == (1, "", f"{PROGRAM}: no luck\n")
    assert file.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["profile.md"]


def test_the_model_is_not_written_over(tmp_path, capsys):
    file = tmp_path / "model" / "metadata"
    file.parent.mkdir()
    file.write_text("older")
    with pytest.raises(SystemExit) as ended:
        command.PROGRAM.parse([PROGRAM, str(tmp_path), f"--output={file}"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{PROGRAM}: {file} would overwrite {tmp_path}") and err.count("\n") == 1


def test_too_much_for_memory_is_one_line(tiny, capsys, monkeypatch):
    def fail(*_args, **_options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr("sat_jax.profile.measure.compile_step", fail)
    code, _, err = run(capsys, tiny, "--batch=9", "--chunk=0.16")
    assert code == 1
    assert err.startswith(f"{PROGRAM}: tiny: 9 streams of 0.16 s do not fit in memory")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SAT_X_2s"], "SAT_X_2s"),
        (["mae_tiny"], "mae_tiny is a masked autoencoder"),
        ([""], "'' is no model"),
        (["SAT_T_2s", "--output=nowhere/at/all"], "cannot write nowhere/at/all"),
    ],
)
def test_what_cannot_be_profiled_is_one_line(arguments, message, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"{PROGRAM}: {message}")


def test_an_autoencoder_folder_is_refused(tmp_path, monkeypatch):
    mae = MaeConfig(encoder=changed(CLIP, pooling="token"), decoder_depth=1)
    checkpoint = Checkpoint(config=mae, variables={}, labels=(), source="test")
    monkeypatch.setattr("sat_jax.profile.measure.find_checkpoint", lambda name: checkpoint)
    with pytest.raises(SatError, match="a masked autoencoder, which hears no streams"):
        find_subject(str(tmp_path))


@pytest.mark.parametrize("option", ["--chunk=0.1", "--batch=0", "--format=xml", "--seconds=-1"])
def test_wrong_flags_are_refused(option, capsys):
    with pytest.raises(SystemExit) as ended:
        command.PROGRAM.parse([PROGRAM, "SAT_T_2s", option])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_importing_the_program_defines_no_flags_and_no_jax():
    code = (
        "import sys, sat_jax.profile.__main__; from absl import flags; "
        "assert 'chunk' not in flags.FLAGS and 'jax' not in sys.modules; "
        "import profile; assert 'sat_jax' not in profile.__file__"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
