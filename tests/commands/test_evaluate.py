"""The command evaluate on a tiny model: files, printed tables, error lines and exit codes."""

import contextlib
import csv
import io
import json
import shutil

import numpy as np
import pytest
import sklearn.metrics
import soundfile

from sat_jax.audio import read_blocks
from sat_jax.events import Rule, find_events
from sat_jax.events.rules_file import read_rules
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint
from sat_jax.weights.thresholds_file import load_thresholds
from tests.support.labelled_clips import LABELS, PATCH, RATE, tiny_checkpoint
from tests.support.programs import run_command

NUM_CLIPS = 12
EVERY_MODE = [
    *("-c", "0.5,0.2", "--mode=stream,chunks,sliding,clip", "--buffer=1", "--warmup=none"),
    *("--clips=table.csv", "--strong=strong.tsv"),
]
pytestmark = pytest.mark.xdist_group("evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, clips, and their tables table.csv and strong.tsv."""
    folder, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    save_checkpoint(folder / "model", tiny_checkpoint())
    rows, events = [], [("filename", "onset", "offset", "event_label")]
    for index in range(NUM_CLIPS):
        time = np.arange(RATE * (12 + index % 3) // 8) / RATE  # Some end within a chunk.
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 6000) * time * (1 + time))
        sound += rng.uniform(0, 0.3) * rng.standard_normal(len(time))
        name = f"{index}.wav"
        soundfile.write(folder / name, sound.clip(-1, 1).astype(np.float32), RATE)
        labels = [LABELS[label] for label in range(4) if index < 2 or rng.random() < 0.4]
        rows.append((name, ";".join([*labels, "in every clip"])))
        events += [(name, "0.2", "0.9", label) for label in labels]
    write_table(folder / "table.csv", rows)
    events.append(("0.wav", "0", "1", "Unicorn"))
    (folder / "strong.tsv").write_text("\n".join("\t".join(row) for row in events) + "\n")
    return folder


def write_table(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "labels"), *rows])


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_results(workdir):
    return json.loads((workdir / "metrics.json").read_text())


def targets(folder):
    rows = [row["labels"].split(";") for row in read_csv(folder / "table.csv")]
    return np.array([[label in row for label in LABELS] for row in rows])


@pytest.fixture(scope="module")
def stream_scores(folder):
    """float32 [n, y], means over chunks of 0.5 s; ends under a patch are left out."""
    tagger = Tagger(load_checkpoint(folder / "model"), chunk_seconds=0.5)
    scores = []
    for index in range(NUM_CLIPS):
        sound = np.concatenate(list(read_blocks(folder / f"{index}.wav", sample_rate=RATE)))
        rest = len(sound) % tagger.framing.hop
        sound = sound[: len(sound) - rest] if rest < PATCH else sound
        chunks = tagger.stream([sound], warmup="none")
        scores.append(np.mean([chunk.probs for chunk in chunks], axis=0, dtype=np.float64))
    return np.stack(scores).astype(np.float32)


