"""The recipe on real recordings: what is asked for, what it starts from, what it tells."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile

from recipes.first_models import save_first_models
from recipes.stage_log import StageLog
from recipes.summary import first_clip_of, write_summary
from sat_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.warm_start import fresh_variables


def run(*arguments):
    command = [sys.executable, "-m", "recipes.real_audio", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    wrong = run(f"--data={tmp_path}")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert wrong.stderr.startswith("real_audio: --workdir is needed;")
    failed = run(f"--data={tmp_path}", f"--workdir={tmp_path / 'run'}")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "train.csv is missing: run python -m data_pipeline.packages --output" in failed.stderr


@pytest.mark.slow
def test_the_course_runs_through_once_for_the_same_recordings(tmp_path):
    data, rng = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    for split in ("train", "held_out"):
        rows = [(f"{split}{i}.wav", label) for i, label in enumerate(("Speech", "Cymbal"))]
        for file, _ in rows:
            soundfile.write(data / file, 0.1 * rng.normal(size=16_000), 16_000)
        table = "".join(f"{file},{label}\n" for file, label in rows)
        (data / f"{split}.csv").write_text(f"file,labels\n{table}")
    few = ("--", "--config.num_steps=2", "--config.data.batch_size=2")
    course = (f"--data={data}", f"--workdir={tmp_path / 'run'}", *few)
    done = run(*course)
    assert done.returncode == 0, done.stderr
    for row in ("| mae | 2 | ", "| psl |  | ", "| vit_as_sat | 2 | 2 | "):
        assert row in done.stdout
    again = run(*course)
    assert again.stdout.count("$ python") == again.stdout.count("$ python infer.py") == 2
    (data / "train1.wav").unlink()
    other = run(*course)
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "mae/model was made with the clips" in other.stderr


def test_first_models_are_random_and_the_clip_model_in_parts(tmp_path, monkeypatch):
    streaming = ModelConfig(width=64, depth=1, num_classes=3, target_length=32, cache_length=32)
    clip = ModelConfig(width=64, depth=1, num_classes=3, target_length=64)
    monkeypatch.setattr("recipes.first_models.model_config", {"small": streaming}.__getitem__)
    variables = fresh_variables(clip, jax.random.key(7))
    save_checkpoint(
        tmp_path / "clip",
        Checkpoint(config=clip, variables=variables, labels=("a", "b", "c"), source="test"),
    )
    save_first_models("small", tmp_path / "clip", tmp_path / "start")
    warm, random = (load_checkpoint(tmp_path / "start" / name) for name in ("warm", "random"))
    assert warm.config == random.config == streaming
    kernel = np.asarray(variables["params"]["head"]["kernel"])
    np.testing.assert_array_equal(warm.variables["params"]["head"]["kernel"], kernel)
    assert np.abs(random.variables["params"]["head"]["kernel"] - kernel).max() > 0


def test_summary_tells_losses_times_and_measures(tmp_path):
    for name in ("mae", "vit", "sat"):
        (tmp_path / name).mkdir()
        losses = [{"step": n, "loss": float(30 - n)} for n in range(1, 30)]
        lines = [*losses, {"step": 29, "validation": {"mAP": 0.5}}]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for _ in range(2):  # a stage that was stopped and went on
        log = StageLog(tmp_path)
        log.begin("sat", tmp_path / "sat" / "model", ["train.py"])
        log.end(tmp_path / "sat" / "model", wall=60.0, cpu=100.0)
    told = {"clips_scored": 76, "classes": 527, "classes_without_positives": 511}
    told |= {"mAP": 0.25, "mAUC": 0.75, "lwlrap": 0.5}
    (tmp_path / "measured" / "sat").mkdir(parents=True)
    (tmp_path / "measured" / "sat" / "metrics.json").write_text(json.dumps([told]))
    text = write_summary(tmp_path)
    assert (tmp_path / "results.md").read_text() == text + "\n"
    # Means of 29 to 20 and of 10 to 1.
    assert "| sat | 29 | 24.5000 | 5.5000 | 120 | 200 |" in text
    assert "| sat | 76 | 16 | 0.250 | 0.750 | 0.500 |" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["held_out"] == {"sat": told}


def test_first_clip_of_a_class(tmp_path):
    table = tmp_path / "held_out.csv"
    table.write_text("file,labels\na.wav,Bark;Dog\nb.wav,Dog\nc.wav,Dog\n")
    assert first_clip_of(table, "Dog") == tmp_path / "b.wav"
    with pytest.raises(SatError, match="has no clip of 'Cat': make it anew"):
        first_clip_of(table, "Cat")
