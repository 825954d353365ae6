"""sat-jax tag as its user meets it: published scores, every flag, every kind of bad input."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
from absl.testing import flagsaver

from sat_jax.__main__ import main
from sat_jax.audio import mono
from sat_jax.commands import tag
from sat_jax.config import ModelConfig
from sat_jax.convert import convert_file
from sat_jax.events import Rule, find_events
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.tagging import one_recording
from sat_jax.tagging.formats import FORMATS
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.thresholds_file import save_thresholds

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CLIP = GOLDEN / "clip.wav"
TINY = ModelConfig(width=64, depth=1, num_classes=5, target_length=32, cache_length=32)


@pytest.fixture(scope="module")
def cache(request, tmp_path_factory):
    """The folder of compiled programs, shared by all workers and by the next run of the tests."""
    kept = getattr(request.config, "cache", None)
    return kept.mkdir("tag") if kept else tmp_path_factory.mktemp("tag")


@pytest.fixture(autouse=True)
def _shared_programs(_own_cache_folder, cache, monkeypatch):
    monkeypatch.setenv("SAT_JAX_CACHE", str(cache))
    monkeypatch.delenv("SAT_JAX_KEEP_PROGRAMS")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    import jax

    folder = tmp_path_factory.mktemp("models") / "tiny"
    variables = init_variables(TINY, jax.random.key(0))
    labels = default_label_names(TINY.num_classes)
    save_checkpoint(folder, Checkpoint(config=TINY, variables=variables, labels=labels))
    return str(folder)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    for name in ("sat_mean_2s", "sat_token_2s", "vit_token"):
        save_checkpoint(folder / name, convert_file(GOLDEN / f"{name}.pt"))
    return folder


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(0.7), 16_000, subtype="PCM_16")
    return str(path)


def noise(seconds, seed=0, rate=16_000):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def run(*arguments):
    """Runs the command in this process; returns its exit code."""
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as stop:
        tag.PROGRAM.run_parsed(tag.PROGRAM.parse(["infer.py", *map(str, arguments)]))
    return stop.value.code


def scores(folder, *arguments, recording=CLIP):
    assert run("--scores_out", folder, *arguments, recording) == 0
    return np.load(Path(folder) / f"{Path(recording).stem}.npz")


@pytest.mark.parametrize("name", ["sat_mean_2s", "sat_token_2s"])
@pytest.mark.parametrize(
    ("key", "flags"),
    [
        ("stream_primed", []),
        ("stream_unprimed", ["--warmup", "none"]),
        ("stream_160ms", ["-c", "0.16"]),
        ("clip_mean", ["--mode", "clip"]),
        ("clip_max", ["--mode", "clip", "--aggregate", "max"]),
        ("clip_last", ["--mode", "clip", "--aggregate", "last"]),
        ("clip_mean_padlast", ["--mode", "clip", "--pad_last"]),
    ],
)
def test_published_scores_of_streaming_models(name, key, flags, converted, tmp_path):
    golden = np.load(GOLDEN / f"{name}.npz")
    if key not in golden:
        pytest.skip("no such golden numbers")
    want = np.atleast_2d(golden[key])
    have = scores(tmp_path, "-m", converted / name, *flags)["probs"][: len(want)]
    np.testing.assert_allclose(have, want, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "flags"),
    [
        ("chunks_2.0", []),
        ("chunks_1.0", ["-c", "1"]),
        ("chunks_0.16", ["-c", "0.16"]),
        ("clip_full", ["--mode", "clip"]),
    ],
)
def test_published_scores_of_clip_models(key, flags, converted, tmp_path):
    want = np.atleast_2d(np.load(GOLDEN / "vit_token.npz")[key])
    have = scores(tmp_path, "-m", converted / "vit_token", *flags)["probs"][: len(want)]
    np.testing.assert_allclose(have, want, atol=1e-4)


def test_the_model_may_be_a_torch_file(tmp_path):
    have = scores(tmp_path, "-m", GOLDEN / "sat_mean_2s.pt")["probs"]
    np.testing.assert_allclose(
        have, np.load(GOLDEN / "sat_mean_2s.npz")["stream_primed"], atol=1e-4
    )


def test_published_commands_take_flags_on_both_sides(tiny, sound, capsys):
    lines = []
    for arguments in (
        ["-m", tiny, "-k", "2", "-c", "0.32", sound],
        [sound, "-m", tiny, "-c", "0.32", "-k", "2"],
        [f"--model={tiny}", sound, "--chunk=0.32", "--k=2"],
    ):
        assert run(*arguments) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1] == lines[2]
    assert lines[0].startswith(f"===== {sound} =====\n[0.0s]-[0.32s] Topk-1 class ")
    assert lines[0].count("Topk-2") == 3 and "Topk-3" not in lines[0]


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_to_a_file(format_name, tiny, sound, tmp_path, capsys):
    output = tmp_path / "tags"
    flags = ("-m", tiny, "--format", format_name, "--threshold", "0.1")
    assert run(*flags, "--output", output, sound) == 0
    assert capsys.readouterr().out == ""
    assert run(*flags, sound) == 0
    printed = capsys.readouterr().out
    assert printed == output.read_text("utf-8")
    assert "class " in printed


def test_saved_scores(tiny, sound, tmp_path):
    saved = scores(tmp_path / "new" / "folder", "-m", tiny, recording=sound)
    assert saved["probs"].shape == (3, 5) and saved["probs"].dtype == np.float32
    # The model's own chunk is 1/3 s: 5333 samples.
    np.testing.assert_allclose(saved["start"], [0, 5333 / 16e3, 10666 / 16e3])
    np.testing.assert_allclose(saved["end"], [5333 / 16e3, 10666 / 16e3, 0.7])
    assert list(saved["labels"]) == list(default_label_names(5))


def test_tags_and_pictures_of_chosen_classes(tiny, sound, tmp_path, monkeypatch, capsys):
    drawn = {}
    monkeypatch.setattr(one_recording, "plot_recording", lambda path, **given: drawn.update(given))
    chosen = ("--only", "Class 3", "--only", "class 1", "--only", "class 0", "--without", "class 0")
    outputs = ("--format", "jsonl", "--plot", tmp_path / "a.png", "--scores_out", tmp_path)
    assert run("-m", tiny, "-k", "9", *chosen, *outputs, sound) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{tag["label"] for tag in line["tags"]} for line in lines] == [
        {"class 1", "class 3"}
    ] * 3
    probs = np.load(tmp_path / "sound.npz")["probs"]
    assert probs.shape == (3, 5)
    assert drawn["labels"] == ["class 1", "class 3"]
    np.testing.assert_array_equal(drawn["probs"], probs[:, [1, 3]])

    assert run("-m", tiny, "--only", "class 7", sound) == 1
    assert "'class 7'" in capsys.readouterr().err


def events_of(printed):
    return [json.loads(line) for line in printed.splitlines()]


def test_events_are_those_of_the_saved_scores(tiny, tmp_path, capsys):
    path, chosen = tmp_path / "sound.wav", ("--only", "class 1", "--only", "class 3")
    time = np.arange(18 * 5333) / 16_000  # 18 chunks.
    soundfile.write(path, noise(time.size / 16e3) * (np.sin(2 * np.pi * time / 1.7) > 0), 16_000)
    saved = scores(tmp_path, "-m", tiny, recording=path)
    probs, times = saved["probs"], np.append(saved["start"], saved["end"][-1])
    capsys.readouterr()
    on, other = (float(np.median(probs[:, index])) for index in (1, 3))
    rules = tmp_path / "rules.toml"
    rules.write_text(
        f"[rules.default]\noff = {min(on, other) / 2}\nmin_off = 0.5\n"
        f'[rules.default.class."class 1"]\noff = {on}\n'
        f'[rules.default.class."class 3"]\non = {other}\n'
    )
    flags = ("--format=events", "--threshold", on, *chosen, "--rules", rules)
    assert run("-m", tiny, *flags, "--start_time=2026-11-29T15:00:00", path) == 0
    told = events_of(capsys.readouterr().out)
    for index, on_off in ((1, (on, on)), (3, (other, min(on, other) / 2))):
        own = [each for each in told if each["kind"] == "end" and each["class"] == index]
        rule = Rule(on=on_off[0], off=on_off[1], min_off=0.5)
        expected = find_events(probs[:, index], times, rule)
        assert len(expected) == 1 or index == 1
        assert [(each["start"], each["end"], each["reason"]) for each in own] == [
            (round(event.start, 6), round(event.end, 6), event.reason) for event in expected
        ]
    assert {each["class"] for each in told} == {1, 3}
    assert told[0]["id"] == f"sound.wav.{round(16_000 * told[0]['start'])}.{told[0]['class']}"
    since = datetime.fromisoformat(told[0]["time"]) - datetime(2026, 11, 29, 15)
    assert since.total_seconds() == round(told[0]["start"], 3)


def test_loud_sounds_are_events(tiny, tmp_path, capsys):
    path, rules = tmp_path / "sound.wav", tmp_path / "rules.toml"
    samples = 0.01 * noise(4.0)
    samples[17_600:25_600] += 0.5  # From 1.1 s to 1.6 s.
    soundfile.write(path, samples, 16_000)
    rules.write_text('[rules.default]\nwatch = ["loud"]\n[rules.default.class.loud]\nmin_off = 1\n')
    assert run("-m", tiny, "--format=events-csv", "--rules", rules, path) == 0
    [row] = capsys.readouterr().out.splitlines()[1:]
    assert row.removeprefix(f"{path},") == "1.1,1.6,loud,0.5,0.5,,,quiet"
    flags = ("-m", tiny, "--format=events", "--rules", rules, "--plot", tmp_path / "a.png")
    assert run(*flags, path) == 1
    assert "leave out plot" in capsys.readouterr().err


@pytest.mark.parametrize("format_name", ["events", "events-csv", "srt"])
def test_events_of_live_sound_are_those_of_the_file(
    format_name, tiny, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(3.0), 16_000, subtype="PCM_16")
    flags = ("-m", tiny, "--format", format_name, "--threshold", "0.4")
    assert run(*flags, path) == 0
    want = capsys.readouterr().out.replace(str(path), "-").replace("sound.wav.", "stdin.")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert run(*flags, "-") == 0
    assert capsys.readouterr().out == want != ""


def test_events_start_with_the_model_s_thresholds(tiny, sound, tmp_path, capsys):
    """A class with a threshold of 1 can't be told."""
    model = shutil.copytree(tiny, tmp_path / "model")
    probs = scores(tmp_path, "-m", model, recording=sound)["probs"]
    low = float(probs.min() / 2)
    values = np.array([low, 1.0, 0.999, low, 1.0])
    save_thresholds(model, load_checkpoint(model), {"threshold": values}, about={})
    capsys.readouterr()
    for flags in ((), ("--threshold=auto",)):
        assert run("-m", model, "--format=events-csv", *flags, sound) == 0
        rows = capsys.readouterr().out.splitlines()[1:]
        assert {row.split(",")[3] for row in rows} == {"class 0", "class 3"}
    assert run("-m", model, "--format=events-csv", "--threshold", low, sound) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (None, "rules.toml"),
        ("[rules.default]\nwatc = []", "watc"),
        ("[rules.default]\non = 2", "on=2"),
    ],
)
def test_rules_that_cannot_be_used(rules, named, tiny, sound, tmp_path, capsys):
    path = tmp_path / "rules.toml"
    if rules:
        path.write_text(rules)
    assert run("-m", tiny, "--format=events", "--rules", path, sound) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and named in captured.err and captured.err.count("\n") == 1


