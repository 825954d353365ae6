"""What recipes tell of their models, and how a trained one gets into the package."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile

from recipes import bundle as bundle_module
from recipes.accuracy import summarize
from recipes.bundle import bundle
from recipes.pkg_audio_results import write_results
from sat_jax.bundled import bundled_folder
from sat_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.models.registry import model_config
from sat_jax.warm_start import fresh_variables


def test_accuracy_is_counted_by_class():
    truth = ["dog", "dog", "rain", "rain", "rain"]
    chosen = ["dog", "rain", "rain", "rain", "dog"]
    result = summarize(truth, chosen)
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["by_class"] == pytest.approx({"dog": 1 / 2, "rain": 2 / 3})
    assert result["confused"] == {"dog -> rain": 1, "rain -> dog": 1}


def test_results_tell_mean_and_spread_over_seeds(tmp_path):
    (tmp_path / "seconds.json").write_text(json.dumps({"vit": {"wall": 60.4, "cpu": 100.0}}))
    for seed, value in ((0, 0.25), (1, 0.5)):
        folder = tmp_path / f"seed{seed}" / "measured" / "SAT_XS_2s"
        folder.mkdir(parents=True)
        result = {
            "mode": "stream",
            "delay": 2.0,
            "mAP": value,
            "lwlrap": 0.5,
            "strong": {"segment_mAP": value / 2, "onset_delay_median": None},
            "stability": {"mean_squared_change": 0.01},
        }
        (folder / "metrics.json").write_text(json.dumps([result]))
        others = [{"mode": "chunks", "delay": 2.0, "mAP": 0.2}]
        others += [{"mode": "clip", "delay": None, "mAP": 0.6}]
        (folder.parent / "vit").mkdir()
        (folder.parent / "vit" / "metrics.json").write_text(json.dumps(others))
        taught_alike = {"mode": "chunks", "delay": 2.0, "mAP": 0.25}
        taught_alike["strong"] = {"segment_mAP": 0.05}
        (folder.parent / "no_memory_XS_2s").mkdir()
        alike = folder.parent / "no_memory_XS_2s" / "metrics.json"
        alike.write_text(json.dumps([taught_alike]))
    text = write_results(tmp_path)
    assert text == (tmp_path / "results.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| SAT_XS_2s"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("SAT_XS_2s", "stream", "2", "2", "0.375 (0.25 to 0.5)", "0.5 (0.5 to 0.5)"),
        *("0.188 (0.125 to 0.25)", "-", "0.01 (0.01 to 0.01)"),
    ]
    assert "| vit | 60 | 100 |" in text
    assert "| vit | clip | all | 2 | 0.6 (0.6 to 0.6) | - |" in text
    assert (
        "- mAP of SAT_XS_2s less that of vit in chunks of 2 s, seed by seed: +0.050, +0.300" in text
    )
    assert "segment mAP of SAT_XS_2s less that of vit" not in text, "that was not measured"
    assert "no_memory_XS_2s in chunks of 2 s, seed by seed: +0.000, +0.250" in text
    assert "no_memory_XS_2s in chunks of 2 s, seed by seed: +0.075, +0.200" in text
    assert (tmp_path / "results.png").stat().st_size > 10_000


@pytest.fixture
def checkpoint(tmp_path):
    config = model_config("SAT_XS_1s")
    variables = jax.jit(fresh_variables, static_argnums=0)(config, jax.random.key(0))
    labels = default_label_names(config.num_classes)
    save_checkpoint(tmp_path / "run", Checkpoint(config=config, variables=variables, labels=labels))
    return tmp_path / "run", variables


def test_bundled_weights_are_those_that_were_trained_but_for_rounding(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(bundle_module, "BUNDLED", tmp_path / "models")
    trained, variables = checkpoint
    for _ in range(2):  # A new model takes the old one's place.
        folder = bundle(trained, "SAT_XS_1s")
    for before, after in zip(
        jax.tree.leaves(variables), jax.tree.leaves(load_checkpoint(folder).variables), strict=True
    ):
        before, after = np.asarray(before), np.asarray(after)
        assert after.dtype == np.float32
        # bfloat16 keeps 8 bits: half of the last one is 2^-9.
        np.testing.assert_allclose(after, before, rtol=2**-8, atol=1e-30)
        np.testing.assert_array_equal(after.view(np.uint32) & 0xFFFF, 0)

    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(folder) < 0.6 * size(trained)
    assert not [
        p for p in folder.rglob("*") if p.is_file() and str(tmp_path).encode() in p.read_bytes()
    ]
    with pytest.raises(SatError, match="is no SAT_XS_2s"):
        bundle(trained, "SAT_XS_2s")


@pytest.mark.parametrize("name", ["", ".", "..", "../data", "no such model", "/etc"])
def test_only_names_of_bundled_models_have_a_folder(name):
    assert bundled_folder(name) is None


@pytest.mark.parametrize(
    ("module", "arguments", "code", "words"),
    [
        ("pkg_audio", [], 2, "--tfds_dir is needed"),
        ("pkg_audio", ["--tfds_dir=d", "--workdir=w", "--seeds=x"], 2, "--seeds=x are no numbers"),
        ("pkg_audio", ["--tfds_dir=d", "--workdir=w"], 1, "run python -m data_pipeline.pkg_audio"),
        ("choose_class", ["-m", "x"], 2, "--clips is needed"),
        ("choose_class", ["-m", "x", "--clips=c", "--output=o"], 1, "x is no file"),
        ("esc10", ["--workdir=w"], 2, "--clips is needed"),
        ("esc10", ["--clips=c", "--workdir=w", "x"], 2, "x is no flag"),
        ("esc10", ["--clips=no.csv", "--workdir=w"], 1, "no.csv"),
    ],
)
def test_commands_say_in_one_line_what_is_wrong(module, arguments, code, words):
    command = [sys.executable, "-m", f"recipes.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr


def test_every_stage_asks_for_fields_that_its_config_has():
    from configs import sat, vit
    from recipes.pkg_audio import COMMON, SAT, SOUNDS, STREAMING, VIT

    stages = [(vit.get_config("xs"), SOUNDS), (vit.get_config("xs"), VIT)]
    stages += [(sat.get_config(name), SAT) for name in STREAMING]
    for config, flags in stages:
        asked = [flag.removeprefix("--config.").split("=")[0] for flag in (*flags, *COMMON)]
        for field in asked:
            *path, last = field.split(".")
            place = config
            for name in path:
                place = place[name]
            assert last in place or field == "--config", field


@pytest.mark.slow
def test_no_fold_is_learned_from_before_it_is_measured(checkpoint, tmp_path):
    rng = np.random.default_rng(0)
    rows = ["file,fold,class,audioset_names"]
    for fold in "123":
        for name, audioset in (("hum", "Hum;Mains hum"), ("hiss", "Hiss")):
            samples = (
                rng.normal(0, 0.1, 16_000) if name == "hiss" else np.sin(np.arange(16_000) / 9)
            )
            soundfile.write(tmp_path / f"{name}{fold}.wav", 0.3 * samples, 16_000)
            rows.append(f"{name}{fold}.wav,{fold},{name},{audioset}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    model, _ = checkpoint
    command = [sys.executable, "-m", "recipes.esc10", "-m", model, f"--clips={tmp_path}/table.csv"]
    command += [f"--workdir={tmp_path}/work", "--", "--config.num_steps=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "work/results.json").read_text())
    for kind in ("zero_shot", "fine_tuned"):
        by_fold = result[kind]["by_fold"]
        assert list(by_fold) == ["1", "2", "3"] and set(by_fold.values()) <= {0.0, 0.5, 1.0}
        assert result[kind]["accuracy"] == pytest.approx(np.mean(list(by_fold.values())))
    for fold, others in (("1", "2,3"), ("2", "1,3"), ("3", "1,2")):
        run = tmp_path / "work" / f"fold{fold}"
        assert f"--where=fold={others} --workdir={run} " in done.stdout
        assert f"--where=fold={fold} --output={run / 'chosen.json'}" in done.stdout
        assert load_checkpoint(run / "model").labels == ("hiss", "hum")
