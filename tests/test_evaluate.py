"""evaluate.py end to end on a tiny model, its numbers recomputed from the tagger's own scores."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.metrics
import soundfile

from sat_jax.audio import read_blocks
from sat_jax.checkpoint import Checkpoint, save_checkpoint
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.evaluation import EvaluationOptions, check_options, evaluate, score_clip
from sat_jax.models.transformer import init_variables
from sat_jax.report.evaluation import markdown_table, save_evaluation
from sat_jax.tagger import Tagger

ROOT = Path(__file__).parent.parent
RATE = 16_000
LABELS = ("Dog", "Bark, woof", "Rain", "Cat", "nobody", "everybody")
NUM_CLIPS = 14


@pytest.fixture(scope="module")
def checkpoint():
    config = ModelConfig(
        width=64, depth=1, target_length=32, cache_length=32, num_classes=len(LABELS)
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    # Fresh weights hardly tell clips apart; larger ones do.
    variables["params"] = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    return Checkpoint(config=config, variables=variables, labels=LABELS, source="a test")


@pytest.fixture(scope="module")
def tagger(checkpoint):
    return Tagger(checkpoint, chunk_seconds=0.5)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of noises and tones, their paths and their labels."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    paths, labels = [], []
    for index in range(NUM_CLIPS):
        time = np.arange(RATE * (12 + index % 3) // 8) / RATE  # Some end within a chunk.
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 6000) * time * (1 + time))
        sound += rng.uniform(0, 0.3) * rng.standard_normal(len(time))
        paths.append(folder / f"{index}.wav")
        soundfile.write(paths[-1], sound.clip(-1, 1).astype(np.float32), RATE, subtype="PCM_16")
        some = [label for label in range(4) if rng.random() < 0.4]
        labels.append((*some, LABELS.index("everybody")))
    labels[0], labels[1] = (0, 2, 5), (1, 3, 5)
    return folder, paths, labels


def write_table(path, names, labels):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "labels"])
        writer.writerows(
            [name, ";".join(LABELS[label] for label in each)]
            for name, each in zip(names, labels, strict=True)
        )
    return path


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(tagger, paths, labels, **options):
    problems = []
    result = evaluate(
        tagger,
        [str(path) for path in paths],
        labels,
        lambda index: sound_of(paths[index]),
        name="tiny",
        options=EvaluationOptions(**options),
        report=lambda error: problems.append(str(error)),
    )
    return result, problems


def sound_of(path):
    return np.concatenate(list(read_blocks(path, sample_rate=RATE)))


def cut(path, samples):
    sound = soundfile.read(path, dtype="float32")[0]
    return [sound[start : start + samples] for start in range(0, len(sound), samples)]


def chunk_scores(tagger, path, mode, warmup):
    """float32 [k, y] of a clip's chunks, without `sat_jax.evaluation`."""
    if mode == "chunks":  # Clip mode on a chunk knows nothing of what came before either.
        chunks = [c for part in cut(path, tagger.framing.hop) for c in tagger.clip([part])]
    else:
        chunks = list(tagger.tag_file(path, mode=mode, warmup=warmup))
    return np.stack([chunk.probs for chunk in chunks])


REDUCE = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "last": lambda x: x[-1]}


def expected_metrics(targets, scores):
    """The measures by scikit-learn, on the classes that have them."""
    some, both = targets.any(0), targets.any(0) & ~targets.all(0)
    return {
        "mAP": sklearn.metrics.average_precision_score(targets[:, some], scores[:, some]),
        "mAUC": sklearn.metrics.roc_auc_score(targets[:, both], scores[:, both]),
        "lwlrap": sklearn.metrics.label_ranking_average_precision_score(
            targets, scores, sample_weight=targets.sum(1)
        ),
    }


def one_hot(labels):
    return np.array([[index in each for index in range(len(LABELS))] for each in labels])


# --- scores


@pytest.mark.parametrize("aggregation", ["mean", "max", "last"])
@pytest.mark.parametrize(
    ("mode", "warmup"), [("stream", "silence"), ("stream", "none"), ("chunks", "none")]
)
def test_a_clips_score_comes_from_those_of_its_chunks(tagger, clips, mode, warmup, aggregation):
    options = EvaluationOptions(mode=mode, aggregation=aggregation, warmup=warmup)
    for path in clips[1][:3]:
        each = chunk_scores(tagger, path, mode, warmup)
        assert len(each) > 2
        np.testing.assert_allclose(
            score_clip(tagger, sound_of(path), options), REDUCE[aggregation](each), rtol=2e-5
        )