def test_recordings_do_not_depend_on_each_other(tiny, tmp_path):
    names = []
    for i, seconds in enumerate((1.1, 0.5)):
        names.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(names[-1], noise(seconds, i), 16_000)
    together, alone = tmp_path / "together", tmp_path / "alone"
    assert run("-m", tiny, "--scores_out", together, *names) == 0
    for name in names:
        want = scores(alone, "-m", tiny, recording=name)["probs"]
        have = np.load(together / f"{Path(name).stem}.npz")["probs"]
        np.testing.assert_array_equal(have, want)


def test_pictures_of_several_files(tiny, sound, tmp_path):
    assert run("-m", tiny, "--plot", tmp_path / "all.png", sound, CLIP) == 0
    for stem in ("sound", "clip"):
        assert (tmp_path / f"all-{stem}.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_mirror_folders(tiny, sound, tmp_path):
    for place in ("day/a.wav", "day/n/b.wav"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(sound, path)
    plot = tmp_path / "drawn" / "p.png"
    plot.parent.mkdir()
    assert run("-m", tiny, "--plot", plot, "--recursive", tmp_path / "day") == 0
    found = sorted(str(path.relative_to(plot.parent)) for path in plot.parent.rglob("*.png"))
    assert found == ["n/p-b.png", "p-a.png"]


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2)])
def test_standard_input_gives_the_scores_of_the_file(rate, channels, tiny, tmp_path, monkeypatch):
    samples = noise(1.0, rate=rate * channels).reshape(-1, channels)
    path = tmp_path / "file.wav"
    soundfile.write(path, samples, rate, subtype="PCM_16")
    want = scores(tmp_path, "-m", tiny, recording=path)
    pcm = soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcm)))
    shape = ["--stdin_rate", rate, "--stdin_channels", channels]
    assert run("-m", tiny, "--scores_out", tmp_path, *shape, "-") == 0
    have = np.load(tmp_path / "stdin.npz")
    np.testing.assert_allclose(have["end"], want["end"])
    np.testing.assert_allclose(have["probs"], want["probs"], atol=1e-5)


