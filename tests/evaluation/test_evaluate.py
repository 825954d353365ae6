"""evaluate.py end to end on a tiny model: what it writes, says and refuses."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.metrics
import soundfile

from sat_jax.audio import read_blocks
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.transformer import init_variables
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.thresholds_file import load_thresholds

ROOT = Path(__file__).parents[2]
RATE = 16_000
LABELS = ("Dog", "Bark, woof", "Rain", "Cat", "nobody", "everybody")
NUM_CLIPS = 12
pytestmark = pytest.mark.xdist_group("evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, clips and their tables: table.csv, strong.tsv."""
    folder, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    config = ModelConfig(
        width=64, depth=1, target_length=32, cache_length=32, num_classes=len(LABELS)
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    # Fresh weights hardly tell clips apart; larger ones do.
    variables["params"] = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    checkpoint = Checkpoint(config=config, variables=variables, labels=LABELS, source="a test")
    save_checkpoint(folder / "model", checkpoint)
    rows, events = [], [("filename", "onset", "offset", "event_label")]
    for index in range(NUM_CLIPS):
        time = np.arange(RATE * (12 + index % 3) // 8) / RATE  # Some end within a chunk.
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 6000) * time * (1 + time))
        sound += rng.uniform(0, 0.3) * rng.standard_normal(len(time))
        name = f"{index}.wav"
        soundfile.write(folder / name, sound.clip(-1, 1).astype(np.float32), RATE)
        labels = [LABELS[label] for label in range(4) if index < 2 or rng.random() < 0.4]
        rows.append((name, ";".join([*labels, "everybody"])))
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


def program(*arguments, cwd, name="evaluate.py"):
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / name, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def targets(folder):
    rows = [row["labels"].split(";") for row in read_csv(folder / "table.csv")]
    return np.array([[label in row for label in LABELS] for row in rows])


def stream_scores(folder, *, warmup, seconds=0.5):
    """float32 [n, y], the mean of each clip's chunks; ends under a patch are left out."""
    tagger = Tagger(load_checkpoint(folder / "model"), chunk_seconds=seconds)
    scores = []
    for index in range(NUM_CLIPS):
        sound = np.concatenate(list(read_blocks(folder / f"{index}.wav", sample_rate=RATE)))
        scrap = len(sound) % tagger.framing.hop
        sound = sound[: len(sound) - scrap] if scrap < 2560 else sound
        chunks = tagger.stream([sound], warmup=warmup)
        scores.append(np.mean([chunk.probs for chunk in chunks], axis=0, dtype=np.float64))
    return np.stack(scores).astype(np.float32)


@pytest.fixture(scope="module")
def done(folder):
    """A run with all there is, and what it printed."""
    return program(
        *("-m", "model", "-c", "0.5,0.2", "--mode=stream,chunks,sliding,clip", "--buffer=1"),
        *("--clips=table.csv", "--strong=strong.tsv", "--workdir=out", "--warmup=none"),
        cwd=folder,
    )


def test_each_mode_at_each_delay(folder, done):
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "out/metrics.json").read_text())
    ways = [(each["mode"], each["delay"]) for each in results]
    expected = [(mode, delay) for mode in ("stream", "chunks", "sliding") for delay in (0.5, 0.2)]
    assert ways == [*expected, ("clip", None)]
    assert [each["buffer"] for each in results] == [None] * 4 + [1.0] * 2 + [None]
    assert [each["warmup"] for each in results] == ["none"] * 2 + [None] * 5
    # Each way of hearing gives scores of its own.
    scores = {path.read_bytes() for path in (folder / "out/scores").glob("*/scores.f32")}
    assert len(scores) == len(results)
    [line] = done.stderr.splitlines()
    assert "1 events are of 1 classes that the model lacks, such as Unicorn: left out" in line


def test_numbers_are_scikit_learns(folder, done):
    result = json.loads((folder / "out/metrics.json").read_text())[0]
    truth, scores = targets(folder), stream_scores(folder, warmup="none")
    some, both = truth.any(0), truth.any(0) & ~truth.all(0)
    expected = {
        "mAP": sklearn.metrics.average_precision_score(truth[:, some], scores[:, some]),
        "mAUC": sklearn.metrics.roc_auc_score(truth[:, both], scores[:, both]),
    }
    for name, number in expected.items():
        assert result[name] == pytest.approx(number, rel=1e-9), name
    assert result["clips_scored"] == NUM_CLIPS
    rows = read_csv(folder / "out/per_class/model_0.5_s_stream_no_warm-up.csv")
    assert [row["label"] for row in rows] == list(LABELS)
    assert [int(row["positives"]) for row in rows] == truth.sum(0).tolist()
    for index, row in enumerate(rows):
        if LABELS[index] == "nobody":
            assert (row["average_precision"], row["roc_auc"]) == ("", "")
        else:
            assert float(row["average_precision"]) == pytest.approx(
                sklearn.metrics.average_precision_score(truth[:, index], scores[:, index])
            )
            assert (row["roc_auc"] == "") == (LABELS[index] == "everybody")
    assert read_csv(folder / "out/missing_clips.csv") == []


