"""The benchmarks run and report; their numbers are not tested, since machines differ."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from benchmarks import (
    gpu_rivals,
    gpu_train_step,
    many_files,
    measuring,
    start_up,
    stream_step,
    train_step,
    training_rivals,
)
from benchmarks.gpu_rivals import jax_steps
from benchmarks.training_rivals import Rival
from sat_jax.config import ModelConfig
from sat_jax.models import registry
from sat_jax.models.cache import init_cache
from sat_jax.models.transformer import AudioTransformer, init_variables
from tests.benchmarks.counting_rival import count
from tests.reference import torch_model as torch_reference
from tests.support.jaxpr_flops import count_matmul_flops


@pytest.fixture(autouse=True)
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shape = {"target_length": 32, "cache_length": 32, "depth": 1, "pooling": "token"}
    config = ModelConfig(width=64, num_classes=5, **shape)
    monkeypatch.setitem(registry.MODELS, "tiny", config)
    theirs = torch_reference.Config(embed_dim=64, outputdim=5, **shape)
    monkeypatch.setitem(torch_reference.MODELS, "tiny", theirs)
    monkeypatch.setattr(measuring, "BLOCK", 0.01)
    monkeypatch.setattr(measuring, "PAUSE", 0.0)
    monkeypatch.setattr(stream_step, "PEAK_SIZES", (64,))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    jax.config.update("jax_enable_compilation_cache", True)


def test_stream_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "steps.json"
    flags = ["--models", "tiny", "--batch", "2", "--rounds", "2", "--json", str(file)]
    stream_step.main(flags)
    report = json.loads(file.read_text())
    assert [step["batch"] for step in report["steps"]] == [2]
    for step in report["steps"]:
        assert step["max_difference"] < 1e-5
        assert step["temporary_mb"] > 0
        assert step["jax"]["median_ms"] <= step["jax"]["p95_ms"]
    table, printed = capsys.readouterr().out.strip().rsplit("\n\n", 1)
    assert json.loads(printed) == report
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert len({row.count("|") for row in rows}) == 1


def test_many_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "files.json"
    flags = ["--model", "tiny", "--files", "4", "--batch", "2", "--seconds", "0.8"]
    many_files.main([*flags, "--rounds", "2", "--json", str(file)])
    report = json.loads(file.read_text())
    differences = [found["max_difference"] for found in report["rivals"].values()]
    assert differences[:2] == [0.0, 0.0] and differences[2] < 1e-6
    table, printed = capsys.readouterr().out.strip().rsplit("\n\n", 1)
    assert json.loads(printed) == report
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 5


def test_train_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Starting a process for each rival would take most of the time.
    here = lambda make, task: contextlib.nullcontext(make(task))  # noqa: E731
    monkeypatch.setattr(train_step, "own_process", here)
    monkeypatch.setattr(training_rivals, "keep_freed_memory", lambda: None)
    file = tmp_path / "steps.json"
    train_step.main(["--models", "tiny:2", "--rounds", "2", "--json", str(file)])
    report = json.loads(file.read_text())
    (step,) = report["steps"]
    assert step["gradient_difference"] < 1e-4
    assert step["loss_difference"] < 1e-4, "both learn alike"
    assert step["jax"]["examples_per_s"] > 0
    table, printed = capsys.readouterr().out.strip().rsplit("\n\n", 1)
    assert json.loads(printed) == report
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 3


def test_gpu_train_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = lambda make, task, environment: contextlib.nullcontext(make(task))  # noqa: E731
    monkeypatch.setattr(gpu_train_step, "own_process", here)
    # PyTorch's rivals need a GPU.
    monkeypatch.setattr(gpu_train_step, "RIVALS", dict.fromkeys(gpu_train_step.RIVALS, jax_steps))
    monkeypatch.setattr(gpu_rivals, "PRODUCT_SIZE", 64)
    facts = {"gpu": "A", "torch": True}
    product = lambda task: gpu_rivals.product(task)._replace(facts=facts)  # noqa: E731
    monkeypatch.setattr(gpu_train_step, "product", product)
    file = tmp_path / "steps.json"
    flags = ["--models", "tiny:2", "--rounds", "1", "--peak_tflops", "500", "--json", str(file)]
    gpu_train_step.main(flags)
    report = json.loads(file.read_text())
    (step,) = report["steps"]
    assert len(set(step["losses"].values())) == 1
    busy = step["jax"]["examples_per_s"] * step["gflop_per_example"] * 1e9
    assert step["jax"]["utilisation"] == pytest.approx(busy / 500e12)
    table, printed = capsys.readouterr().out.strip().rsplit("\n\n", 1)
    assert json.loads(printed) == report
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_different_or_nan_losses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.65, 0.65, float("nan")])
    here = lambda make, task, environment: contextlib.nullcontext(  # noqa: E731
        Rival(functools.partial(next, losses), {})
    )
    monkeypatch.setattr(gpu_train_step, "own_process", here)
    with pytest.raises(RuntimeError, match="nan"):
        gpu_train_step.measure("tiny", 2, rounds=1, peak=1.0)


@pytest.mark.parametrize(
    ("gpu", "torch_sees_it", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", True, 989.0),
        ("NVIDIA H200", True, 989.0),
        ("NVIDIA A100-SXM4-40GB", True, 312.0),
        ("NVIDIA L4", True, "NVIDIA L4"),
        ("NVIDIA H200", False, "PyTorch sees no CUDA GPU"),
        ("", False, "JAX sees no CUDA GPU"),
    ],
)
def test_the_peak_of_a_gpu(gpu: str, torch_sees_it: bool, peak: float | str) -> None:
    rival = Rival(lambda: 0.0, {"gpu": gpu, "torch": torch_sees_it})
    if isinstance(peak, float):
        assert gpu_train_step.find_peak(rival, None) == peak
        assert gpu_train_step.find_peak(rival, 7.0) == 7.0
        return
    with pytest.raises(SystemExit, match=peak):
        gpu_train_step.find_peak(rival, None)


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--models", "SAT_T_2s", "NAME:BATCH"),
        ("--models", "SAT_T_2s:0", "NAME:BATCH"),
        ("--models", "SAT_T_2s:8,,", "NAME:BATCH"),
        ("--rounds", "0", "--rounds"),
    ],
)
def test_wrong_flags_are_refused(
    flag: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for program in (train_step, gpu_train_step):
        with pytest.raises(SystemExit):
            program.parse_flags([flag, value])
        assert reason in capsys.readouterr().err


def test_unknown_models_are_refused() -> None:
    assert train_step.parse_models("SAT_T_2s:8,SAT_B_2s:4") == [("SAT_T_2s", 8), ("SAT_B_2s", 4)]
    with pytest.raises(SystemExit, match="SAT_X"):
        training_rivals.make_task("SAT_X", 2)
    with pytest.raises(SystemExit, match="audiotransformer_tiny"):
        training_rivals.make_task("audiotransformer_tiny", 2)


def test_needed_flops_are_those_of_a_window_run_chunk_by_chunk() -> None:
    config = ModelConfig(width=64, num_classes=5, target_length=192, cache_length=192, depth=3)
    chunk = np.zeros((1, config.frontend.n_mels, config.target_length), np.float32)

    def count(config: ModelConfig) -> int:
        variables = init_variables(config, jax.random.key(0))
        apply = functools.partial(AudioTransformer(config).apply, variables)
        return count_matmul_flops(jax.make_jaxpr(apply)(chunk, init_cache(config, 1, "kv")).jaxpr)

    first, later = count(dataclasses.replace(config, cache_length=0)), count(config)
    # Layer 0 projects its past again, which is not needed.
    again = 2 * config.cache_tokens * 2 * config.width**2
    assert gpu_train_step.needed_flops(config) == 3 * (first + later - again)


SETTING = {"SAT_JAX_SETTING": "1"}


def test_a_rival_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAT_JAX_SETTING", raising=False)
    with training_rivals.own_process(count, 0, environment=SETTING) as rival:
        assert rival.facts["pid"] != os.getpid()
        assert rival.facts["setting"] == "1"
        assert "SAT_JAX_SETTING" not in os.environ
        assert [rival.call(), rival.call()] == [1, 2]
        with pytest.raises(RuntimeError, match="process"):
            rival.call()


def test_different_gradients_are_refused() -> None:
    grads = {"loss": np.ones(()), "w": np.array([1.0, -2.0])}
    assert train_step.compare_gradients(grads, grads | {"w": np.array([1.0, -2.001])}) < 1e-3
    with pytest.raises(RuntimeError, match=r"0\.05"):
        train_step.compare_gradients(grads, grads | {"w": np.array([1.1, -2.0])})
    with pytest.raises(RuntimeError, match="nan"):
        train_step.compare_gradients(grads, grads | {"w": np.array([1.0, np.nan])})
    with pytest.raises(RuntimeError, match=r"\['w'\]"):
        train_step.compare_gradients(grads, {"loss": np.ones(())})


def test_different_probabilities_are_refused() -> None:
    calls = {"a": lambda: np.zeros((1, 3)), "b": lambda: np.full((1, 3), 0.01)}
    with pytest.raises(RuntimeError, match=r"0\.01"):
        stream_step.largest_difference(calls)


def test_ratios_are_per_round() -> None:
    ours = [np.array([1.0, 1.0]), np.array([10.0, 10.0]), np.array([3.0, 3.0])]
    theirs = [np.array([2.0, 2.0]), np.array([20.0, 20.0]), np.array([1.0, 1.0])]
    assert measuring.ratio(ours, theirs)["median"] == 0.5


def test_every_rival_gets_its_rounds() -> None:
    order = []
    calls = {name: functools.partial(order.append, name) for name in "ab"}
    times = measuring.interleave(calls, rounds=3)
    assert [len(blocks) for blocks in times.values()] == [3, 3]
    assert set(order) == {"a", "b"}


def test_start_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start_up, "IMPORTS", "pass")
    file = tmp_path / "start.json"
    start_up.main(["--model", "tiny", "--pairs", "1", "--json", str(file)])
    report = json.loads(file.read_text())
    assert report["ratio"]["median"] > 1
    assert "| tiny |" in capsys.readouterr().out
