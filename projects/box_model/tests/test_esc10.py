"""The folds of ESC-10 by the documented command, on a few clips, where they are at hand."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.metrics

from data_pipeline.sources.registry import open_source
from sat_jax.config import ModelConfig
from sat_jax.models.transformer import init_variables
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).parents[3]
ESC10 = ROOT.parent / "shared" / "data" / "esc10"
SOURCE = {"columns": "file,audioset_names", "folder": str(ESC10)}
pytestmark = pytest.mark.skipif(not ESC10.is_dir(), reason="ESC-10 is not at hand")


@pytest.fixture
def rows(tmp_path):
    """Two clips of each fold, in table.csv; the clips stay where they are."""
    with open(ESC10 / "esc10.csv", newline="", encoding="utf-8") as file:
        every = list(csv.DictReader(file))
    few = [row for fold in "1234" for row in [r for r in every if r["fold"] == fold][::25][:2]]
    with open(tmp_path / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, few[0])
        writer.writeheader()
        writer.writerows(few)
    return few


def test_one_fold_is_scored_by_the_documented_command(rows, tmp_path):
    labels = tuple(sorted({name for row in rows for name in row["audioset_names"].split(";")}))
    config = ModelConfig(width=64, depth=1, target_length=192, num_classes=len(labels))
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    checkpoint = Checkpoint(config=config, variables=variables, labels=labels)
    save_checkpoint(tmp_path / "model", checkpoint)
    flags = [f"--{name}={value}" for name, value in SOURCE.items()]
    flags += ["--clips=table.csv", "--where=fold=4", "--workdir=results", "--noplots", "--nocost"]
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "evaluate.py", "-m", "model", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
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


def test_folds_to_learn_from_and_to_measure_on_are_apart(rows, tmp_path):
    clips = {
        folds: open_source((), clips=str(tmp_path / "table.csv"), where=f"fold={folds}", **SOURCE)
        for folds in ("1,2,3", "4")
    }
    learned, measured = (set(source.clips.ids) for source in clips.values())
    assert (len(learned), len(measured), learned & measured) == (6, 2, set())
    for source in clips.values():
        assert len(source.read(0, num_samples=16_000)) == 16_000