@pytest.mark.parametrize("aggregation", ["mean", "max", "last"])
def test_clip_mode_is_the_taggers(tagger, clips, aggregation):
    options = EvaluationOptions(mode="clip", aggregation=aggregation)
    [answer] = tagger.tag_file(clips[1][0], mode="clip", aggregation=aggregation)
    np.testing.assert_array_equal(score_clip(tagger, sound_of(clips[1][0]), options), answer.probs)


def test_modes_differ(tagger, clips):
    scores = [
        score_clip(tagger, sound_of(clips[1][0]), EvaluationOptions(mode=mode, warmup=warmup))
        for mode, warmup in [("stream", "silence"), ("stream", "none"), ("chunks", "silence")]
    ]
    scores.append(score_clip(tagger, sound_of(clips[1][0]), EvaluationOptions(mode="clip")))
    for i in range(4):
        for j in range(i):
            assert np.abs(scores[i] - scores[j]).max() > 1e-4


# --- what is written


@pytest.mark.parametrize("mode", ["stream", "chunks", "clip"])
def test_numbers_equal_scikit_learns(tagger, clips, tmp_path, mode):
    _, paths, labels = clips
    result, problems = run(tagger, paths, labels, mode=mode)
    save_evaluation(tmp_path, result)
    written = json.loads((tmp_path / "metrics.json").read_text())
    scores = np.stack([chunk_scores(tagger, path, mode, "silence").mean(0) for path in paths])
    targets = one_hot(labels)
    for name, number in expected_metrics(targets, scores).items():
        assert written[name] == pytest.approx(number, rel=1e-9), name
    assert 0.0 < written["mAP"] < 1.0
    assert (written["clips_scored"], written["clips_missing"]) == (NUM_CLIPS, 0)
    assert (written["classes_without_positives"], written["classes_without_negatives"]) == (1, 1)
    assert (written["model"], written["weights"], written["mode"]) == ("tiny", "a test", mode)
    assert written["delay"] == (None if mode == "clip" else tagger.framing.hop / RATE)
    assert written["warmup"] == ("silence" if mode == "stream" else None)
    assert not problems

    rows = read_csv(tmp_path / "per_class.csv")
    assert [row["label"] for row in rows] == list(LABELS)
    assert [int(row["positives"]) for row in rows] == targets.sum(0).tolist()
    for index, row in enumerate(rows):
        if LABELS[index] == "nobody":
            assert (row["average_precision"], row["roc_auc"]) == ("", "")
            continue
        assert float(row["average_precision"]) == pytest.approx(
            sklearn.metrics.average_precision_score(targets[:, index], scores[:, index])
        )
        assert (row["roc_auc"] == "") == (LABELS[index] == "everybody")
    assert read_csv(tmp_path / "missing_clips.csv") == []
    assert not list(tmp_path.glob(".sat-jax-*"))


def test_clips_that_cannot_be_read_are_left_out_and_told(tagger, clips, tmp_path):
    _, paths, labels = clips
    empty, cut_short, lost = (tmp_path / name for name in ("empty.wav", "cut.wav", "lost.wav"))
    empty.touch()
    cut_short.write_bytes(paths[0].read_bytes()[:9000])
    damaged = [empty, *paths[:5], cut_short, *paths[5:], lost]
    result, problems = run(
        tagger, damaged, [(4,), *labels[:5], (4,), *labels[5:], (4,)], mode="clip"
    )
    whole, _ = run(tagger, paths, labels, mode="clip")
    missing = {"clips_missing": 3}
    assert result.to_dict() == whole.to_dict() | missing
    assert [clip.clip for clip in result.missing] == [str(empty), str(cut_short), str(lost)]
    assert [clip.reason for clip in result.missing] == problems
    save_evaluation(tmp_path, result)
    assert [row["clip"] for row in read_csv(tmp_path / "missing_clips.csv")] == [
        str(empty),
        str(cut_short),
        str(lost),
    ]
    assert f"| {NUM_CLIPS} of {NUM_CLIPS + 3} " in markdown_table(result)


def test_the_order_of_clips_does_not_matter(tagger, clips):
    _, paths, labels = clips
    one, _ = run(tagger, paths, labels, mode="clip")
    other, _ = run(tagger, paths[::-1], labels[::-1], mode="clip")
    for name in ("mAP", "mAUC", "dprime", "lwlrap"):
        assert other.to_dict()[name] == pytest.approx(one.to_dict()[name], rel=1e-12)


def test_markdown_table_has_one_width(tagger, clips):
    _, paths, labels = clips
    result, _ = run(tagger, paths[:3], labels[:3], mode="clip")
    head, line, row = markdown_table(result).splitlines()
    assert len(head) == len(line) == len(row)
    assert set(line) == set("|- ")
    cells = dict(zip(*([c.strip() for c in r.split("|")] for r in (head, row)), strict=True))
    assert cells["mAP"] == f"{100 * result.metrics.mean_average_precision:.2f} %"
    assert (cells["model"], cells["delay"]) == ("tiny", "")


