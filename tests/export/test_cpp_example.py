"""examples/tag.cpp, compiled: it prints what run.py prints."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from sat_jax.commands import export
from tests.support.programs import run_program

EXAMPLES = Path(__file__).parents[2] / "examples"
SOUNDS = [EXAMPLES / "concert.flac", EXAMPLES / "choir.flac"]
HEADERS = ("nlohmann/json.hpp", "onnxruntime_cxx_api.h", "sndfile.hh")


def build_flags():
    """pkg-config's flags; without them, g++ finds what CPATH and LIBRARY_PATH name."""
    command = ["pkg-config", "--cflags", "--libs", "libonnxruntime", "sndfile"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return ["-lonnxruntime", "-lsndfile"]


@pytest.fixture(scope="module")
def tag(tmp_path_factory):
    """The compiled example."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is missing")
    flags = build_flags()
    for header in HEADERS:
        found = subprocess.run(
            ["g++", "-E", "-x", "c++", "-", *flags],
            input=f"#include <{header}>\n".encode(),
            capture_output=True,
        )
        if found.returncode:
            pytest.skip(f"{header} is missing: see docs/exporting.md")
    program = tmp_path_factory.mktemp("cpp") / "tag"
    strict = ("-std=c++17", "-Wall", "-Wextra", "-Werror")
    command = ["g++", *strict, str(EXAMPLES / "tag.cpp"), *flags, "-o", str(program)]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="module", params=["chunk", "seamless"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "listener"
    flags = (f"--framing={request.param}", "--opset=22", "--nocheck", "--chunk=1.92")
    assert run_program(export.PROGRAM, "export", *flags, str(path)) == 0
    return path


def output(*command, stdin=None):
    command = [str(part) for part in command]
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout.decode()


def assert_same_lines(ours, theirs):
    """Probabilities may differ in the last printed digit."""
    ours, theirs = ours.splitlines(), theirs.splitlines()
    assert len(ours) == len(theirs)
    for line, expected in zip(ours, theirs, strict=True):
        if " Topk-" in expected:
            assert line[:-6] == expected[:-6]
            assert float(line[-6:]) == pytest.approx(float(expected[-6:]), abs=2e-4)
        else:
            assert line == expected


def test_it_prints_what_run_py_prints(tag, folder):
    expected = output(sys.executable, folder / "run.py", *SOUNDS)
    assert expected.count(" Topk-1 ") > 4
    assert_same_lines(output(tag, folder, *SOUNDS), expected)


def test_pcm_and_stereo_and_a_sound_shorter_than_a_chunk(tag, folder, tmp_path):
    samples, rate = soundfile.read(SOUNDS[0], dtype="int16")
    mono, stereo = samples[:20_001], tmp_path / "stereo.wav"
    soundfile.write(stereo, mono.repeat(2).reshape(-1, 2), rate, subtype="PCM_16")
    expected = output(sys.executable, folder / "run.py", "-", stdin=mono.tobytes())
    assert "[0.0s]-[1.25s] Topk-1 " in expected
    assert_same_lines(output(tag, folder, "-", stdin=mono.tobytes()), expected)
    named = expected.replace("===== - =====", f"===== {stereo} =====")
    assert_same_lines(output(tag, folder, stereo), named)
    nothing = output(tag, folder, "-", stdin=b"")
    assert nothing == output(sys.executable, folder / "run.py", "-", stdin=b"") == "===== - =====\n"


def test_mistakes_are_one_line(tag, folder, tmp_path):
    fast = tmp_path / "fast.wav"
    soundfile.write(fast, [0.0] * 10, 48_000)
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, [0.0, float("nan")], 16_000, subtype="FLOAT")
    litert = tmp_path / "litert"
    shutil.copytree(folder, litert)
    about = (litert / "export.json").read_text().replace('"kind": "onnx"', '"kind": "litert"')
    (litert / "export.json").write_text(about)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "state.bin").write_bytes((folder / "state.bin").read_bytes() + b"x")
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "export.json").write_text("{}")
    for arguments, named in (
        ((folder, fast), "48000"),
        ((folder, nan), "NaN"),
        ((folder, "missing.wav"), "missing.wav"),
        ((folder, __file__), __file__),
        ((tmp_path, SOUNDS[0]), str(tmp_path)),
        ((litert, SOUNDS[0]), "--format onnx"),
        ((other, SOUNDS[0]), "another model"),
        ((broken, SOUNDS[0]), "broken/export.json is damaged"),
        ((folder,), "tag listener sound.wav"),
    ):
        done = subprocess.run([tag, *arguments], capture_output=True, text=True)
        [line] = [line for line in done.stderr.splitlines() if line.startswith("tag: ")]
        assert done.returncode == 1 and named in line
