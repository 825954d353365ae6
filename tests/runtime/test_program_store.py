"""Compiled programs on disk, beside those in JAX's own cache."""

import dataclasses
import errno
import functools
import os

import jax
import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.runtime import program_store
from sat_jax.runtime.files import cache_dir
from sat_jax.runtime.program_store import (
    ProgramStore,
    cache_compiled_programs,
    default_store,
    open_store,
)


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


# --- who may write programs


@pytest.fixture
def kept(tmp_path):
    """A store's folder with one program in it."""
    folder = tmp_path / "programs"
    ProgramStore(folder).run(Multiplier.apply, (Multiplier(2),), np.ones(3, np.float32))
    return folder


def compiles(folder, monkeypatch):
    """Returns whether a new store of a folder compiles instead of loading, and its warnings."""
    compiled, warned = [], []
    monkeypatch.setattr(program_store, "_stores", {})
    original = ProgramStore._compile

    def compile_and_note(self, *args):
        compiled.append(1)
        return original(self, *args)

    monkeypatch.setattr(ProgramStore, "_compile", compile_and_note)
    for _ in range(2):
        store = open_store(folder, warned.append)
        result = store.run(Multiplier.apply, (Multiplier(2),), np.ones(3, np.float32))
        np.testing.assert_array_equal(result, [2, 2, 2])
    return bool(compiled), warned


needs_modes = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no modes here")


@needs_modes
def test_only_the_user_may_write_programs(kept, monkeypatch):
    assert kept.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in kept.iterdir()] == [0o600]
    assert compiles(kept, monkeypatch) == (False, [])


@needs_modes
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720])
def test_a_folder_that_others_may_write_is_not_used(mode, kept, monkeypatch):
    kept.chmod(mode)
    before = {path: path.read_bytes() for path in kept.iterdir()}
    compiled, warned = compiles(kept, monkeypatch)
    assert compiled and len(warned) == 1 and str(kept) in warned[0] and "\n" not in warned[0]
    assert {path: path.read_bytes() for path in kept.iterdir()} == before


@needs_modes
def test_a_program_that_others_may_write_is_not_loaded(kept, monkeypatch):
    for path in kept.iterdir():
        path.chmod(0o620)
    assert compiles(kept, monkeypatch) == (True, [])
    assert [path.stat().st_mode & 0o777 for path in kept.iterdir()] == [0o600]


@needs_modes
def test_a_folder_of_another_user_is_not_used(kept, monkeypatch):
    own = kept.stat().st_uid
    if os.geteuid() == 0:
        os.chown(kept, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    compiled, warned = compiles(kept, monkeypatch)
    assert compiled and len(warned) == 1 and str(kept) in warned[0]


@needs_modes
def test_a_folder_of_the_administrator_is_used(kept, monkeypatch):
    """As in a container whose image has the programs, run by a user without a name."""
    if os.geteuid():
        pytest.skip("only the administrator can make such a folder")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert compiles(kept, monkeypatch) == (False, [])


# --- no place for programs


def test_without_a_home_folder_programs_stay_in_memory(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "SAT_JAX_CACHE", "SAT_JAX_KEEP_PROGRAMS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # As for a user without a name.
    monkeypatch.chdir(tmp_path)
    x = np.arange(8, dtype=np.float32)
    default_store().run(padded_sines, (), x, times=5)
    cache_compiled_programs()
    assert not list(tmp_path.iterdir())
    with pytest.raises(SatError, match="SAT_JAX_CACHE"):
        cache_dir()


def test_a_full_disk_keeps_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    x = np.arange(8, dtype=np.float32)
    want = padded_sines(x, times=6)
    np.testing.assert_array_equal(ProgramStore(tmp_path).run(padded_sines, (), x, times=6), want)
    assert not list(tmp_path.iterdir())
