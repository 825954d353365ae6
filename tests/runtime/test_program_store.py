"""Compiled programs on disk, beside those in JAX's own cache."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from sat_jax.runtime.program_store import ProgramStore


@dataclasses.dataclass(frozen=True)
class Multiplier:
    times: int

    def __repr__(self):
        return "<Multiplier>"

    @functools.partial(jax.jit, static_argnums=0)
    def apply(self, x):
        return self.times * x


@functools.partial(jax.jit, static_argnames="times")
def padded_sines(x, times):
    return jax.numpy.pad(jax.numpy.sin(x) * times, 3) @ jax.numpy.ones(14)


@pytest.fixture
def all_is_cached():
    """JAX keeps even what was compiled in no time."""
    name = "jax_persistent_cache_min_compile_time_secs"
    was = jax.config.values[name]
    jax.config.update(name, 0)
    yield
    jax.config.update(name, was)


def test_a_program_that_jax_had_in_its_cache_is_kept_only_if_it_runs(all_is_cached, tmp_path):
    x = np.arange(8, dtype=np.float32)
    for _ in range(2):  # The second time, it comes out of JAX's cache, and stays in memory.
        jax.clear_caches()
        want = padded_sines(x, times=3)
    assert jax.config.values["jax_compilation_cache_dir"], "else this shows nothing"
    for _ in range(2):
        have = ProgramStore(tmp_path).run(padded_sines, (), x, times=3)
        np.testing.assert_array_equal(have, want)


def test_programs_of_dataclasses_are_told_apart_by_their_fields(tmp_path):
    x = np.arange(8, dtype=np.float32)
    for times in (2, 3):
        have = ProgramStore(tmp_path).run(Multiplier.apply, (Multiplier(times),), x)
        np.testing.assert_array_equal(have, times * x)


def test_a_store_that_may_only_be_read_is_used(tmp_path, monkeypatch):
    """As in a container's image; whoever runs the tests may be root, so the disk is not asked."""
    x = np.arange(8, dtype=np.float32)
    jax.clear_caches()
    want = ProgramStore(tmp_path).run(padded_sines, (), x, times=4)

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    monkeypatch.setattr(ProgramStore, "_compile", refuse)
    np.testing.assert_array_equal(ProgramStore(tmp_path).run(padded_sines, (), x, times=4), want)
