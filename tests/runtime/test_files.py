"""Files that are written completely or not at all, and checks before they are written."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from sat_jax.errors import SatError
from sat_jax.runtime.files import (
    atomic_write,
    cache_dir,
    check_writable_file,
    check_writable_folder,
    explain_write_errors,
    locked_folder,
    open_output,
    refuse_overwriting,
)

ROOT = Path(__file__).parents[2]


def test_cache_dir(monkeypatch):
    monkeypatch.setenv("SAT_JAX_CACHE", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.delenv("SAT_JAX_CACHE")
    assert cache_dir() == Path(platformdirs.user_cache_dir("sat_jax"))


def test_output_replaces_only_at_success(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(ZeroDivisionError), open_output(path) as stream:
        stream.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with open_output(path) as stream:
        stream.write("día \udcff\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == "día \\udcff\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["tags.txt"]


def test_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "new") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_output_follows_links_and_takes_long_names(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    for name in ("link", "n" * 255):
        with open_output(tmp_path / name) as stream:
            stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == (tmp_path / ("n" * 255)).read_text() == "new"


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "such" / "tags.txt", tmp_path / "file" / "tags.txt", tmp_path):
        with pytest.raises(SatError, match=re.escape(str(path))), open_output(path):
            pass


def test_names_over_255_bytes_are_refused_before_the_work(tmp_path):
    path = tmp_path / (300 * "a")
    for write in (open_output, atomic_write):
        with pytest.raises(SatError, match=path.name), write(path):
            pytest.fail("the work began")
    with pytest.raises(SatError, match=path.name):
        check_writable_file(path)
    refuse_overwriting(tmp_path / "b", str(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_devices_are_written_not_replaced():
    with open_output(os.devnull) as stream:
        stream.write("tags")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(SatError, match="/dev/full"), open_output("/dev/full") as stream:
        stream.write("tags")
    with pytest.raises(SatError, match="/dev/full"), atomic_write("/dev/full") as path:
        path.write_text("tags")


@pytest.mark.parametrize("path", [None, "-"])
def test_output_is_standard_output(path, capsys):
    with open_output(path) as stream:
        stream.write("hello\n")
    assert capsys.readouterr().out == "hello\n"


def test_a_locked_folder_belongs_to_one_process(tmp_path):
    folder = tmp_path / "made" / "for it"
    code = "import sys; from pathlib import Path; from sat_jax.runtime.files import locked_folder\n"
    code += "with locked_folder(Path(sys.argv[1])): pass"
    command = [sys.executable, "-c", code, folder]
    with locked_folder(folder):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and f"SatError: {folder} " in done.stderr
    with locked_folder(folder):
        pass


def test_checks_before_writing(tmp_path):
    check_writable_file(tmp_path / "new" / "file")
    check_writable_folder(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["new", "other"] and not os.listdir(tmp_path / "new")
    (tmp_path / "file").write_text("old")
    check_writable_file(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    for check in (check_writable_file, check_writable_folder):
        with pytest.raises(SatError, match=re.escape(str(tmp_path / "file" / "a"))):
            check(tmp_path / "file" / "a")
    with pytest.raises(SatError, match=re.escape(str(tmp_path))):
        check_writable_file(tmp_path)


def test_inputs_are_not_overwritten(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("a", "model/weights"):
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("a")
    model = str(tmp_path / "model")
    for path, source in (
        (tmp_path / "a", str(tmp_path / "a")),
        (tmp_path / "link", str(tmp_path / "a")),
        (tmp_path / "model" / "weights", model),
        (tmp_path / "model", model),
    ):
        with pytest.raises(SatError, match=re.escape(str(path))):
            refuse_overwriting(path, "SAT_T_2s", source)
    refuse_overwriting(tmp_path / "b", "SAT_T_2s", str(tmp_path / "a"))
    refuse_overwriting(tmp_path / "model" / "new", model)


def test_write_errors_name_the_path():
    with pytest.raises(SatError, match="/some/file"), explain_write_errors("/some/file"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(BrokenPipeError), explain_write_errors("/some/file"):
        raise BrokenPipeError
