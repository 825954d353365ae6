"""The command that converts weights."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sat_jax.convert.tensor_files import read_tensors, write_tensors
from sat_jax.convert.weight_table import is_learned
from sat_jax.weights.catalog import BUNDLED
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.support.golden_models import small_config, small_weights
from tests.support.golden_tensors import weights
from tests.support.golden_weights import GOLDEN
from tests.support.programs import run_command


@pytest.fixture(name="vit_file")
def _vit_file(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "vit.pt", weights("vit_mean"))
    return tmp_path / "vit.pt"


def test_it_prints_the_model_and_the_assumed_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    arguments = ["--set", "pooling=dm", GOLDEN / "sat_mean_2s.pt", folder]
    assert run_command("convert", *arguments, "--set", "target_length = 288") == 0
    first, *notes = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{folder}: SAT ") and first.endswith(" 0.435 M parameters")
    for fact in ("width 128", "depth 2", "dm pooling", "11 classes", "288 frames", "cache of 96"):
        assert fact in first
    assert notes == []
    config = load_checkpoint(folder).config
    assert (config.target_length, config.cache_length) == (288, 96)  # type: ignore[union-attr]

    assert run_command("convert", GOLDEN / "vit_token.pt", tmp_path / "vit") == 0
    first, note = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'vit'}: ViT ") and first.endswith(" 0.440 M parameters")
    assert note.startswith("note: ") and "target_length=1012" in note


def test_an_autoencoder_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tensors(tmp_path / "mae.pt", weights("mae"))
    assert run_command("convert", tmp_path / "mae.pt", tmp_path / "mae") == 0
    assert run_command("convert", tmp_path / "mae", tmp_path / "mae.safetensors") == 0
    assert capsys.readouterr().out.count("masked autoencoder, encoder width 128") == 2
    back = read_tensors(tmp_path / "mae.safetensors")
    for name, array in weights("mae").items():
        if is_learned(name):
            np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{vit}", "{tmp}/out", "--model", "SAT_T_2s"], "width=192 of SAT_T_2s"),
        (["{vit}", "{tmp}/out", "--set", "depht=3"], "'depht': did you mean 'depth'?"),
        (["{vit}", "{tmp}/out", "--set", "f_max=nan"], "frontend.f_max=nan"),
        (["{vit}", "{tmp}/out", "--set", "f_min=9000"], "frontend.f_min=9000.0"),
        (["{vit}", "{tmp}/out", "--set", "top_db=nan"], "frontend.top_db=nan"),
        (["{vit}", "{tmp}/out", "--set", "top_db=-1"], "frontend.top_db=-1.0"),
        (["{vit}", "{tmp}/out", "--set", "sample_rate=1"], "frontend.sample_rate=1"),
        (["{vit}", "{tmp}/out", "--set", "hop_length=100000"], "frontend.hop_length=100000"),
        (["{sat}", "{tmp}/out", "--set", "cache_length=17"], "cache_length=17"),
        (["{vit}", "{tmp}/out", "--labels", "{tmp}/none.csv"], "{tmp}/none.csv"),
        (["{tmp}/none.pt", "{tmp}/out"], "{tmp}/none.pt"),
        (["{vit}", "{vit}"], "{vit}"),
        (["{tmp}", "{tmp}/out.pt"], "{tmp}"),
        (["SAT_XS_2s", "{tmp}/out.pt"], "{bundled}"),
        (["SAT_T_2s", "{tmp}/out.pt"], "/SAT_T_stream2s_mAP_43_34.pt"),
        (["SAT_XS_1s", "{tmp}/out.pt"], "SAT_XS_1s is a model's name"),
        (["{tmp}/{long}", "{tmp}/out"], "{long}"),
        (["{vit}", "{tmp}/{long}"], "{long}"),
        (["{vit}", "{tmp}/out", "--labels", "{long}"], "{long}"),
        (["{vit}", "{tmp}/out", "--part", "ema"], "'ema'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    named: str,
    vit_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"long": 300 * "a", "vit": vit_file, "sat": GOLDEN / "sat_mean_2s.pt", "tmp": tmp_path}
    places["bundled"] = BUNDLED / "SAT_XS_2s"
    assert run_command("convert", *(argument.format(**places) for argument in arguments)) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("sat-jax convert: ") and output.err.count("\n") == 1
    assert named.format(**places) in output.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "IN and OUT"),
        (["in.pt"], "in.pt"),
        (["in.pt", "out", "more"], "more"),
        (["in.pt", ""], "in.pt"),
        (["", "out"], "out"),
        (["in.pt", "out", "--modle", "SAT_T_2s"], "modle"),
        (["in.pt", "out", "--set", "pooling"], "--set=pooling"),
        (["in.pt", "out", "--set", "=mean"], "--set==mean"),
        (["in.pt", "out", "--model", ""], "--model"),
        (["{tmp}", "out.pt", "--model", "SAT_T_2s"], "--model"),
        (["{tmp}", "out.pt", "--labels", "labels.csv"], "--labels"),
        (["{tmp}", "out.pt", "--part", "model_ema"], "--part"),
    ],
)
def test_wrong_usage_has_code_2(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("convert", *(argument.format(tmp=tmp_path) for argument in arguments)) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert named in output.err


def test_an_export_needs_a_known_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Checkpoint(
        config=small_config("vit_mean"),
        variables=small_weights("vit_mean"),
        labels=tuple("abcdefghijk"),
    )
    save_checkpoint(tmp_path / "model", checkpoint)
    assert run_command("convert", tmp_path / "model", tmp_path / "model.onnx") == 1
    error = capsys.readouterr().err
    assert "model.onnx" in error and ".safetensors" in error


def test_an_export_notes_what_stays_in_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, variables = small_config("vit_mean"), small_weights("vit_mean")
    default = tuple(f"class {index}" for index in range(11))
    for name, labels in (("default", default), ("own", ("siren", *default[1:]))):
        checkpoint = Checkpoint(config=config, variables=variables, labels=labels)
        save_checkpoint(tmp_path / name, checkpoint)
    thresholds = tmp_path / "own" / "thresholds.json"
    thresholds.touch()
    assert run_command("convert", tmp_path / "default", tmp_path / "a.safetensors") == 0
    assert "note: " not in capsys.readouterr().out
    assert run_command("convert", tmp_path / "own", tmp_path / "b.safetensors") == 0
    _, *notes = capsys.readouterr().out.splitlines()
    for note, named in zip(notes, ("--labels", str(thresholds)), strict=True):
        assert str(tmp_path / "b.safetensors") in note and named in note


@pytest.mark.parametrize("module", [["sat_jax", "convert"], ["sat_jax.convert"]])
def test_as_a_program_that_starts_without_jax(module: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *module, tmp_path / "none.pt", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.returncode, done.stdout) == (1, "")
    imports, lines = [], []
    for line in done.stderr.splitlines():
        (imports if line.startswith("import time:") else lines).append(line)
    assert len(lines) == 1 and str(tmp_path / "none.pt") in lines[0]
    assert not [line for line in imports if line.endswith((" jax", " flax"))]
