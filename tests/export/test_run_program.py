"""run.py of an exported folder: the same answers, from numpy and the runtime alone."""

import dataclasses
import json
import shutil
import subprocess
import sys
import venv
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from sat_jax import Tagger
from sat_jax.commands import export
from sat_jax.export.runner import run
from sat_jax.weights.catalog import bundled_folder
from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint
from tests.support.programs import run_program

ROOT = Path(__file__).parents[2]
CHOIR = ROOT / "examples" / "choir.flac"
CONCERT = ROOT / "examples" / "concert.flac"


@pytest.fixture(scope="module", params=["chunk", "seamless"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, kind):
    path = tmp_path_factory.mktemp("export") / "listener"
    flags = (f"--framing={kind}", "--precision=float32", "--nocheck", "--chunk=1.92")
    assert run_program(export.PROGRAM, "export", *flags, str(path)) == 0
    return path


@pytest.fixture(scope="module")
def tagger(kind):
    return Tagger.load("SAT_XS_2s", framing=kind, chunk_seconds=1.92)


def program(folder, *arguments, stdin=None):
    """Runs run.py where our package and JAX can't be imported."""
    block = "import sys, runpy; sys.modules.update(dict.fromkeys(['jax', 'sat_jax', 'flax']));"
    code = f"{block} sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(folder / "run.py"), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120)


def test_a_stream_gives_the_chunks_of_the_tagger(folder, tagger):
    """In odd pieces; the last chunk is that of a sound with silence behind it."""
    samples, _ = soundfile.read(CONCERT, dtype="float32")
    stream, found, rng, at = run.Stream(run.Step(folder)), [], np.random.default_rng(0), 0
    while at < len(samples):
        size = int(rng.integers(1, 20_000))
        found += stream.push(samples[at : at + size])
        at += size
    found += stream.finish()
    hop = tagger.framing.hop
    whole = np.concatenate([samples, np.zeros(3 * hop, np.float32)])
    expected = list(tagger.tag(whole))[: -(-len(samples) // hop)]
    assert len(found) == len(expected) > 3
    for (start, end, probs), chunk in zip(found, expected, strict=True):
        assert start == pytest.approx(chunk.start)
        assert end == pytest.approx(min(chunk.end, len(samples) / 16_000))
        np.testing.assert_allclose(probs, chunk.probs, atol=2e-5)
    assert stream.finish() == [] or len(samples) % hop


def test_several_streams_are_rows(folder, kind):
    step, rng = run.Step(folder), np.random.default_rng(1)
    windows = rng.uniform(-0.5, 0.5, (3, step.about["window"])).astype(np.float32)
    probs, state = step(windows, step.new_state(3))
    for row in range(3):
        alone, own = step(windows[row : row + 1], step.new_state())
        np.testing.assert_allclose(alone[0], probs[row], atol=1e-6)
        for name, array in own.items():
            np.testing.assert_allclose(array[0], state[name][row], atol=1e-4)


def test_the_program_prints_what_infer_prints(folder, tagger):
    done = program(folder, "-k", "2", CONCERT, CHOIR)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    first, *_ = tagger.tag_file(CONCERT)
    assert lines[0] == f"===== {CONCERT} =====" and f"===== {CHOIR} =====" in lines
    for line, (rank, tag) in zip(lines[1:3], enumerate(first.tags(2), 1), strict=True):
        begin, prob = line[:-6], float(line[-6:])
        assert begin == f"[0.0s]-[1.92s] Topk-{rank} {tag.label:<30} "
        assert prob == pytest.approx(tag.prob, abs=1e-4)
    assert lines[3] == ""


def test_pcm_from_standard_input(folder):
    pcm = (soundfile.read(CONCERT, dtype="int16")[0]).astype("<i2")
    from_file = program(folder, CONCERT).stdout.split(b"=====\n")[1]
    from_pipe = program(folder, "-", stdin=pcm.tobytes()).stdout.split(b"=====\n")[1]
    assert from_pipe == from_file


def test_wav_files_need_no_library(folder, tmp_path, monkeypatch):
    samples = soundfile.read(CONCERT, dtype="int16")[0][:40_000]
    path = tmp_path / "stereo.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.stack([samples, samples], axis=1).astype("<i2").tobytes())
    monkeypatch.setitem(sys.modules, "soundfile", None)
    expected = samples.astype(np.float32) / 32_768
    np.testing.assert_array_equal(
        np.concatenate(list(run.read_blocks(str(path), 16_000))), expected
    )
    path.write_bytes(path.read_bytes()[: 44 + 4 * 30_000 + 3])  # A cut file.
    found = np.concatenate(list(run.read_blocks(str(path), 16_000)))
    np.testing.assert_array_equal(found, expected[:30_000])
    with pytest.raises(SystemExit, match="pip install soundfile"):
        list(run.read_blocks(str(CHOIR), 16_000))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_agrees_with_soxr(rate):
    """Noise of all frequencies, in blocks of any length."""
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(rate).astype(np.float32)
    blocks = np.split(noise, np.sort(rng.integers(0, rate, 7)))
    ours = np.concatenate(list(run.resample(blocks, rate, 16_000)))
    theirs = soxr.resample(noise, rate, 16_000)
    assert len(ours) == len(theirs) == 16_000
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()


@pytest.mark.parametrize("size", [0, 1, 100])
def test_short_sounds_are_resampled(size):
    blocks = list(run.resample([np.ones(size, np.float32)], 48_000, 16_000))
    assert sum(map(len, blocks)) == size // 3


def test_a_closed_pipe_is_no_error(folder):
    command = [sys.executable, str(folder / "run.py"), str(CONCERT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_missing_files_are_named(folder):
    done = program(folder, "missing.wav")
    assert done.returncode == 1 and done.stderr == b"run.py: missing.wav is not a file\n"


def test_other_files_and_a_missing_runtime_are_named(folder, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("hello")
    done = program(folder, text)
    [line] = done.stderr.decode().splitlines()
    assert done.returncode == 1 and f"{text} cannot be read" in line
    command = [
        sys.executable,
        "-c",
        "import sys, runpy; sys.modules['onnxruntime'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
        str(folder / "run.py"),
        str(CONCERT),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "run.py: onnxruntime is not installed: pip install onnxruntime\n"


@pytest.mark.parametrize(
    ("rate", "samples", "reason"),
    [
        (44_101, [0.0] * 10, "44101 samples a second"),  # Its filters would fill the memory.
        (999, [0.0] * 10, "999 samples a second"),
        (16_000, [0.0, np.nan], "NaN"),
        (44_100, [0.0] * 999 + [np.inf], "NaN or Inf"),
    ],
)
def test_sounds_that_cannot_be_tagged_are_named(folder, tmp_path, rate, samples, reason):
    path = tmp_path / "sound.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    done = program(folder, path)
    [line] = done.stderr.decode().splitlines()
    assert done.returncode == 1 and str(path) in line and reason in line


@pytest.mark.parametrize("flag", ["-k0", "--k=-3", "--threads=0", "--threads=100000"])
def test_wrong_counts_are_refused(folder, flag):
    done = program(folder, CONCERT, flag)
    assert done.returncode == 2 and b"--threads 1 to 256" in done.stderr


def test_mp3_is_read_as_at_once(tmp_path):
    """Its blocks differ by 0.7 if soundfile seeks after each."""
    path = tmp_path / "sound.mp3"
    soundfile.write(path, soundfile.read(CONCERT)[0], 16_000)
    whole, _ = soundfile.read(path, dtype="float32")
    blocks = list(run.read_blocks(str(path), 16_000))
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5)


def test_a_stream_ends_once(folder):
    stream = run.Stream(run.Step(folder))
    stream.push(np.zeros(stream.about["margin"] + 20_000, np.float32))
    assert len(stream.finish()) == 1
    assert not stream.finish()


@pytest.mark.parametrize("file", ["export.json", "model.onnx", "state.bin"])
@pytest.mark.parametrize("change", [lambda content: content[:100], lambda content: content + b"x"])
def test_a_damaged_folder_is_named(folder, tmp_path, file, change):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / file).write_bytes(change((damaged / file).read_bytes()))
    done = program(damaged, CONCERT)
    [line] = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert line.startswith(f"run.py: {damaged} cannot be loaded (")


def test_a_checkpoint_in_bfloat16_is_exported_in_float32(tmp_path):
    checkpoint = load_checkpoint(bundled_folder("SAT_XS_2s"))
    config = dataclasses.replace(checkpoint.config, dtype="bfloat16")
    own, folder = tmp_path / "own_model", tmp_path / "listener"
    save_checkpoint(own, dataclasses.replace(checkpoint, config=config))
    flags = ("--model", str(own), "--precision=float32")
    assert run_program(export.PROGRAM, "export", *flags, str(folder)) == 0
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert about["model"] == "own_model"  # Its path is no one's business.
    assert {each["dtype"] for each in about["state"]} == {"float32", "int32"}


def test_export_json_describes_the_model(folder, tagger, kind):
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in about["labels"]] == list(tagger.labels)
    assert about["labels"][0]["id"] == "/m/09x0r" and 0 < about["labels"][0]["threshold"] < 1
    assert (about["hop"], about["window"]) == (tagger.framing.hop, tagger.framing.window)
    assert (about["sample_rate"], about["framing"]) == (16_000, kind)
    size = sum(4 * int(np.prod(each["shape"])) for each in about["state"])
    assert (folder / "state.bin").stat().st_size == size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "runtime"), [("onnx", "onnxruntime"), ("litert", "ai-edge-litert")]
)
def test_an_environment_with_numpy_and_the_runtime_is_enough(kind, runtime, tmp_path):
    folder, environment = tmp_path / "listener", tmp_path / "environment"
    assert run_program(export.PROGRAM, "export", f"--format={kind}", str(folder)) == 0
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    install = ("-m", "pip", "install", "--quiet", "--no-input", "numpy", runtime)
    subprocess.run([python, *install], check=True)
    sound = tmp_path / "sound.wav"
    samples, rate = soundfile.read(CONCERT, dtype="int16")
    soundfile.write(sound, samples, rate, subtype="PCM_16")
    command = [python, str(folder / "run.py"), "-k", "1", str(sound)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    first, *_ = Tagger.load("SAT_XS_2s").tag_file(CONCERT)
    assert f"[0.0s]-[2.0s] Topk-1 {first.tags(1)[0].label} " in printed
