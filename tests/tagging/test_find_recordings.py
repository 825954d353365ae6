"""Which recordings files, folders and patterns stand for."""

import os
import random
from pathlib import Path

import pytest

from sat_jax.audio.suffixes import is_audio_name
from sat_jax.tagging.find_recordings import find_recordings

FILES = (
    "b.wav",
    "a.FLAC",
    "notes.txt",
    ".hidden.wav",
    "._a.wav",
    "new\nline.mp3",
    "in/c.ogg",
    "in/deep/d.wav",
    "in/.trash/e.wav",
    "other/f.wav",
    "other/g.dat",
    "z[1].wav",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        path = Path("day", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return "day"


def find(*arguments, recursive=False):
    """Returns (name, place) of each recording, and the errors."""
    errors = []
    found, failed = find_recordings(arguments, recursive=recursive, report=errors.append)
    assert failed == len(errors)
    return [(each.name, each.place) for each in found], [str(error) for error in errors]


def in_day(*places):
    return [(f"day/{place}", place) for place in places]


TOP = ("a.FLAC", "b.wav", "new\nline.mp3", "z[1].wav")


def test_a_folder_stands_for_its_audio_files_by_name(folder):
    assert find(folder) == (in_day(*TOP), [])
    assert find("day/") == (in_day(*TOP), [])


def test_recursive(folder):
    want = in_day(*TOP, "in/c.ogg", "in/deep/d.wav", "other/f.wav")
    assert find(folder, recursive=True) == (want, [])


def test_names_come_in_the_order_of_the_arguments_and_once(folder):
    found, _ = find("day/other/g.dat", "day/b.wav", folder, "-", "day/b.wav")
    assert found == [
        ("day/other/g.dat", "g.dat"),
        *in_day("b.wav", "a.FLAC", "new\nline.mp3", "z[1].wav"),
        ("-", "stdin"),
    ]


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        ("day/*.wav", ["b.wav", "z[1].wav"]),
        ("day/**/*.wav", ["b.wav", "in/deep/d.wav", "other/f.wav", "z[1].wav"]),
        ("day/**.wav", ["b.wav", "in/deep/d.wav", "other/f.wav", "z[1].wav"]),
        ("day/***.wav", ["b.wav", "in/deep/d.wav", "other/f.wav", "z[1].wav"]),
        ("day/i**/c**.ogg", ["in/c.ogg"]),
        ("day/oth*/*", ["other/f.wav"]),
        ("day/other/*.dat", ["other/g.dat"]),
        ("day/[ab].*", ["a.FLAC", "b.wav"]),
        ("day/.hid*", [".hidden.wav"]),
        ("day/i?", ["in/c.ogg"]),
        ("day/z[1].wav", ["z[1].wav"]),
    ],
)
def test_patterns(pattern, places, folder):
    found, errors = find(pattern)
    if pattern == "day/oth*/*":  # Mirrored from the first part that is no pattern.
        assert found == [("day/other/f.wav", "other/f.wav")]
    assert ([name for name, _ in found], errors) == ([f"day/{each}" for each in places], [])


def test_any_pattern_is_found_or_reported(folder):
    rng = random.Random(0)
    for _ in range(2_000):
        pattern = "".join(rng.choices("*?[]!-./adiz", k=rng.randint(1, 9)))
        if "**" in pattern and pattern.startswith((".", "/")):
            continue  # All folders of this machine.
        found, errors = find(f"day/{pattern}")
        assert found or errors
        assert all(os.path.lexists(name) for name, _ in found)


def test_all_below_a_pattern(folder):
    found, errors = find("day/**")
    assert (set(found), errors) == (
        set(in_day(*TOP, "in/c.ogg", "in/deep/d.wav", "other/f.wav")),
        [],
    )


LONG = 300 * "a"


@pytest.mark.parametrize(
    "argument", ["nothing.wav", "day/x*.wav", "empty", "outer", LONG, f"{LONG}/", f"{LONG}/*.wav"]
)
def test_what_stands_for_nothing_is_reported_and_the_rest_found(argument, folder):
    Path("empty").mkdir()
    Path("outer/inner").mkdir(parents=True)
    Path("outer/inner/a.wav").touch()
    found, errors = find(argument, "day/b.wav")
    assert found == [("day/b.wav", "b.wav")]
    assert len(errors) == 1 and errors[0].startswith(f"{argument}: ")
    assert ("--recursive" in errors[0]) == (argument in ("empty", "outer"))


def test_links_that_lead_round_in_a_circle_end(folder):
    for name in ("day/in/up", "day/again"):
        os.symlink(os.path.abspath("day"), name)
    os.symlink("self.wav", "day/self.wav")
    want = in_day("a.FLAC", "b.wav", "new\nline.mp3", "self.wav", "z[1].wav")
    want += in_day("in/c.ogg", "in/deep/d.wav", "other/f.wav")
    assert find(folder, recursive=True) == (want, [])
    assert set(find("day/**/*.ogg")[0]) == set(in_day("in/c.ogg"))


def test_links_to_folders_are_followed_once(folder):
    os.symlink(os.path.abspath("day/other"), "day/in/card")
    found, errors = find("day/in", recursive=True)
    assert (found, errors) == (
        [
            ("day/in/c.ogg", "c.ogg"),
            ("day/in/card/f.wav", "card/f.wav"),
            ("day/in/deep/d.wav", "deep/d.wav"),
        ],
        [],
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_in_a_folder_is_not_opened(folder):
    os.mkfifo("day/pipe.wav")
    assert find(folder) == (in_day(*TOP), [])
    assert find("day/pipe.wav") == ([("day/pipe.wav", "pipe.wav")], [])


def test_a_folder_that_cannot_be_read_is_reported(folder, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if path == "day/in":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, errors = find(folder, recursive=True)
    assert found == in_day(*TOP, "other/f.wav")
    assert errors == ["day/in: cannot be read: Permission denied"]


def test_names_that_are_no_utf_8(folder):
    name = os.fsencode(folder) + b"/\xff\xfe.wav"
    try:
        Path(os.fsdecode(name)).touch()
    except OSError:
        pytest.skip("this file system allows UTF-8 only")
    found, _ = find(folder)
    assert os.fsencode(found[-1][0]) == name


@pytest.mark.parametrize("name", ["a.wav", "A.WAV", "b.c.m4a", "film.MOV", "x.opus", "r.w64"])
def test_audio_names(name):
    assert is_audio_name(name)


@pytest.mark.parametrize("name", ["a.txt", "wav", ".wav", "a.wav.csv", "a.npz", "b.raw", "c.ts"])
def test_other_names(name):
    assert not is_audio_name(name)
