"""Many files in one call: the answers of each file alone, in order, whatever fails."""

import itertools

import jax
import numpy as np
import pytest
import soundfile

from sat_jax import SatError, Tagger
from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.runtime.program_store import ProgramStore
from sat_jax.weights.checkpoint import Checkpoint

TINY = ModelConfig(width=64, depth=1, num_classes=5, target_length=32, cache_length=32)


@pytest.fixture(scope="module")
def checkpoint():
    variables = jax.jit(init_variables, static_argnums=0)(TINY, jax.random.key(0))
    return Checkpoint(config=TINY, variables=variables, labels=default_label_names(5))


@pytest.fixture
def files(tmp_path):
    """Files of several lengths; the second is missing, the third damaged."""
    paths = []
    for seed, seconds in enumerate((1.2, 0.5, 2.0, 0.2, 0.9)):
        paths.append(tmp_path / f"{seed}.flac")
        noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000))
        soundfile.write(paths[-1], noise, 16_000)
    paths[1].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:40_000])
    return paths


def tag_alone(tagger, path, **options):
    chunks = []
    try:
        for chunk in tagger.tag_file(path, **options):
            chunks.append(chunk)
    except SatError as error:
        return chunks, str(error)
    return chunks, None


@pytest.mark.parametrize("options", [{}, {"warmup": "none"}, {"mode": "clip"}])
@pytest.mark.parametrize("jobs", [1, 3])
def test_each_file_gets_the_answers_that_it_gets_alone(jobs, options, checkpoint, files):
    want = [tag_alone(Tagger(checkpoint), path, **options) for path in files]
    have = list(Tagger(checkpoint).tag_files(files, jobs=jobs, **options))
    assert [result.path for result in have] == files
    assert [result.error and str(result.error) for result in have] == [error for _, error in want]
    assert [result.error is None for result in have] == [True, False, False, True, True]
    assert bool(have[2].chunks) == (options.get("mode") != "clip")  # The part before the damage.
    for result, (chunks, _) in zip(have, want, strict=True):
        assert [chunk.end for chunk in result.chunks] == [chunk.end for chunk in chunks]
        for one, other in zip(result.chunks, chunks, strict=True):
            np.testing.assert_array_equal(one.probs, other.probs)


def test_threads_make_each_stored_program_once(checkpoint, files, tmp_path, monkeypatch):
    made = []
    compile_ = ProgramStore._compile
    monkeypatch.setattr(
        ProgramStore, "_compile", lambda *args: made.append(args[2]) or compile_(*args)
    )
    tagger = Tagger(checkpoint)
    tagger.programs = ProgramStore(tmp_path / "programs")  # An empty one.
    assert len(list(tagger.tag_files(files * 2, jobs=4))) == 10
    names = [function.__name__ for function in made]
    assert sorted(names) == sorted(set(names)) and "step" in names


def test_the_warm_up_runs_once(checkpoint, files, monkeypatch):
    tagger, calls = Tagger(checkpoint), []
    init = tagger.init
    monkeypatch.setattr(tagger, "init", lambda *args: calls.append(args) or init(*args))
    first, second = (tag_alone(tagger, files[0])[0] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.probs, other.probs)
    assert calls == [(1, "silence")]
    tag_alone(tagger, files[0], warmup="none")
    assert calls == [(1, "silence"), (1, "none")]


def test_files_may_be_endless(checkpoint, files):
    results = Tagger(checkpoint).tag_files(itertools.repeat(files[0]), jobs=2)
    assert [next(results).path for _ in range(5)] == [files[0]] * 5
    results.close()


@pytest.mark.parametrize(
    "options", [{"jobs": 0}, {"jobs": 1.5}, {"mode": "live"}, {"warmup": "x"}, {"aggregation": 1}]
)
def test_wrong_arguments(options, checkpoint, files):
    with pytest.raises(SatError):
        Tagger(checkpoint).tag_files(files, **options)


def test_a_single_path_is_no_list_of_paths(checkpoint, files):
    for path in (files[0], str(files[0])):
        with pytest.raises(SatError, match="is one path: give a list of paths"):
            Tagger(checkpoint).tag_files(path)