def evaluate(*arguments):
    """Runs the command; returns exit code, standard output and lines of standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command("evaluate", *arguments)
    return code, out.getvalue(), err.getvalue().splitlines()


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def every_mode(folder):
    """A run in every mode, with its results in folder/out: what it printed."""
    with contextlib.chdir(folder):
        code, out, err = evaluate("-m", "model", *EVERY_MODE, "--workdir=out")
    assert code == 0, err
    return out, err


def test_every_mode_at_every_delay(folder, every_mode):
    results = read_results(folder / "out")
    modes = [(each["mode"], each["delay"]) for each in results]
    expected = [(mode, delay) for mode in ("stream", "chunks", "sliding") for delay in (0.5, 0.2)]
    assert modes == [*expected, ("clip", None)]
    assert [each["buffer"] for each in results] == [None] * 4 + [1.0] * 2 + [None]
    assert [each["warmup"] for each in results] == ["none"] * 2 + [None] * 5
    assert len({each["mAP"] for each in results}) > 1
    scores = {path.read_bytes() for path in (folder / "out/scores").glob("*/part-*.npy")}
    assert len(scores) == len(results)
    [line] = every_mode[1]
    assert "strong.tsv" in line and "Unicorn" in line


def test_numbers_equal_those_of_scikit_learn(folder, every_mode, stream_scores):
    result = read_results(folder / "out")[0]
    truth = targets(folder)
    some, both = truth.any(0), truth.any(0) & ~truth.all(0)
    expected = {
        "mAP": sklearn.metrics.average_precision_score(truth[:, some], stream_scores[:, some]),
        "mAUC": sklearn.metrics.roc_auc_score(truth[:, both], stream_scores[:, both]),
    }
    for name, number in expected.items():
        assert result[name] == pytest.approx(number, rel=1e-9), name
    assert result["clips_scored"] == NUM_CLIPS
    rows = read_csv(folder / "out/per_class/model_0.5_s_stream_no_warm-up.csv")
    assert [row["label"] for row in rows] == list(LABELS)
    assert [int(row["positives"]) for row in rows] == truth.sum(0).tolist()
    for index, row in enumerate(rows):
        if LABELS[index] == "in no clip":
            assert (row["average_precision"], row["roc_auc"]) == ("", "")
        else:
            assert float(row["average_precision"]) == pytest.approx(
                sklearn.metrics.average_precision_score(truth[:, index], stream_scores[:, index])
            )
            assert (row["roc_auc"] == "") == (LABELS[index] == "in every clip")
    assert read_csv(folder / "out/missing_clips.csv") == []


def test_tables_are_printed_and_saved(folder, every_mode):
    out, _ = every_mode
    assert out == (folder / "out/table.md").read_text()
    metrics, published = out.split("\n\n")
    for table in (metrics, published):
        assert len({len(line) for line in table.splitlines()}) == 1
    head, _, first, *rest = ([c.strip() for c in r.split("|")] for r in metrics.splitlines())
    cells = dict(zip(head, first, strict=True))
    assert cells["mAP"] == f"{100 * read_results(folder / 'out')[0]['mAP']:.2f} %"
    assert (cells["mode"], cells["delay"]) == ("stream, no warm-up", "0.5 s")
    assert len(rest) == 6
    lines = [[c.strip() for c in r.split("|")] for r in published.splitlines()]
    assert lines[0][2:-1] == ["Model", "Streamable?", "#Token", "PeakMem", "GFlops", "mAP"]
    # 32 frames are two patches of time, each four of frequency; so is the cache. A buffer of 1 s
    # holds three times as many.
    stream, chunks, sliding = lines[2:5]
    assert (stream[1], stream[2]) == ("0.5 s delay", "model (stream)")
    assert (stream[3:5], chunks[3:5], sliding[3:5]) == (["Y", "8/8"], ["", "8"], ["", "24"])


def test_plots_are_drawn(folder, every_mode):
    plots = {path.name: path for path in (folder / "out/plots").iterdir()}
    assert {"map_by_delay.png", "clip_scores.png", "class_ap_model_clip.png"} <= set(plots)
    assert len(plots) == 2 + 7
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.values())


def test_the_same_command_scores_nothing_again(folder, every_mode, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.copytree(folder / "out/scores", folder / "again/scores")
    before = {path: path.stat().st_mtime_ns for path in (folder / "again").rglob("*.npy")}
    flags = ["--noplots", "--nocost", "--aggregate=max"]
    code, out, err = evaluate("-m", "model", *EVERY_MODE, "--workdir=again", *flags)
    assert code == 0, err
    # Only in clip mode do scores depend on the aggregation.
    after = {path: path.stat().st_mtime_ns for path in (folder / "again").rglob("*.npy")}
    assert before.items() <= after.items() and len(after) == len(before) + 1
    results = read_results(folder / "again")
    assert [each["clips_per_second"] is None for each in results] == [True] * 6 + [False]
    assert not (folder / "again/plots").exists()
    assert "GFlops" not in out


def test_scores_belong_to_the_recordings(folder, tmp_path, monkeypatch):
    flags = ["--workdir", tmp_path / "out", "--noplots", "--nocost", "--clips=table.csv"]
    lines, stability = {}, {}
    for step in ("first", "second", "replaced"):
        here = tmp_path / ("second" if step == "replaced" else step)
        here.mkdir(exist_ok=True)
        for index in range(3):  # The same names in both folders, and other sounds.
            source = {"first": index, "second": 2 - index, "replaced": index}[step]
            shutil.copyfile(folder / f"{source}.wav", here / f"{index}.wav")
        write_table(here / "table.csv", [("0.wav", "Dog"), ("1.wav", "Cat"), ("2.wav", "Rain")])
        monkeypatch.chdir(here)
        code, _, lines[step] = evaluate("-m", folder / "model", "-c", "0.5", *flags)
        assert code == 0, lines[step]
        stability[step] = read_results(tmp_path / "out")[0]["stability"]
    assert (lines["first"], lines["second"]) == ([], [])
    assert stability["first"] != stability["second"]
    [line] = lines["replaced"]
    assert "3 clips" in line
    assert stability["replaced"] == pytest.approx(stability["first"])


def test_thresholds_reach_tagging(folder, cwd, stream_scores, capsys):
    shutil.copytree(folder / "model", cwd / "model")
    flags = ["-m", "model", "-c", "0.5", "--warmup=none", "--clips", folder / "table.csv"]
    flags += ["--workdir=out", "--noplots", "--nocost"]
    assert evaluate(*flags, "--save_thresholds=f1")[0] == 0
    checkpoint = load_checkpoint(cwd / "model")
    values = load_thresholds(cwd / "model", checkpoint)
    truth = targets(folder)
    for index in np.flatnonzero(truth.any(0)):
        column = stream_scores[:, index]
        f1 = [sklearn.metrics.f1_score(truth[:, index], column >= each) for each in (0.0, *column)]
        chosen = column >= values[index]
        assert sklearn.metrics.f1_score(truth[:, index], chosen) == pytest.approx(max(f1))

    assert evaluate(*flags, "--save_thresholds=precision=1")[0] == 0
    values = load_thresholds(cwd / "model", checkpoint)
    sound = folder / "0.wav"
    flags = ["-m", "model", "-c", "0.5", "-k", "9", "--threshold=auto", "--format=jsonl"]
    assert run_command("tag", *flags, sound) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    chunks = list(Tagger(checkpoint, chunk_seconds=0.5).tag_file(sound))
    for line, chunk in zip(lines, chunks, strict=True):
        shown = {tag["label"] for tag in line["tags"]}
        assert shown == {LABELS[index] for index in np.flatnonzero(chunk.probs >= values)}
    assert any(len(line["tags"]) < len(LABELS) for line in lines)


def test_rules_of_events_reach_tagging(folder, cwd, capsys):
    rng = np.random.default_rng(0)
    tagger = Tagger(load_checkpoint(folder / "model"), chunk_seconds=0.5)
    # Labels of what the model happens to tell of "Dog", so that there is something to find.
    scores = [[c.probs[0] for c in tagger.tag_file(folder / f"{i}.wav")] for i in range(NUM_CLIPS)]
    middle = np.median(np.concatenate(scores))
    rows = [("filename", "onset", "offset", "event_label")]
    for index, row in enumerate(scores):
        for k in np.flatnonzero(np.array(row) > middle):
            rows.append(
                (f"{index}.wav", f"{0.5 * k + rng.uniform(0, 0.2)}", f"{0.5 * k + 0.5}", "Dog")
            )
    (cwd / "strong.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    flags = ["-m", folder / "model", "-c", "0.5", "--clips", folder / "table.csv"]
    flags += ["--strong=strong.tsv", "--noplots", "--nocost", "--workdir=out"]
    code, out, err = evaluate(*flags, "--save_rules=rules.toml")
    assert code == 0 and "event F1" in out
    [default] = read_results(cwd / "out")
    assert "rules.toml" in err[-1]
    assert evaluate(*flags, "--rules=rules.toml")[0] == 0
    [tuned] = read_results(cwd / "out")
    assert tuned["strong"]["event_F1"] > (default["strong"]["event_F1"] or 0.0)
    assert f"F1 {tuned['strong']['event_F1']:.3f}" in (cwd / "rules.toml").read_text()
    assert (tuned["strong"]["event_collar"], tuned["strong"]["event_classes"]) == (0.5, 1)
    [table] = (cwd / "out/per_class").iterdir()
    dog, *_ = read_csv(table)
    assert int(dog["events"]) == len(rows) - 1 and float(dog["event_f1"]) > 0

    rule = read_rules("rules.toml").named()
    flags = ["-m", folder / "model", "-c", "0.5", "--rules=rules.toml", "--only=Dog"]
    capsys.readouterr()
    assert run_command("tag", *flags, "--format=events-csv", folder / "0.wav") == 0
    told = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = find_events(
        np.array(scores[0]),
        np.array([0.0, *(c.end for c in tagger.tag_file(folder / "0.wav"))]),
        Rule(**rule.rule, **rule.by_name["Dog"]),
    )
    assert [(float(e["start"]), float(e["end"])) for e in told] == [
        (e.start, e.end) for e in expected
    ]


def test_clips_that_cannot_be_read_are_reported_and_counted(folder, cwd):
    rows = [(row["file"], row["labels"]) for row in read_csv(folder / "table.csv")]
    write_table(cwd / "table.csv", [*rows, ("lost.wav", "Dog")])
    flags = ["--mode=clip", "--noplots", "--clips=table.csv", "--folder", folder, "--workdir=out"]
    code, out, [line] = evaluate("-m", folder / "model", *flags)
    # The results are there, but not of all clips.
    assert code == 1
    assert line.startswith(f"sat-jax evaluate: {folder / 'lost.wav'}")
    assert f"| {NUM_CLIPS} of {NUM_CLIPS + 1} " in out
    [row] = read_csv(cwd / "out/missing_clips.csv")
    assert row["clip"] == "lost.wav"


def test_parts_of_a_recording_are_clips(folder, cwd):
    rng = np.random.default_rng(1)
    parts = [0.1 * rng.standard_normal(RATE).astype(np.float32) * k for k in (1, 2, 3)]
    soundfile.write(cwd / "all.wav", np.concatenate(parts), RATE, subtype="FLOAT")
    rows = ["all.wav,Dog,,1", "all.wav,Rain,1,2", "all.wav,Cat,2,"]
    (cwd / "parts.csv").write_text("\n".join(["file,labels,start,end", *rows]) + "\n")
    flags = ["--clips=parts.csv", "--workdir=out", "--noplots", "--nocost"]
    code, _, err = evaluate("-m", folder / "model", "-c", "0.5", *flags)
    assert (code, err) == (0, [])
    tagger = Tagger(load_checkpoint(folder / "model"), chunk_seconds=0.5)
    scores = np.stack([np.mean([c.probs for c in tagger.stream([p])], axis=0) for p in parts])
    [result] = read_results(cwd / "out")
    assert result["mAP"] == pytest.approx(
        sklearn.metrics.average_precision_score(np.eye(3), scores[:, [0, 2, 3]]), rel=1e-9
    )


CLIPS = ("--clips", "a.csv", "--workdir", "out")


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([], 2, ["--clips", "--hdf5_tsv", "--tfds"]),
        (["--clips", "a.csv"], 2, ["--workdir"]),
        ([*CLIPS, "--mode", "slide"], 2, ["--mode=slide", "stream, chunks, sliding, clip"]),
        ([*CLIPS, "--mode", "clip,slide"], 2, ["--mode=slide"]),
        ([*CLIPS, "--mode", ""], 2, ["--mode"]),
        ([*CLIPS, "-c", "2,0.1"], 2, ["--chunk=0.1", "0.16", "3600"]),
        ([*CLIPS, "-c", "two"], 2, ["--chunk=two"]),
        ([*CLIPS, "-c", "100000"], 2, ["--chunk=100000"]),
        ([*CLIPS, "-c", "nan"], 2, ["--chunk=nan"]),
        ([*CLIPS, "-c", "\u0661"], 2, ["--chunk=\u0661"]),
        ([*CLIPS, "-c", "1_0"], 2, ["--chunk=1_0"]),
        ([*CLIPS, "-c", "1,,2"], 2, ["--chunk="]),
        ([*CLIPS, "-c", ""], 2, ["--chunk"]),
        ([*CLIPS, "-c", "1e0", "--mode=sliding", "--buffer=1e9"], 2, ["buffer", "3600"]),
        ([*CLIPS, "--mode=sliding", "-c", "11"], 2, ["--chunk=11", "--buffer=10"]),
        ([*CLIPS, "--save_thresholds=f2"], 2, ["--save_thresholds=f2"]),
        ([*CLIPS, "--save_thresholds=precision=1.5"], 2, ["precision=1.5"]),
        ([*CLIPS, "--save_thresholds=f1", "-c", "1,2"], 2, ["--save_thresholds", "--chunk"]),
        ([*CLIPS, "--rules=a.toml"], 2, ["--rules", "--strong"]),
        ([*CLIPS, "--save_rules=a.toml"], 2, ["--save_rules", "--strong"]),
        ([*CLIPS, "--save_rules=a", "--strong=a", "-m", "b", "-m", "c"], 2, ["--save_rules"]),
        ([*CLIPS, "--save_rules=a", "--strong=a", "-c", "1,2"], 2, ["--save_rules", "--chunk"]),
        ([*CLIPS, "--plot_clip=a", "--noplots"], 2, ["--plot_clip=a"]),
        ([*CLIPS, "a.wav"], 2, ["a.wav"]),
        ([*CLIPS, "-m", "none"], 1, ["none"]),
        ([*CLIPS, "--mode=chunks,stream", "--framing=seamless"], 2, ["--framing=seamless"]),
        ([*CLIPS, "--buffer=10"], 2, ["--buffer", "--mode=stream"]),
        ([*CLIPS, "--mode=chunks,clip", "--warmup=none"], 2, ["--warmup"]),
        ([*CLIPS, "--mode=clip", "--framing=chunk"], 2, ["--framing"]),
        ([*CLIPS, "--mode=clip", "-c", "2"], 2, ["--chunk", "--mode=clip"]),
        ([*CLIPS, "--mode=clip", "--strong=a"], 2, ["--strong"]),
        ([*CLIPS, "--mode=clip", "--threshold=.5"], 2, ["--threshold"]),
        ([*CLIPS, "--data_dir=a"], 2, ["--data_dir", "--tfds"]),
        (["--hdf5_tsv=a", "--columns=a,b"], 2, ["--columns", "--hdf5_tsv"]),
        (["--tfds=a:b", "--folder=a"], 2, ["--folder", "--tfds"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line(cwd, arguments, code, named):
    found, out, [line] = evaluate(*arguments)
    assert line.startswith("sat-jax evaluate: ")
    assert all(part in line for part in named), line
    assert (found, out) == (code, "")
    assert {path.name for path in cwd.iterdir()} <= {"out"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--plot_clip=lost.wav"], ["lost.wav", "0.wav"]),
        (["-m", "none"], ["none"]),
        (["--workdir=taken"], ["taken/metrics.json"]),
        (["--workdir=filled"], ["filled/plots"]),
        (["--save_thresholds=f1"], ["model/thresholds.json"]),
    ],
)
def test_problems_are_found_before_a_clip_is_scored(folder, cwd, arguments, named):
    (cwd / "taken/metrics.json").mkdir(parents=True)
    (cwd / "filled").mkdir()
    (cwd / "filled/plots").touch()
    shutil.copytree(folder / "model", cwd / "model")
    (cwd / "model/thresholds.json").mkdir()
    flags = ["-m", "model", "--mode=clip", "--clips", folder / "table.csv", "--nocost"]
    code, _, [line] = evaluate(*flags, "--workdir=out", *arguments)
    assert code == 1 and all(part in line for part in named), line
    assert not list(cwd.rglob("*.npy"))
