"""ESC-10: its tables and folds, and a run on a few clips if the data set is there."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.metrics
import soundfile

from data_pipeline.sources.registry import open_source
from projects.box_model.esc10 import PROGRAM, clips_fingerprint
from projects.box_model.esc10_results import read_choice, summarize_folds, write_tables
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.transformer import init_variables
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.support.programs import run_command, run_program

ROOT = Path(__file__).parents[3]
ESC10 = ROOT.parent / "shared" / "data" / "esc10"
SOURCE = {"columns": "file,audioset_names", "folder": str(ESC10)}
needs_clips = pytest.mark.skipif(not ESC10.is_dir(), reason=f"{ESC10} does not exist")


@pytest.fixture
def rows(tmp_path):
    """Writes table.csv with two clips of each fold."""
    with open(ESC10 / "esc10.csv", newline="", encoding="utf-8") as file:
        every = list(csv.DictReader(file))
    few = [row for fold in "1234" for row in [r for r in every if r["fold"] == fold][::25][:2]]
    with open(tmp_path / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, few[0])
        writer.writeheader()
        writer.writerows(few)
    return few


def small_checkpoint(labels):
    config = ModelConfig(width=64, depth=1, target_length=192, num_classes=len(labels))
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    return Checkpoint(config=config, variables=variables, labels=labels)


@needs_clips
def test_evaluate_scores_one_fold(rows, tmp_path):
    labels = tuple(sorted({name for row in rows for name in row["audioset_names"].split(";")}))
    checkpoint = small_checkpoint(labels)
    save_checkpoint(tmp_path / "model", checkpoint)
    flags = [f"--{name}={value}" for name, value in SOURCE.items()]
    flags += [f"--clips={tmp_path}/table.csv", "--where=fold=4", f"--workdir={tmp_path}/results"]
    assert run_command("evaluate", "-m", tmp_path / "model", *flags, "--noplots", "--nocost") == 0
    [result] = json.loads((tmp_path / "results/metrics.json").read_text())
    fold = [row for row in rows if row["fold"] == "4"]
    assert (result["clips_scored"], len(fold)) == (2, 2)
    tagger = Tagger(checkpoint)
    scores = np.stack(
        [
            np.mean([chunk.probs for chunk in tagger.tag_file(ESC10 / row["file"])], axis=0)
            for row in fold
        ]
    )
    truth = np.array(
        [[label in row["audioset_names"].split(";") for label in labels] for row in fold]
    )
    some = truth.any(0)
    assert result["mAP"] == pytest.approx(
        sklearn.metrics.average_precision_score(truth[:, some], scores[:, some])
    )


@needs_clips
def test_training_and_measured_folds_share_no_clip(rows, tmp_path):
    clips = {
        folds: open_source((), clips=str(tmp_path / "table.csv"), where=f"fold={folds}", **SOURCE)
        for folds in ("1,2,3", "4")
    }
    learned, measured = (set(source.clips.ids) for source in clips.values())
    assert (len(learned), len(measured), learned & measured) == (6, 2, set())
    for source in clips.values():
        assert len(source.read(0, num_samples=16_000)) == 16_000


def test_tables_by_fold_and_by_class():
    folds = {
        "1": {"accuracy": 0.75, "by_class": {"dog": 0.5, "rain": 1.0}, "among_first_five": 0.25},
        "2": {"accuracy": 0.25, "by_class": {"dog": 0.0, "rain": 0.5}, "among_first_five": 1.0},
    }
    tuned = {fold: folds["1"] for fold in folds}
    result = summarize_folds(folds, tuned)
    assert result["zero_shot"] == {
        "accuracy": 0.5,
        "by_fold": {"1": 0.75, "2": 0.25},
        "by_class": {"dog": 0.25, "rain": 0.75},
        "among_first_five": 0.625,
    }
    lines = write_tables(result).splitlines()
    assert "| zero-shot | 0.500 | 0.750 | 0.250 |" in lines
    assert "| fine-tuned on the other folds | 0.750 | 0.750 | 0.750 |" in lines
    assert [line for line in lines if line.startswith("| dog")] == [
        "| dog | 0.250 |",
        "| dog | 0.500 |",
    ]
    assert any("0.625 of" in line for line in lines)


@pytest.mark.parametrize("content", ["[]", '{"accuracy": 0.5, "by_class": {}}', "{"])
def test_damaged_choices_are_named(tmp_path, content):
    (tmp_path / "zero_shot1.json").write_text(content)
    with pytest.raises(SatError, match=r"zero_shot1\.json"):
        read_choice(tmp_path / "zero_shot1.json")


def test_the_fingerprint_covers_the_table_and_the_sizes_of_recordings(tmp_path):
    table, sound = tmp_path / "table.csv", tmp_path / "a.wav"
    sound.write_bytes(b"long")
    table.write_text("file,class\na.wav,hum\ngone.wav,hum\n")
    first, again = clips_fingerprint(table), clips_fingerprint(table)
    sound.write_bytes(b"longer")
    longer = clips_fingerprint(table)
    table.write_text(table.read_text().replace("hum", "hiss"))
    assert first == again and len({first, longer, clips_fingerprint(table)}) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--workdir=w"], 2, "--clips"),
        (["--clips=c", "--workdir=w", "x"], 2, "x"),
        (["--clips=no.csv", "--workdir=w"], 1, "no.csv"),
    ],
)
def test_wrong_arguments(arguments, code, named, capsys):
    assert run_program(PROGRAM, "esc10", *arguments) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("esc10: ") and named in line


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("file,fold,class,audioset_names\na.wav,1,hum,Hum\n", "1 fold"),
        ("file,class,audioset_names\na.wav,hum,Hum\n", "'fold'"),
    ],
)
def test_wrong_tables(content, named, tmp_path, capsys):
    table = tmp_path / "table.csv"
    table.write_text(content)
    assert run_program(PROGRAM, "esc10", f"--clips={table}", f"--workdir={tmp_path}") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(table) in line and named in line


@pytest.mark.slow
def test_no_fold_is_trained_on_before_it_is_measured(tmp_path):
    rng = np.random.default_rng(0)
    save_checkpoint(tmp_path / "start", small_checkpoint(("Hum", "Mains hum", "Hiss")))
    rows = ["file,fold,class,audioset_names"]
    for fold in "123":
        for name, audioset in (("hum", "Hum;Mains hum"), ("hiss", "Hiss")):
            samples = (
                rng.normal(0, 0.1, 16_000) if name == "hiss" else np.sin(np.arange(16_000) / 9)
            )
            soundfile.write(tmp_path / f"{name}{fold}.wav", 0.3 * samples, 16_000)
            rows.append(f"{name}{fold}.wav,{fold},{name},{audioset}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    model = tmp_path / "start"
    command = [
        sys.executable,
        "-m",
        "projects.box_model.esc10",
        "-m",
        model,
        f"--clips={tmp_path}/table.csv",
    ]
    command += [f"--workdir={tmp_path}/work", "--", "--config.num_steps=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "work/results.json").read_text())
    for kind in ("zero_shot", "fine_tuned"):
        by_fold = result[kind]["by_fold"]
        assert list(by_fold) == ["1", "2", "3"] and set(by_fold.values()) <= {0.0, 0.5, 1.0}
        assert result[kind]["accuracy"] == pytest.approx(np.mean(list(by_fold.values())))
    assert (tmp_path / "work/results.md").read_text() in done.stdout
    for fold, others in (("1", "2,3"), ("2", "1,3"), ("3", "1,2")):
        run = tmp_path / "work" / f"fold{fold}"
        assert f"--where=fold={others} --workdir={run} " in done.stdout
        assert f"--where=fold={fold} --output={run / 'chosen.json'}" in done.stdout
        assert load_checkpoint(run / "model").labels == ("hiss", "hum")