# --- what is refused


def test_nothing_can_be_scored(tagger, tmp_path):
    with pytest.raises(SatError, match="none of the 1 clips could be scored"):
        run(tagger, [tmp_path / "lost.wav"], [(0,)])


@pytest.mark.parametrize("label", [-1, len(LABELS)])
def test_labels_of_another_model(tagger, clips, label):
    with pytest.raises(SatError, match=f"label {label} is none of the model's classes 0 to 5"):
        run(tagger, clips[1][:1], [(label,)])


def test_seamless_framing_of_single_chunks():
    with pytest.raises(SatError, match="framing=chunk"):
        check_options(EvaluationOptions(mode="chunks"), "seamless")


def test_damaged_weights_end_the_run(checkpoint, clips):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), checkpoint.variables)
    tagger = Tagger(
        Checkpoint(config=checkpoint.config, variables=broken, labels=LABELS),
        chunk_seconds=0.5,
    )
    with pytest.raises(SatError, match=r"0\.wav gets scores that are not finite"):
        run(tagger, clips[1], clips[2])


# --- the program


def program(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / "evaluate.py", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_program(checkpoint, tagger, clips, tmp_path):
    folder, paths, labels = clips
    save_checkpoint(tmp_path / "model", checkpoint)
    names = [*(path.name for path in paths), "lost.wav"]
    write_table(tmp_path / "table.csv", names, [*labels, (4,)])
    flags = ["--mode", "stream", "--aggregate", "max", "--warmup", "none", "-c", "0.5"]
    where = ["--clips", "table.csv", "--folder", folder, "--workdir", "out/1"]
    done = program("-m", "model", *flags, *where, cwd=tmp_path)

    # A clip is missing: the numbers are there, and the exit code says so.
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"evaluate.py: {folder / 'lost.wav'}")
    assert "| model" in done.stdout
    assert f"| {NUM_CLIPS} of {NUM_CLIPS + 1} " in done.stdout
    written = json.loads((tmp_path / "out/1/metrics.json").read_text())
    scores = [chunk_scores(tagger, path, "stream", "none").max(0) for path in paths]
    for name, number in expected_metrics(one_hot(labels), np.stack(scores)).items():
        assert written[name] == pytest.approx(number, rel=1e-9), name
    assert (written["delay"], written["warmup"]) == (0.5, "none")
    assert len(read_csv(tmp_path / "out/1/missing_clips.csv")) == 1


def test_parts_of_a_recording_are_clips_of_their_own(checkpoint, tagger, tmp_path):
    save_checkpoint(tmp_path / "model", checkpoint)
    rng = np.random.default_rng(1)
    parts = [0.1 * rng.standard_normal(RATE).astype(np.float32) * k for k in (1, 2, 3)]
    soundfile.write(tmp_path / "all.wav", np.concatenate(parts), RATE, subtype="FLOAT")
    rows = ["all.wav,Dog,,1", "all.wav,Rain,1,2", "all.wav,Cat,2,"]
    (tmp_path / "parts.csv").write_text("\n".join(["file,labels,start,end", *rows]) + "\n")
    done = program("-m", "model", "-c", "0.5", "--clips=parts.csv", "--workdir=out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    scores = np.stack([score_clip(tagger, part, EvaluationOptions()) for part in parts])
    for name, number in expected_metrics(one_hot([(0,), (2,), (3,)]), scores).items():
        assert written[name] == pytest.approx(number, rel=1e-6), name


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give one of --clips, --hdf5_tsv and --tfds"),
        (["--clips", "a.csv"], 2, "--workdir is needed"),
        (["--clips", "a.csv", "--workdir", "out", "--mode", "slide"], 2, "slide"),
        (["--clips", "a.csv", "--workdir", "out", "a.wav"], 2, "a.wav is no flag"),
        (["--clips", "a.csv", "--workdir", "out", "-m", "none"], 1, "none is no file"),
        (
            ["--clips", "a.csv", "--workdir", "out", "--mode=chunks", "--framing=seamless"],
            1,
            "framing=chunk",
        ),
    ],
)
def test_program_refuses_with_one_line(tmp_path, arguments, code, message):
    done = program(*arguments, cwd=tmp_path)
    [line] = done.stderr.splitlines()
    assert line.startswith("evaluate.py: ")
    assert message in line
    assert (done.returncode, done.stdout) == (code, "")
    assert not list(tmp_path.iterdir())