def test_tables_are_printed_and_kept(folder, done):
    assert done.stdout == (folder / "out/table.md").read_text()
    measures, published = done.stdout.split("\n\n")
    for table in (measures, published):
        assert len({len(line) for line in table.splitlines()}) == 1
    head, _, first, *rest = ([c.strip() for c in r.split("|")] for r in measures.splitlines())
    result = json.loads((folder / "out/metrics.json").read_text())[0]
    cells = dict(zip(head, first, strict=True))
    assert cells["mAP"] == f"{100 * result['mAP']:.2f} %"
    assert (cells["mode"], cells["delay"]) == ("stream, no warm-up", "0.5 s")
    assert len(rest) == 6
    lines = [[c.strip() for c in r.split("|")] for r in published.splitlines()]
    assert lines[0][2:-1] == ["Model", "Streamable?", "#Token", "PeakMem", "GFlops", "mAP"]
    # 32 frames are two patches of time, each four of frequency; so is the cache. A buffer of 1 s
    # is three such pieces.
    streamed, alone, slid = lines[2:5]
    assert (streamed[1], streamed[2]) == ("0.5 s delay", "model (stream)")
    assert (streamed[3:5], alone[3:5], slid[3:5]) == (["Y", "8/8"], ["", "8"], ["", "24"])


def test_pictures_are_drawn(folder, done):
    pictures = {path.name for path in (folder / "out/plots").iterdir()}
    assert {"map_by_delay.png", "clip_scores.png", "class_ap_model_clip.png"} <= pictures
    assert len(pictures) == 2 + 7
    for name in pictures:
        assert (folder / "out/plots" / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_scores_nothing_again(folder, done):
    shutil.copytree(folder / "out/scores", folder / "again/scores")
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "again").rglob("*.f32")}
    again = program(
        *("-m", "model", "-c", "0.5,0.2", "--mode=stream,chunks,sliding,clip", "--buffer=1"),
        *("--clips=table.csv", "--strong=strong.tsv", "--workdir=again", "--warmup=none"),
        *("--noplots", "--nocost", "--aggregate=max"),
        cwd=folder,
    )
    assert again.returncode == 0, again.stderr
    # Another aggregation needs no other answers, but for clip mode, whose pieces it joins.
    kept = {path: path.stat().st_mtime_ns for path in stamps}
    assert kept == stamps
    assert len(list((folder / "again/scores").iterdir())) == len(stamps) + 1
    results = json.loads((folder / "again/metrics.json").read_text())
    assert [each["clips_per_second"] is None for each in results] == [True] * 6 + [False]
    assert not (folder / "again/plots").exists()
    assert "GFlops" not in again.stdout


@pytest.mark.slow
def test_scores_are_of_the_recordings_that_are_there_now(folder, tmp_path):
    where = ["--workdir", tmp_path / "out", "--noplots", "--nocost", "--clips=table.csv"]
    told, steady = {}, {}
    for step in ("first", "second", "replaced"):
        here = tmp_path / ("second" if step == "replaced" else step)
        here.mkdir(exist_ok=True)
        for index in range(3):  # The same names in both folders, and other sounds.
            source = {"first": index, "second": 2 - index, "replaced": index}[step]
            shutil.copyfile(folder / f"{source}.wav", here / f"{index}.wav")
        write_table(here / "table.csv", [("0.wav", "Dog"), ("1.wav", "Cat"), ("2.wav", "Rain")])
        done = program("-m", folder / "model", "-c", "0.5", *where, cwd=here)
        assert done.returncode == 0, done.stderr
        told[step] = done.stderr.splitlines()
        steady[step] = json.loads((tmp_path / "out/metrics.json").read_text())[0]["stability"]
    assert (told["first"], told["second"]) == ([], [])
    assert steady["first"] != steady["second"]
    [line] = told["replaced"]
    assert "3 clips have changed since and are scored again" in line
    assert steady["replaced"] == pytest.approx(steady["first"])


