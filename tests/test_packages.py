"""Recordings out of Debian packages: what is unpacked, how clips are split, what is refused."""

import io
import itertools
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict

import pytest

from data_pipeline.debian import fetch_package
from data_pipeline.packages import (
    HELD_OUT,
    TRAIN,
    PackageClip,
    read_facts,
    split,
    write_tables,
)
from data_pipeline.sources.clips import read_clips
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names

FILES = {
    "usr/share/toy/bark.wav": b"woof",
    "usr/share/toy/moo.wav": b"moo",
    "usr/bin/toy": b"no sound",
}

# What the program needs of apt-get: the package as a file in the current folder, or an error.
APT_GET = """#!{python}
import pathlib, shutil, sys
action, package = sys.argv[1:]
assert action == "download"
with open({calls!r}, "a") as calls:
    calls.write(package + "\\n")
found = pathlib.Path({shelf!r}, package + ".deb")
if not found.exists():
    print("W: something else", file=sys.stderr)
    sys.exit("E: Unable to locate package " + package)
shutil.copy(found, package + "_1.0_all.deb")
"""

# Where the tests run without Debian's own: the data.tar inside the archive.
DPKG_DEB = """#!{python}
import sys
option, path = sys.argv[1:]
assert option == "--fsys-tarfile"
data = open(path, "rb").read()
if not data.startswith(b"!<arch>\\n"):
    sys.exit("dpkg-deb: error: not a Debian format archive")
at = 8
while at < len(data):
    size = int(data[at + 48 : at + 58])
    if data[at : at + 16].strip(b" /") == b"data.tar":
        sys.stdout.buffer.write(data[at + 60 : at + 60 + size])
    at += 60 + size + size % 2
"""


