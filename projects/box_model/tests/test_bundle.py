"""Bundling the best model of a course."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from projects.box_model import bundle as bundle_module
from projects.box_model.bundle import bundle, bundle_best
from projects.box_model.class_table import class_results
from projects.box_model.results import write_results
from projects.box_model.tests.made_up_course import write_course
from sat_jax.errors import SatError
from sat_jax.weights.catalog import BUNDLED, DEFAULT_MODEL
from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def work(tmp_path):
    write_course(tmp_path)
    return tmp_path


@pytest.fixture
def box(tmp_path, monkeypatch):
    """Empty folders for the bundled model and the docs."""
    monkeypatch.setattr(bundle_module, "BUNDLED", tmp_path / "box" / "models")
    monkeypatch.setattr(bundle_module, "DOCS", tmp_path / "box" / "docs")
    return tmp_path / "box"


def save_model(folder):
    """Writes the bundled model with weights that are not rounded, and returns them."""
    checkpoint = load_checkpoint(BUNDLED / DEFAULT_MODEL)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: np.float32(x * rng.uniform(1.0, 1.1, x.shape)), checkpoint.variables
    )
    save_checkpoint(folder, dataclasses.replace(checkpoint, variables=variables))
    return variables


def test_the_best_seed_on_validation_scenes_is_bundled(work, box):
    (work / "seed2" / "SAT_XS_2s" / "model").rmdir()
    variables = save_model(work / "seed2" / "SAT_XS_2s" / "model")
    for _ in range(2):  # The second one replaces the first.
        folder = bundle_best(work, "SAT_XS_2s")
    assert folder == box / "models" / "SAT_XS_2s"
    bundled = load_checkpoint(folder).variables
    for before, after in zip(jax.tree.leaves(variables), jax.tree.leaves(bundled), strict=True):
        before, after = np.asarray(before), np.asarray(after)
        assert after.dtype == np.float32
        # bfloat16 keeps 8 bits: half of the last one is 2^-9.
        np.testing.assert_allclose(after, before, rtol=2**-8, atol=1e-30)
        np.testing.assert_array_equal(after.view(np.uint32) & 0xFFFF, 0)
    trained = work / "seed2" / "SAT_XS_2s" / "model"
    assert size(folder) < 0.6 * size(trained)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not any(str(work).encode() in path.read_bytes() for path in files)
    assert (box / "docs" / "results.md").read_text() == write_results(work)
    assert (box / "docs" / "results.png").stat().st_size > 10_000
    by_class = box / "models" / "SAT_XS_2s.results.md"
    assert by_class.read_text() == class_results(work, "SAT_XS_2s")
    names = {path.name for path in box.glob("*/*")}
    assert names == {by_class.name, folder.name, "results.md", "results.png"}


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_another_model_is_refused(tmp_path, box):
    save_model(tmp_path / "run")
    with pytest.raises(SatError, match="SAT_T_2s"):
        bundle(tmp_path / "run", "SAT_T_2s")
    assert not box.exists()


@pytest.mark.parametrize(
    "missing",
    [
        "memory.json",
        "windows/model",
        "SAT_XS_1s/model",
        "no_memory_XS_1s/log.jsonl",
        "measured/SAT_XS_2s/metrics.json",
        "measured/windows/metrics.json",
        "measured/no_memory_XS_1s/metrics.json",
    ],
)
@pytest.mark.parametrize("seed", [2, 10])
def test_nothing_changes_if_a_file_is_missing(work, box, seed, missing):
    path = work / f"seed{seed}" / missing
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(SatError, match=f"seed{seed} .*{missing.split('/')[-2:][0]}"):
        bundle_best(work, "SAT_XS_2s")
    assert not box.exists()


def test_a_folder_without_a_course_is_refused(work, box):
    with pytest.raises(SatError, match="SAT_T_1s"):
        bundle_best(work, "SAT_T_1s")
    with pytest.raises(SatError, match="seed2"):
        write_results(work / "seed2")
    assert not box.exists()


@pytest.mark.parametrize(
    "file", ["memory.json", "measured/windows/metrics.json", "measured/SAT_XS_1s/metrics.json"]
)
def test_nothing_changes_if_a_result_is_missing(work, box, file):
    path = work / "seed10" / file
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    with pytest.raises(SatError, match=f"seed10.*{file}"):
        bundle_best(work, "SAT_XS_2s")
    assert not box.exists()


def test_nothing_changes_if_the_docs_cannot_be_written(work, box):
    (box / "docs" / "results.md").mkdir(parents=True)
    with pytest.raises(SatError, match=r"results\.md"):
        bundle_best(work, "SAT_XS_2s")
    assert not list(box.glob("models/*"))