def test_thresholds_reach_infer(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    where = ["--clips", folder / "table.csv", "--workdir", "out", "--noplots", "--nocost"]
    flags = ["-c", "0.5", "--warmup=none", "--save_thresholds=f1"]
    done = program("-m", "model", *flags, *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkpoint = load_checkpoint(tmp_path / "model")
    values = load_thresholds(tmp_path / "model", checkpoint)
    truth, scores = targets(folder), stream_scores(folder, warmup="none")
    for index in np.flatnonzero(truth.any(0)):
        every = [0.0, *np.unique(scores[:, index])]
        best = max(
            sklearn.metrics.f1_score(truth[:, index], scores[:, index] >= each) for each in every
        )
        chosen = scores[:, index] >= values[index]
        assert sklearn.metrics.f1_score(truth[:, index], chosen) == pytest.approx(best)

    strict = program(
        "-m", "model", *flags[:2], "--save_thresholds=precision=1", *where, cwd=tmp_path
    )
    assert strict.returncode == 0, strict.stderr
    values = load_thresholds(tmp_path / "model", checkpoint)
    sound = folder / "0.wav"
    tags = program(
        *("-m", "model", "-c", "0.5", "-k", "9", "--threshold=auto", "--format=jsonl", sound),
        cwd=tmp_path,
        name="infer.py",
    )
    assert tags.returncode == 0, tags.stderr
    tagger = Tagger(checkpoint, chunk_seconds=0.5)
    chunks = list(tagger.tag_file(sound))
    lines = [json.loads(line) for line in tags.stdout.splitlines()]
    for line, chunk in zip(lines, chunks, strict=True):
        shown = {tag["label"] for tag in line["tags"]}
        assert shown == {LABELS[index] for index in np.flatnonzero(chunk.probs >= values)}
    assert any(len(line["tags"]) < len(LABELS) for line in lines)

    other = jax.tree.map(lambda leaf: 1.1 * leaf, checkpoint.variables)
    with pytest.raises(SatError, match="was made for other weights"):
        load_thresholds(
            tmp_path / "model",
            Checkpoint(config=checkpoint.config, variables=other, labels=LABELS),
        )
    (tmp_path / "model/thresholds.json").write_text("{")
    tags = program("-m", "model", "--threshold=auto", sound, cwd=tmp_path, name="infer.py")
    [line] = tags.stderr.splitlines()
    assert (tags.returncode, "is damaged" in line) == (1, True)


def test_missing_clips_are_told_and_counted(folder, tmp_path):
    rows = [(row["file"], row["labels"]) for row in read_csv(folder / "table.csv")]
    write_table(tmp_path / "table.csv", [*rows, ("lost.wav", "Dog")])
    done = program(
        *("-m", folder / "model", "--mode=clip", "--noplots", "--clips=table.csv"),
        *("--folder", folder, "--workdir=out"),
        cwd=tmp_path,
    )
    # The numbers are there, and the exit code says that they are not of all clips.
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"evaluate.py: {folder / 'lost.wav'}")
    assert f"| {NUM_CLIPS} of {NUM_CLIPS + 1} " in done.stdout
    [row] = read_csv(tmp_path / "out/missing_clips.csv")
    assert row["clip"] == "lost.wav"


def test_parts_of_a_recording_are_clips_of_their_own(folder, tmp_path):
    rng = np.random.default_rng(1)
    parts = [0.1 * rng.standard_normal(RATE).astype(np.float32) * k for k in (1, 2, 3)]
    soundfile.write(tmp_path / "all.wav", np.concatenate(parts), RATE, subtype="FLOAT")
    rows = ["all.wav,Dog,,1", "all.wav,Rain,1,2", "all.wav,Cat,2,"]
    (tmp_path / "parts.csv").write_text("\n".join(["file,labels,start,end", *rows]) + "\n")
    where = ["--clips=parts.csv", "--workdir=out", "--noplots", "--nocost"]
    done = program("-m", folder / "model", "-c", "0.5", *where, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    [written] = json.loads((tmp_path / "out/metrics.json").read_text())
    tagger = Tagger(load_checkpoint(folder / "model"), chunk_seconds=0.5)
    scores = np.stack([np.mean([c.probs for c in tagger.stream([p])], axis=0) for p in parts])
    truth = np.zeros((3, 6), bool)
    truth[[0, 1, 2], [0, 2, 3]] = True
    heard = [0, 2, 3]
    assert written["mAP"] == pytest.approx(
        sklearn.metrics.average_precision_score(truth[:, heard], scores[:, heard]), rel=1e-9
    )


CLIPS = ("--clips", "a.csv", "--workdir", "out")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give one of --clips, --hdf5_tsv and --tfds"),
        (["--clips", "a.csv"], 2, "--workdir is needed"),
        ([*CLIPS, "--mode", "slide"], 2, "--mode=slide is none of stream, chunks, sliding, clip"),
        ([*CLIPS, "--mode", "clip,slide"], 2, "--mode=slide"),
        ([*CLIPS, "-c", "2,0.1"], 2, "--chunk=0.1 is not a number of seconds from 0.16 to 3600"),
        ([*CLIPS, "-c", "two"], 2, "--chunk=two"),
        ([*CLIPS, "--save_thresholds=f2"], 2, "neither f1 nor precision=P"),
        ([*CLIPS, "--save_thresholds=precision=1.5"], 2, "neither f1 nor precision=P"),
        ([*CLIPS, "--save_thresholds=f1", "-c", "1,2"], 2, "needs one --mode and one --chunk"),
        ([*CLIPS, "--plot_clip=a", "--noplots"], 2, "drawn only with --plots"),
        ([*CLIPS, "a.wav"], 2, "a.wav is no flag"),
        ([*CLIPS, "-m", "none"], 1, "none is no file"),
        ([*CLIPS, "--mode=chunks,stream", "--framing=seamless"], 2, "--framing=seamless is for"),
        ([*CLIPS, "--mode=sliding", "-c", "11"], 2, "a longer --buffer or a shorter delay"),
        ([*CLIPS, "-c", "100000"], 2, "--chunk=100000 is not a number of seconds from 0.16 to 3"),
        ([*CLIPS, "-c", "nan"], 2, "--chunk=nan"),
        ([*CLIPS, "-c", "\u0661"], 2, "--chunk=\u0661"),
        ([*CLIPS, "-c", "1_0"], 2, "--chunk=1_0"),
        ([*CLIPS, "-c", "1,,2"], 2, "--chunk= is not a number"),
        ([*CLIPS, "-c", ""], 2, "--chunk is empty"),
        ([*CLIPS, "-c", "1e0", "--mode=sliding", "--buffer=1e9"], 2, "3600"),
        ([*CLIPS, "--buffer=10"], 2, "--buffer has no meaning with --mode=stream"),
        ([*CLIPS, "--mode=chunks,clip", "--warmup=none"], 2, "--warmup has no meaning with --mode"),
        ([*CLIPS, "--mode=clip", "--framing=chunk"], 2, "--framing has no meaning with --mode"),
        ([*CLIPS, "--mode=clip", "-c", "2"], 2, "--chunk has no meaning with --mode=clip"),
        ([*CLIPS, "--mode=clip", "--strong=a"], 2, "--strong has no meaning with --mode=clip"),
        ([*CLIPS, "--mode=clip", "--threshold=.5"], 2, "--threshold has no meaning with --mode"),
        ([*CLIPS, "--data_dir=a"], 2, "--data_dir has no meaning with --clips, only with --tfds"),
        (["--hdf5_tsv=a", "--columns=a,b"], 2, "--columns has no meaning with --hdf5_tsv, only"),
        (["--tfds=a:b", "--folder=a"], 2, "--folder has no meaning with --tfds"),
    ],
)
def test_program_refuses_with_one_line(tmp_path, arguments, code, message):
    done = program(*arguments, cwd=tmp_path)
    [line] = done.stderr.splitlines()
    assert line.startswith("evaluate.py: ")
    assert message in line
    assert (done.returncode, done.stdout) == (code, "")
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot_clip=nobody.wav"], "no clip is called nobody.wav, the first one is 0.wav"),
        (["-m", "none"], "none is no file"),
        (["--workdir=taken"], "cannot write taken/metrics.json: it is a folder"),
        (["--workdir=filled"], "cannot write filled/plots"),
        (["--save_thresholds=f1"], "thresholds.json: it is a folder"),
    ],
)
def test_what_is_wrong_is_told_before_a_clip_is_scored(folder, tmp_path, arguments, message):
    (tmp_path / "taken/metrics.json").mkdir(parents=True)
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled/plots").touch()
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model/thresholds.json").mkdir()
    done = program(
        *("-m", "model", "--mode=clip", "--clips", folder / "table.csv", "--nocost"),
        *("--workdir=out", *arguments),
        cwd=tmp_path,
    )
    [line] = done.stderr.splitlines()
    assert (done.returncode, message in line) == (1, True), line
    assert not list(tmp_path.rglob("*.f32"))