def tar_bytes(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def make_deb(path, files):
    """A package as deb(5) describes it: an ar archive of a version and two tars."""
    control = (
        b"Package: toy\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@y.z>\nDescription: x\n"
    )
    members = {
        b"debian-binary": b"2.0\n",
        b"control.tar": tar_bytes({"control": control}),
        b"data.tar": tar_bytes(files),
    }
    out = b"!<arch>\n"
    for name, content in members.items():
        out += b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, len(content))
        out += content + b"\n" * (len(content) % 2)
    path.write_bytes(out)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of packages that apt-get finds, and nothing else on the search path."""
    shelf, programs = tmp_path / "shelf", tmp_path / "programs"
    shelf.mkdir()
    programs.mkdir()
    words = {"python": sys.executable, "shelf": str(shelf), "calls": str(tmp_path / "calls")}
    write_program(programs / "apt-get", APT_GET.format(**words))
    if real := shutil.which("dpkg-deb"):
        (programs / "dpkg-deb").symlink_to(real)
    else:
        write_program(programs / "dpkg-deb", DPKG_DEB.format(**words))
    monkeypatch.setenv("PATH", str(programs))
    make_deb(shelf / "toy.deb", FILES)
    return shelf


def write_program(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def clip(number, label="Bark", group=None, package="toy"):
    return PackageClip(
        package, f"usr/{label}{number}.wav", label, group or f"{label}{number}", "MIT"
    )


def test_named_files_are_unpacked_and_no_others(shelf, tmp_path):
    wanted = ["usr/share/toy/bark.wav", "usr/share/toy/not_in_this_version.wav"]
    fetch_package("toy", wanted, tmp_path)
    found = [path for path in (tmp_path / "toy/usr").rglob("*") if path.is_file()]
    assert found == [tmp_path / "toy/usr/share/toy/bark.wav"]
    assert found[0].read_bytes() == b"woof"
    assert not list(tmp_path.glob(".new-*"))


def test_stub_of_dpkg_deb_gives_the_same_tar(shelf, tmp_path):
    stub = tmp_path / "stub"
    write_program(stub, DPKG_DEB.format(python=sys.executable))
    command = [stub, "--fsys-tarfile", shelf / "toy.deb"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == tar_bytes(FILES)


def test_package_that_is_there_is_not_fetched_again(shelf, tmp_path):
    for _ in range(2):
        fetch_package("toy", list(FILES), tmp_path)
    assert (tmp_path / "calls").read_text() == "toy\n"


def test_package_of_which_other_files_are_wanted_is_fetched_again(shelf, tmp_path):
    bark, moo = "usr/share/toy/bark.wav", "usr/share/toy/moo.wav"
    fetch_package("toy", [bark], tmp_path)
    fetch_package("toy", [moo, bark], tmp_path)
    assert (tmp_path / "toy" / moo).is_file() and (tmp_path / "toy" / bark).is_file()
    fetch_package("toy", [moo], tmp_path)
    assert not (tmp_path / "toy" / bark).exists()


def test_broken_package_leaves_nothing_and_a_later_run_mends_it(shelf, tmp_path):
    whole = (shelf / "toy.deb").read_bytes()
    (shelf / "toy.deb").write_bytes(b"half a download")
    with pytest.raises(
        SatError, match=r"toy_1\.0_all\.deb can't be unpacked \(.+\): run this again"
    ):
        fetch_package("toy", list(FILES), tmp_path)
    assert not (tmp_path / "toy").exists()
    (shelf / "toy.deb").write_bytes(whole)
    fetch_package("toy", list(FILES), tmp_path)
    assert (tmp_path / "toy/usr/share/toy/moo.wav").read_bytes() == b"moo"


def test_unknown_package_gets_one_line_with_the_reason(shelf, tmp_path):
    with pytest.raises(SatError) as caught:
        fetch_package("unheard", [], tmp_path)
    assert str(caught.value) == (
        "package unheard can't be had (E: Unable to locate package unheard): try 'apt-get update' "
        "before, or another mirror"
    )


@pytest.mark.parametrize("program", ["apt-get", "dpkg-deb"])
def test_missing_programs_are_named(shelf, tmp_path, program):
    (tmp_path / "programs" / program).unlink()
    with pytest.raises(SatError, match=f"^{program} is missing, and toy is a Debian package: use"):
        fetch_package("toy", [], tmp_path)


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "data_pipeline.packages", *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": str(tmp_path)},
        )

    wrong, failed = run(), run(f"--output={tmp_path / 'out'}")
    assert (wrong.returncode, failed.returncode) == (2, 1)
    assert wrong.stderr.startswith("data_pipeline.packages: --output is needed;")
    assert failed.stderr.startswith(
        "data_pipeline.packages: apt-get is missing, and bucklespring-data is a"
    )
    assert wrong.stderr.count("\n") == failed.stderr.count("\n") == 1


def test_groups_stay_together_and_a_quarter_of_each_class_is_held_out():
    train, held_out = split(read_facts())
    assert sorted(train + held_out) == sorted(read_facts())
    assert not {c.group for c in train} & {c.group for c in held_out}
    assert not {c.file for c in train} & {c.file for c in held_out}
    groups = defaultdict(set)
    for each in read_facts():
        groups[each.labels].add(each.group)
    total, held = (Counter(c.labels for c in clips) for clips in (read_facts(), held_out))
    for label, names in groups.items():
        assert held[label] <= -(-total[label] // 4)
        assert (held[label] >= total[label] / 8) if len(names) >= 3 else (held[label] == 0), label


def test_split_depends_on_neither_order_nor_other_classes():
    bark = [clip(number) for number in range(12)]
    others = [clip(number, "Moo") for number in range(5)]
    alone = set(split(bark)[1])
    assert len(alone) == 3
    assert set(split(bark[::-1] + others)[1]) & set(bark) == alone


def test_group_larger_than_what_is_to_be_held_out_is_learned_from():
    large = [clip(number, group="one drum") for number in range(9)]
    small = [clip(number) for number in range(9, 12)]
    assert all(c.group != "one drum" for c in split(large + small)[1])
    assert len(split(large + small)[1]) == 3


def test_facts_name_clips_once_and_classes_that_there_are():
    facts = read_facts()
    assert len({c.file for c in facts}) == len(facts) > 300
    assert {c.labels for c in facts} <= set(default_label_names(527))
    assert all(c.path.startswith("usr/share/") and c.group and c.licence for c in facts)


def test_tables_are_read_as_clips_and_leave_out_what_is_missing(tmp_path):
    clips = [clip(number) for number in range(8)]
    for each in clips[:-1]:
        (tmp_path / each.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each.file).touch()
    counts = write_tables(clips, tmp_path)
    assert sum(counts.values()) == 8
    assert counts[""] == 1
    names = default_label_names(527)
    tables = [read_clips(tmp_path / name, names) for name in (TRAIN, HELD_OUT)]
    assert [len(table) for table in tables] == [counts[TRAIN], counts[HELD_OUT]]
    assert {c.id for c in itertools.chain(*tables)} == {c.file for c in clips[:-1]}


def test_package_without_any_of_its_clips_is_told(tmp_path):
    with pytest.raises(
        SatError, match=r"has no clip for train\.csv: remove it, and run this again"
    ):
        write_tables([clip(number) for number in range(8)], tmp_path)