def test_dates_and_times_of_tags(tiny, tmp_path, monkeypatch, capsys):
    paths = [tmp_path / "20261129_235959.wav", tmp_path / "nameless.wav"]
    for path in paths:
        soundfile.write(path, noise(0.7), 16_000)
    as_json = ("-m", tiny, "--chunk=0.32", "--format=jsonl", "--start_time")
    assert run(*as_json, "name", *paths) == 1
    output = capsys.readouterr()
    assert [json.loads(line)["time"] for line in output.out.splitlines()] == [
        "2026-11-29T23:59:59.000",
        "2026-11-29T23:59:59.320",
        "2026-11-29T23:59:59.640",
    ]
    assert str(paths[1]) in output.err and output.err.count("\n") == 1

    pcm = (noise(0.7) * 32_767).astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcm)))
    before = datetime.now().astimezone()
    assert run(*as_json, "now", "-") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])["time"]
    # All of the sound is there at once, so it began before it was read.
    least = before - timedelta(seconds=0.701)
    assert least <= datetime.fromisoformat(first) <= datetime.now().astimezone()


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_file_on_standard_input_is_tagged_like_the_file(
    tiny, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.setenv("PATH", str(tmp_path))  # ffmpeg decodes Ogg to other last bits.
    path = tmp_path / name
    soundfile.write(path, noise(0.9, rate=22_050).repeat(2).reshape(-1, 2), 22_050)
    assert run("-m", tiny, "--format", "csv", path) == 0
    want = capsys.readouterr().out.replace(str(path), "-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert run("-m", tiny, "--format", "csv", "-") == 0
    assert capsys.readouterr() == (want, "")


def test_the_header_on_standard_input_decides(tiny, sound, monkeypatch, capsys):
    assert run("-m", tiny, "--format", "csv", sound) == 0
    want = capsys.readouterr().out.replace(sound, "-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(sound).read_bytes())))
    assert run("-m", tiny, "--format", "csv", "--stdin_rate", 8_000, "-") == 0
    have = capsys.readouterr()
    assert have.out == want and "16000" in have.err and have.err.count("\n") == 1


def test_standard_input_without_sound(tiny, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    pipes = [io.TextIOWrapper(io.BytesIO(content)) for content in (b"", b"1")]
    for stdin in (None, Terminal(), *pipes):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run("-m", tiny, "-") == 1
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert "standard input" in captured.err


def test_clip_mode_and_seamless_framing_of_a_short_file(tiny, tmp_path, capsys):
    path = tmp_path / "short.wav"
    soundfile.write(path, noise(0.1), 16_000)
    for flags in ([], ["--mode", "clip"], ["--framing", "seamless"]):
        assert run("-m", tiny, "-k", 1, *flags, path) == 0
        assert "[0.0s]-[0.1s] Topk-1 " in capsys.readouterr().out


def test_a_fault_of_the_sound_is_one_line_and_no_failure(tiny, tmp_path, capsys):
    samples = noise(0.9).astype(np.float32)
    cases = {
        "integers": (samples * 32_768, ["--full_scale", 32_768]),
        "quiet": (samples / 32_768, ["--full_scale", 3.05e-5]),
        "inverted": (np.stack([samples, -samples], 1), ["--channel", 0]),
    }
    soundfile.write(tmp_path / "plain.wav", samples, 16_000, subtype="FLOAT")
    want = scores(tmp_path, "-m", tiny, recording=tmp_path / "plain.wav")["probs"]
    for name, (samples, cure) in cases.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        assert run("-m", tiny, path) == 0
        line = capsys.readouterr().err
        assert str(path) in line and line.count("\n") == 1 and cure[0] in line
        assert str(cure[1]) in line or name == "quiet"
        have = scores(tmp_path, "-m", tiny, *cure, recording=path)["probs"]
        np.testing.assert_allclose(have, want, atol=2e-3 if name == "quiet" else 1e-6)
        assert capsys.readouterr().err == ""


# Bad input


def make_bad_files(folder):
    """Writes files that cannot be tagged; returns their paths, and one that does not exist."""
    path = folder / "whole.wav"
    soundfile.write(path, noise(0.5), 16_000, subtype="PCM_16")
    wav = bytearray(path.read_bytes())
    odd_rate, no_channels = wav.copy(), wav.copy()
    odd_rate[24:28] = (4_000_000_000).to_bytes(4, "little")
    no_channels[22:24] = bytes(2)
    paths = [folder / "missing.wav"]
    for name, bad in (("nan.wav", np.nan), ("inf.wav", np.inf)):
        samples = noise(0.5)
        samples[0] = bad
        paths.append(folder / name)
        soundfile.write(paths[-1], samples, 16_000, subtype="FLOAT")
    for name, data in (
        ("empty.wav", b""),
        ("text.wav", b"not a sound at all" * 40),
        ("rate.wav", odd_rate),
        ("channels.wav", no_channels),
        ("silent_end.wav", wav[:40] + bytes(4)),
    ):
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    return paths


def test_bad_files_are_named_and_others_tagged(tiny, sound, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    empty = tmp_path / "empty"
    empty.mkdir()
    # What is missing is told before the rest is tagged.
    missing, *others = make_bad_files(tmp_path)
    bad = [missing, empty, *others]
    assert run("-m", tiny, *bad, sound) == 1
    captured = capsys.readouterr()
    for path, line in zip(bad, captured.err.splitlines(), strict=True):
        assert line.startswith(f"infer.py: {path}: ")
    assert captured.out.startswith(f"===== {sound} =====") and captured.out.count("=====") == 2


@pytest.mark.parametrize("flags", [[], ["--mode", "clip"]])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_truncated_file_is_tagged_up_to_its_end(suffix, flags, tiny, tmp_path, capsys):
    path, output = tmp_path / f"cut.{suffix}", tmp_path / "tags.jsonl"
    soundfile.write(path, noise(2.0), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])
    flags = [*flags, "--format", "jsonl", "--output", output, "--scores_out", tmp_path]
    assert run("-m", tiny, *flags, path) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"infer.py: {path}: ") and "Error :" not in message
    ends = [json.loads(line)["end"] for line in output.read_text("utf-8").splitlines()]
    assert 0.8 < ends[-1] < 1.6
    np.testing.assert_allclose(np.load(tmp_path / "cut.npz")["end"], ends, atol=1e-3)


def damage(model, how):
    model = Path(model)
    if how == "weights":
        files = [p for p in (model / "weights").rglob("*") if p.is_file() and "d" in p.parts]
        for path in files:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "metadata":
        (model / "model" / "metadata").write_text('{"format": 1', "utf-8")
    elif how == "fields":
        (model / "model" / "metadata").write_text("[1, 2]", "utf-8")
    elif how == "config":
        path = model / "model" / "metadata"
        data = json.loads(path.read_text("utf-8"))
        data["config"]["width"] = "wide"
        path.write_text(json.dumps(data), "utf-8")
    elif how == "labels":
        path = model / "model" / "metadata"
        data = json.loads(path.read_text("utf-8"))
        data["labels"] = data["labels"][:-1]
        path.write_text(json.dumps(data), "utf-8")
    else:
        shutil.rmtree(model / "weights")


@pytest.mark.parametrize("how", ["weights", "metadata", "fields", "config", "labels", "missing"])
def test_a_damaged_checkpoint(how, tiny, sound, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    damage(model, how)
    assert run("-m", model, sound) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith(f"infer.py: {model} ")


@pytest.mark.parametrize("content", [None, "", '{"item_handlers": {'])
def test_orbax_s_own_metadata_may_be_damaged(content, tiny, sound, cache, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    (model / "_CHECKPOINT_METADATA").unlink()
    if content is not None:
        (model / "_CHECKPOINT_METADATA").write_text(content, "utf-8")
    with start(cache, "-m", model, sound) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"Topk-1" in out


def test_recordings_are_not_overwritten(tiny, sound, tmp_path, capsys):
    mine = tmp_path / "mine.wav"
    shutil.copy(sound, mine)
    before = mine.read_bytes()
    link = tmp_path / "link.png"
    link.symlink_to(mine)
    for flags in (["--output", mine], ["--plot", link]):
        assert run("-m", tiny, *flags, mine) == 2
        assert str(flags[1]) in capsys.readouterr().err
    assert run("-m", tiny, "--output", tmp_path / "a.png", "--plot", tmp_path / "a.png", mine) == 2
    assert mine.read_bytes() == before and not (tmp_path / "a.png").exists()


def test_the_model_is_not_overwritten(tiny, sound, tmp_path, capsys):
    folder, file = tmp_path / "model", tmp_path / "sound.npz"
    shutil.copytree(tiny, folder)
    shutil.copy(GOLDEN / "sat_mean_2s.pt", file)
    for model, path in ((folder, folder / "model" / "metadata"), (file, file)):
        before = path.read_bytes()
        for flag in (["--output", path], ["--plot", path.with_name("p.png")]):
            if flag[0] == "--plot":
                flag[1].symlink_to(path)
            assert run("-m", model, *flag, sound) == 2
            message = capsys.readouterr().err
            assert str(flag[1]) in message and f" {model}: " in message
            assert path.read_bytes() == before
    assert run("-m", file, "--scores_out", tmp_path, sound) == 2
    assert str(file) in capsys.readouterr().err


def test_scores_that_are_not_finite(tiny, sound, tmp_path, capsys):
    whole = load_checkpoint(tiny)
    whole.variables["params"]["head"]["bias"][:] = np.nan
    save_checkpoint(tmp_path / "nan", whole)
    assert run("-m", tmp_path / "nan", sound) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_line(tiny, sound, capsys):
    assert run("-m", tiny, "--output", "/dev/full", sound, CLIP) == 1
    message = capsys.readouterr().err
    assert "/dev/full" in message and message.count("\n") == 1


def test_the_output_is_not_replaced_if_all_recordings_fail(tiny, tmp_path, capsys):
    old = tmp_path / "old.txt"
    old.write_text("old")
    assert run("-m", tiny, "--output", old, tmp_path / "nothing.wav") == 1
    assert old.read_text() == "old" and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--scores_out", "--plot"])
def test_outputs_that_cannot_be_written_are_reported_at_once(flag, tiny, sound, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    name = "p.png" if flag == "--plot" else "scores"
    assert run("-m", tiny, flag, tmp_path / "file" / name, sound) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--model", "--output", "--plot", "--scores_out", None])
def test_names_over_255_bytes(flag, tiny, sound, tmp_path, capsys):
    name = 300 * "a" + ".png"
    arguments = ["-m", tiny, tmp_path / name] if flag is None else [flag, tmp_path / name, sound]
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and name in message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x80\x02 broken", b"text"])
def test_a_damaged_torch_file(content, sound, tmp_path, capsys):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert run("-m", path, sound) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and str(path) in message


def test_an_unknown_model(sound, capsys):
    assert run("-m", "SAT_X", sound) == 1
    message = capsys.readouterr().err
    assert message.startswith("infer.py: ") and "SAT_X" in message and "SAT_T_2s" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.wav", "--start_time=tomorrow"],
        ["a.wav", "--start_time=%Q"],
        ["a.wav", "--start_time=name", "--format=srt"],
        ["-c", "0.1", "a.wav"],
        ["-c", "soon", "a.wav"],
        ["-c", "nan", "a.wav"],
        ["--threshold", "nan", "a.wav"],
        ["-m", "", "a.wav"],
        ["--output", "", "a.wav"],
        ["--scores_out=", "a.wav"],
        ["--stdin_rate", "0", "-"],
        ["--full_scale", "0", "a.wav"],
        ["--stdin_rate", str(mono.MIN_RATE - 1), "-"],
        ["--stdin_rate", str(mono.MAX_RATE + 1), "-"],
        ["-k", "0", "a.wav"],
        ["--threshold", "1.5", "a.wav"],
        ["--format", "xml", "a.wav"],
        ["--mode", "live", "a.wav"],
        ["--stdin_channels", "0", "-"],
        ["--no_such_flag", "a.wav"],
        ["--plot", "picture.txt", "a.wav"],
        ["--mode", "clip", "-c", "1", "a.wav"],
        ["--mode", "clip", "--warmup", "none", "a.wav"],
        ["--mode", "clip", "--framing", "seamless", "a.wav"],
        ["--aggregate", "max", "a.wav"],
        ["--stdin_rate", "8000", "a.wav"],
        ["--stdin_channels", "2", "a.wav"],
        ["--nopad_last=3", "a.wav"],
        ["--format", "srt", "a.wav", "b.wav"],
        ["--format", "raven", "--start_time=name", "a.wav"],
        ["--format", "events", "-k", "3", "a.wav"],
        ["--format", "events", "--mode", "clip", "a.wav"],
        ["--format", "srt", "--threshold", "1", "a.wav"],
        ["--format", "jsonl", "--rules", "rules.toml", "a.wav"],
        ["-", "-"],
        [],
    ],
)
def test_wrong_flags(arguments, capsys):
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as stop:
        tag.PROGRAM.run_parsed(tag.PROGRAM.parse(["infer.py", *arguments]))
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_a_missing_library_is_no_wrong_flag(sound, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run("--plot", tmp_path / "a.png", sound) == 1
    assert "sat-jax[plot]" in capsys.readouterr().err
    assert run("--plot", tmp_path / "a.gif", sound) == 2
    assert "a.gif" in capsys.readouterr().err


def test_no_model_is_loaded_for_missing_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tag, "_load_tagger", lambda: pytest.fail("loaded"))
    missing = [tmp_path / "a.wav", tmp_path / "b.wav"]
    assert run(*missing) == 1
    for path, line in zip(missing, capsys.readouterr().err.splitlines(), strict=True):
        assert line.startswith(f"infer.py: {path}: cannot be opened: ")


def test_an_unknown_flag_before_a_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sat-jax", "--nope"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "unknown flag --nope;" in capsys.readouterr().err


def test_a_channel_that_the_file_lacks(tiny, sound, capsys):
    assert run("-m", tiny, "--channel", 3, sound) == 1
    message = capsys.readouterr().err
    assert "no channel 3:" in message and message.count("\n") == 1


def test_random_weights_say_so(sound, capsys, monkeypatch):
    assert run("--random_weights", "-m", "nope", sound) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    monkeypatch.setattr(tag, "_load_tagger", lambda: (None, None))
    monkeypatch.setattr("sat_jax.tagging.recordings.tag_recordings", lambda *_, **__: sys.exit(7))
    assert run("--random_weights", "-m", "SAT_XS_1s", sound) == 7
    assert capsys.readouterr().out.startswith("SAT_XS_1s ")
    assert run("--random_weights", "-m", "SAT_XS_1s", "--format", "jsonl", sound) == 7
    assert capsys.readouterr().out == ""


# In a process of its own


def start(cache, *arguments):
    return subprocess.Popen(
        [sys.executable, ROOT / "infer.py", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "SAT_JAX_CACHE": str(cache)},
    )


def test_live_sound_is_tagged_at_once_and_results_are_kept_when_stopped(tiny, cache, tmp_path):
    pcm = (noise(1.0) * 32_767).astype("<i2").tobytes()
    output = tmp_path / "tags.txt"
    arguments = ("-m", tiny, "-k", 1, "-c", 0.32, "--scores_out", tmp_path, "-")
    with (
        start(cache, *arguments) as printing,
        start(cache, "--output", output, *arguments) as quiet,
    ):
        for process in (printing, quiet):
            process.stdin.write(pcm[:10_300])
            process.stdin.flush()
        assert printing.stdout.readline() == b"===== - =====\n"
        assert printing.stdout.readline().startswith(b"[0.0s]-[0.32s] Topk-1 class ")
        printing.stdout.readline()
        for process in (printing, quiet):
            process.stdin.write(pcm[10_300:20_500])
            process.stdin.flush()
        assert printing.stdout.readline().startswith(b"[0.32s]-[0.64s] Topk-1 class ")
        for process, how, code in ((printing, signal.SIGINT, 130), (quiet, signal.SIGTERM, 0)):
            if process is quiet:
                wait_for_text(tmp_path, b"0.64s")
            process.send_signal(how)
            assert process.wait(60) == code
            assert process.stderr.read() == b""
    # SIGTERM is the end of the sound, whose last 10 samples are tagged too.
    assert output.read_text("utf-8").count("Topk-1") == 3
    assert np.load(tmp_path / "stdin.npz")["probs"].shape == (3, 5)


def test_sigterm_ends_live_sound_like_its_end(tiny, cache, tmp_path):
    header = io.BytesIO()
    soundfile.write(header, np.zeros(0), 16_000, format="WAV", subtype="PCM_16")
    content = header.getvalue() + (noise(0.9) * 32_767).astype("<i2").tobytes()
    arguments = ("-m", tiny, "-k", 1, "-c", 0.32, "-")
    with start(cache, *arguments) as whole:
        want, errors = whole.communicate(content)
    assert (whole.returncode, errors) == (0, b"") and want.count(b"Topk-1") == 3
    with start(cache, *arguments) as stopped:
        stopped.stdin.write(content)
        stopped.stdin.flush()
        have = stopped.stdout.readline() + stopped.stdout.readline()
        stopped.send_signal(signal.SIGTERM)
        have += stopped.stdout.read()
        assert (stopped.wait(60), stopped.stderr.read()) == (0, b"")
    assert have == want


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_silent_pipe_is_ended_without_a_word(tiny, cache, tmp_path, how):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "tags.txt").write_text("earlier")
    arguments = ("-m", tiny, "--output", tmp_path / "tags.txt", tmp_path / "pipe")
    before = signal.signal(how, signal.SIG_DFL)  # Under nohup, SIGHUP is ignored.
    try:
        process = start(cache, *arguments)
    finally:
        signal.signal(how, before)
    with process, open(tmp_path / "pipe", "wb"):
        process.send_signal(how)  # It has opened the pipe.
        assert process.wait(60) == 0
        assert process.stdout.read() == process.stderr.read() == b""
    assert (tmp_path / "tags.txt").read_text() == "earlier"


def test_a_signal_that_is_ignored_stays_so(tiny, sound):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup does.
    try:
        assert run("-m", tiny, sound) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def wait_for_text(folder, text):
    """Waits until the temporary file of the output holds the text."""
    import time

    for _ in range(600):
        if any(text in path.read_bytes() for path in folder.glob(".sat-jax-*")):
            return
        time.sleep(0.1)
    raise AssertionError("nothing was written")


def test_a_closed_pipe_ends_quietly(tiny, cache):
    with start(cache, "-m", tiny, "-c", 0.16, CLIP) as process:
        assert process.stdout.readline().startswith(b"=====")
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_exit_codes_and_what_is_imported(tiny, sound, cache):
    code = (
        "import sys, runpy; sys.argv = ['infer.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('infer.py', run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code)\n"
        "heavy = 'torch tensorflow librosa matplotlib onnx safetensors optax'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    arguments = [sys.executable, "-W", "error", "-c", code, "-m", tiny, sound, "missing.wav"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["1", "[]"]
    assert done.stderr.startswith("infer.py: missing.wav: ") and done.stderr.count("\n") == 1


def run_and_list_imports(*arguments):
    """Runs the command in a process that ends its output with the slow modules it imported."""
    code = (
        "import sys; from sat_jax.__main__ import run_command\n"
        "try: run_command('tag', 'sat-jax tag', sys.argv[1:])\n"
        "finally: print({'jax', 'numpy', 'orbax'} & set(sys.modules))"
    )
    program = [sys.executable, "-c", code, *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [[], ["--mode", "live", "a.wav"], ["--plot", "a.gif", "a"]])
def test_wrong_flags_are_answered_quickly(arguments):
    done = run_and_list_imports(*arguments)
    assert (done.returncode, done.stdout) == (2, "set()\n")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_quick_and_lists_the_formats(flag):
    done = run_and_list_imports(flag)
    assert done.returncode == 0
    *text, imported = done.stdout.splitlines()
    assert imported == "set()"
    assert "usage: sat-jax tag RECORDING... [flags]" in text
    assert f"<{'|'.join(FORMATS)}>" in done.stdout
    assert "--stdin_rate" in done.stdout and "--verbosity" not in done.stdout


def test_importing_the_package_imports_no_framework():
    code = "import sys, sat_jax; print({'jax', 'torch', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
