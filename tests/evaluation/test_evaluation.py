"""Evaluations in every mode against plain loops over the tagger, scikit-learn and themselves."""

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.metrics

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.evaluation import pictures
from sat_jax.evaluation.clips import LabeledClips
from sat_jax.evaluation.hearing import Hearing, make_hearings
from sat_jax.evaluation.measures import evaluate
from sat_jax.evaluation.run import open_listener, score_with
from sat_jax.evaluation.scorer import make_scorer
from sat_jax.labels import Event
from sat_jax.models.transformer import init_variables
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint

RATE = 16_000
PATCH = 2_560
LABELS = ("Dog", "Bark, woof", "Rain", "Cat", "nobody", "everybody")
# Whole chunks of 0.5 s, a scrap behind them, most of a chunk behind them, less than a chunk, ….
LENGTHS = (16_000, 16_010, 22_000, 24_000, 5_000, 300, 8_000, 16_000, 31_000, 24_100)


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
def model(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(path, checkpoint)
    return str(path)


@functools.cache
def sounds():
    rng = np.random.default_rng(0)
    clips = []
    for length in LENGTHS:
        time = np.arange(length) / RATE
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 6000) * time * (1 + time))
        noise = rng.uniform(0, 0.3) * rng.standard_normal(length)
        clips.append((tone + noise).clip(-1, 1).astype(np.float32))
    return clips


def make_labels():
    rng = np.random.default_rng(1)
    labels = [[*np.flatnonzero(rng.random(4) < 0.4).tolist(), 5] for _ in LENGTHS]
    labels[0], labels[1] = [0, 2, 5], [1, 3, 5]
    return labels


def make_clips(order=None, events=None, missing=(), description=None, versions=None):
    order = list(range(len(LENGTHS)) if order is None else order)
    every = make_labels()

    def read(places):
        for place in places:
            if order[place] in missing:
                yield place, SatError(f"clip {order[place]} is gone")
            else:
                yield place, sounds()[order[place]]

    return LabeledClips(
        ids=[f"clip{index}" for index in order],
        labels=[every[index] for index in order],
        read=read,
        description=description or {"order": order},
        versions=np.zeros(len(order), np.int64) if versions is None else np.asarray(versions),
        events={} if events is None else {order.index(k): v for k, v in events.items()},
    )


def run_one(model, tmp_path, hearing, clips=None, *, batch_size=4, problems=None):
    told = [] if problems is None else problems
    listener = open_listener(
        model, [hearing], lambda tagger: make_clips() if clips is None else clips
    )
    [run] = score_with(
        listener,
        folder=tmp_path / "scores",
        batch_size=batch_size,
        report=lambda problem: told.append(str(problem)),
    )
    return run


def answers_by_hand(checkpoint, sound, hearing):
    """float32 [k, y], by a loop over one tagger, one chunk after the other."""
    tagger = Tagger(checkpoint, chunk_seconds=hearing.delay, framing=hearing.framing)
    hop = tagger.framing.hop
    if hearing.mode == "clip":
        chunks = tagger.clip([sound], aggregation=hearing.aggregation)
        return np.stack([chunk.probs for chunk in chunks])
    if hearing.framing == "chunk" and len(sound) > hop and len(sound) % hop < PATCH:
        sound = sound[: len(sound) - len(sound) % hop]
    if hearing.mode == "stream":
        chunks = tagger.stream([sound], warmup=hearing.warmup)
        return np.stack([chunk.probs for chunk in chunks])
    answers = []
    for end in [*range(hop, len(sound), hop), len(sound)]:
        heard = hop if hearing.mode == "chunks" else round(RATE * hearing.buffer)
        first = max(0, end - heard)
        if hearing.mode == "chunks":
            first = (end - 1) // hop * hop
        [chunk] = tagger.clip([sound[first:end]])
        answers.append(chunk.probs)
    return np.stack(answers)


HEARINGS = [
    Hearing(mode="stream", delay=0.5),
    Hearing(mode="stream", delay=0.2, warmup="none"),
    Hearing(mode="stream", framing="seamless"),
    Hearing(mode="chunks", delay=0.5),
    Hearing(mode="sliding", delay=0.5, buffer=1.0),
    Hearing(mode="clip"),
    Hearing(mode="clip", aggregation="last"),
]


@pytest.mark.parametrize("hearing", HEARINGS, ids=lambda hearing: hearing.title)
def test_answers_are_those_of_a_loop(checkpoint, hearing):
    score = make_scorer(checkpoint.config, checkpoint.variables, hearing, batch_size=3)
    for sound, answers in zip(sounds(), score(sounds()), strict=True):
        expected = answers_by_hand(checkpoint, sound, hearing)
        assert answers.shape == expected.shape
        np.testing.assert_allclose(answers, expected, atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("pad_last", [False, True])
def test_long_delays_take_no_more_memory(checkpoint, pad_last):
    config = dataclasses.replace(checkpoint.config, pad_last=pad_last)
    hearing = Hearing(mode="stream", delay=32.0, warmup="none")
    before = {id(array) for array in jax.live_arrays()}
    score = make_scorer(config, checkpoint.variables, hearing, batch_size=32)
    # 32 windows would be 64 MiB, as many of 12 s are 25 MB.
    assert sum(a.nbytes for a in jax.live_arrays() if id(a) not in before) < 35e6
    rng = np.random.default_rng(5)
    noise = (0.1 * rng.standard_normal(34 * RATE)).astype(np.float32)
    clips = [noise[:length] for length in (300, 5_119, 5_120, 5_121, 33 * RATE)]
    made = Tagger(dataclasses.replace(checkpoint, config=config), chunk_seconds=32.0)
    for sound, answers in zip(clips, score(clips), strict=True):
        expected = [chunk.probs for chunk in made.stream([sound], warmup="none")]
        assert len(answers) == len(expected) > 0
        np.testing.assert_allclose(answers, np.stack(expected), atol=3e-6)


def test_modes_differ(checkpoint):
    kinds = [HEARINGS[index] for index in (0, 3, 4, 5)]
    one = [
        make_scorer(checkpoint.config, checkpoint.variables, hearing, batch_size=1)(sounds()[3:4])
        for hearing in kinds
    ]
    for (a,), (b,) in itertools.combinations(one, 2):
        assert np.abs(a.mean(0) - b.mean(0)).max() > 1e-4


# --- measures


@pytest.mark.parametrize("aggregation", ["mean", "max", "last"])
def test_measures_are_scikit_learns(checkpoint, model, tmp_path, aggregation):
    hearing = Hearing(mode="stream", delay=0.5, aggregation=aggregation)
    run = run_one(model, tmp_path, hearing)
    result = evaluate(run, threshold=0.4, cost=None)
    targets = make_clips().targets(len(LABELS))
    answers = [answers_by_hand(checkpoint, sound, hearing) for sound in sounds()]
    reduce = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "last": lambda x: x[-1]}
    scores = np.stack([reduce[aggregation](each) for each in answers])
    some, both = targets.any(0), targets.any(0) & ~targets.all(0)
    numbers = result.to_dict()
    expected = {
        "mAP": sklearn.metrics.average_precision_score(targets[:, some], scores[:, some]),
        "mAUC": sklearn.metrics.roc_auc_score(targets[:, both], scores[:, both]),
        "lwlrap": sklearn.metrics.label_ranking_average_precision_score(
            targets, scores, sample_weight=targets.sum(1)
        ),
    }
    for name, number in expected.items():
        assert numbers[name] == pytest.approx(number, rel=1e-9), name
    assert 0.0 < numbers["mAP"] < 1.0
    assert (numbers["clips_scored"], numbers["clips_missing"]) == (len(LENGTHS), 0)
    assert (numbers["classes_without_positives"], numbers["classes_without_negatives"]) == (1, 1)

    active = [
        (probs[:, label], label)
        for probs, row in zip(answers, targets, strict=True)
        for label in np.flatnonzero(row)
    ]
    changes = [np.mean(np.diff(track) ** 2) for track, _ in active if len(track) > 1]
    stability = numbers["stability"]
    assert stability["mean_squared_change"] == pytest.approx(np.mean(changes), rel=1e-4)
    assert stability["share_above_threshold"] == pytest.approx(
        np.mean([np.mean(track >= 0.4) for track, _ in active]), rel=1e-6
    )


def test_strong_labels_are_measured_answer_by_answer(checkpoint, model, tmp_path):
    events = {
        0: (Event(0, 0.1, 0.4), Event(2, 0.6, 1.0)),
        3: (Event(3, 0.0, 1.5),),
        8: (Event(1, 0.4, 0.6), Event(0, 1.2, 1.9)),
        4: (),
    }
    hearing = Hearing(mode="stream", delay=0.5)
    run = run_one(model, tmp_path, hearing, make_clips(events=events))
    strong = evaluate(run, threshold=0.3, cost=None).to_dict()["strong"]
    targets, scores, delays = [], [], []
    for index in sorted(events):
        answers = answers_by_hand(checkpoint, sounds()[index], hearing)
        scores.append(answers)
        spans = [(0.5 * k, min(0.5 * k + 0.5, LENGTHS[index] / RATE)) for k in range(len(answers))]
        heard = np.zeros(answers.shape, bool)
        for label, onset, offset in events[index]:
            over = np.array([min(e, offset) - max(s, onset) > 1e-6 for s, e in spans])
            heard[over, label] = True
            found = np.flatnonzero(over & (answers[:, label] >= 0.3))
            delays.append(spans[found[0]][1] - onset if len(found) else None)
        targets.append(heard)
    targets, scores = np.concatenate(targets), np.concatenate(scores)
    some = targets.any(0)
    assert strong["segment_mAP"] == pytest.approx(
        sklearn.metrics.average_precision_score(targets[:, some], scores[:, some]), rel=1e-9
    )
    found = [delay for delay in delays if delay is not None]
    assert 0 < len(found) < len(delays)
    assert (strong["clips"], strong["events"]) == (4, 5)
    assert strong["events_detected"] == len(found)
    assert strong["onset_delay_median"] == pytest.approx(np.median(found))
    assert 0.0 <= strong["PSDS1"] <= 1.0


def test_events_beyond_their_clips_leave_the_other_measures(model, tmp_path):
    events = {3: (Event(3, 1.5, 2.0),), 0: (Event(0, 7.25, 9.0), Event(1, 8.0, 9.0)), 4: ()}
    hearing, told = Hearing(mode="stream", delay=0.5), []
    run = run_one(model, tmp_path, hearing, make_clips(events=events))
    result = evaluate(run, threshold=0.3, cost=None, report=told.append)
    plain = run_one(model, tmp_path, hearing)
    assert result.to_dict() | {"clips_per_second": 0} == evaluate(
        plain, threshold=0.3, cost=None
    ).to_dict() | {"clips_per_second": 0}
    [line] = told
    assert "no event lies within its clip, the first one of clip0 begins at 7.25 s" in line


def test_what_is_wrong_is_found_before_a_clip_is_read(model):
    def read(places):
        raise AssertionError(places)

    unlabeled = dataclasses.replace(make_clips(), labels=[[]] * len(LENGTHS), read=read)
    with pytest.raises(SatError, match="none of the 10 clips has a label"):
        open_listener(model, [Hearing()], lambda tagger: unlabeled)
    slow = [Hearing(), Hearing(mode="sliding", buffer=0.2)]  # The model's own chunk is longer.
    with pytest.raises(SatError, match="a longer buffer or a shorter delay"):
        open_listener(model, slow, lambda tagger: dataclasses.replace(make_clips(), read=read))


def test_classes_that_sound_in_the_drawn_clip_come_first(model, tmp_path, monkeypatch):
    events = {0: (Event(4, 0.5, 0.9), Event(3, 0.0, 0.4))}  # Its weak labels are 0, 2 and 5.
    run = run_one(model, tmp_path, Hearing(mode="clip"), make_clips(events=events))
    drawn = []
    monkeypatch.setattr(pictures, "plot_clip_scores", lambda path, **what: drawn.append(what))
    for name in ("plot_class_ap", "plot_map_by_delay"):
        monkeypatch.setattr(pictures, name, lambda *args, **options: None)
    result = evaluate(run, threshold=0.5, cost=None)
    pictures.draw_evaluations(tmp_path, [run], [result], clip="clip0")
    assert drawn[0]["classes"] == [3, 4, 0, 2, 5, 1]


# --- exactness


@pytest.mark.parametrize("mode", ["stream", "chunks", "sliding", "clip"])
def test_order_and_batch_size_change_nothing(model, tmp_path, mode):
    delay = None if mode == "clip" else 0.5
    hearing = Hearing(mode=mode, delay=delay, buffer=1.0)
    one = evaluate(run_one(model, tmp_path, hearing), threshold=0.5, cost=None)
    backwards = make_clips(order=range(len(LENGTHS) - 1, -1, -1))
    run = run_one(model, tmp_path, hearing, backwards, batch_size=7)
    other = evaluate(run, threshold=0.5, cost=None)
    for name in ("mAP", "mAUC", "dprime", "lwlrap"):
        assert other.to_dict()[name] == pytest.approx(one.to_dict()[name], rel=1e-12), name


SHARDED = """
import sys
import jax, numpy as np
from sat_jax.weights.checkpoint import load_checkpoint
from sat_jax.evaluation.hearing import Hearing
from sat_jax.evaluation.scorer import make_scorer
from sat_jax.runtime.sharding import make_mesh

checkpoint = load_checkpoint(sys.argv[1])
rng = np.random.default_rng(0)
sounds = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (16_000, 300, 9_000, 22_000)]
assert jax.device_count() == 8
for hearing in (Hearing(delay=0.5), Hearing(mode="sliding", delay=0.5), Hearing(mode="clip")):
    answers = [
        make_scorer(
            checkpoint.config, checkpoint.variables, hearing, batch_size=3, mesh=make_mesh(devices)
        )(sounds)
        for devices in (jax.devices()[:1], jax.devices())
    ]
    for one, eight in zip(*answers, strict=True):
        np.testing.assert_allclose(one, eight, atol=1e-6)
print("alike")
"""


@pytest.mark.slow
def test_eight_devices_are_one(model):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, model],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "alike\n"), done.stderr


# --- stopping and going on


def test_a_stopped_run_goes_on(model, tmp_path):
    hearing, read = Hearing(mode="chunks", delay=0.5), []
    clips = make_clips(description={"same": 1})

    def stop_at(limit):
        def some(places):
            for count, (place, sound) in enumerate(clips.read(places)):
                if count == limit:
                    raise KeyboardInterrupt
                read.append(place)
                yield place, sound

        return dataclasses.replace(clips, read=some)

    with pytest.raises(KeyboardInterrupt):
        run_one(model, tmp_path, hearing, stop_at(6), batch_size=1)
    told = []
    resumed = run_one(model, tmp_path, hearing, stop_at(None), batch_size=1, problems=told)
    # Four clips were stored, two were read but not yet scored.
    assert sorted(read) == sorted([*range(len(LENGTHS)), 4, 5])
    assert any("4 of 10 clips were scored before" in line for line in told)
    fresh = run_one(model, tmp_path / "fresh", hearing)
    for a, b in zip(resumed.scored.answers(), fresh.scored.answers(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    again = run_one(model, tmp_path, hearing, stop_at(0), batch_size=1)
    assert again.scoring.clips_per_second is None


@pytest.mark.parametrize("damage", ["record", "rows", "lost"])
def test_what_was_half_written_is_scored_again(model, tmp_path, damage):
    hearing = Hearing(mode="chunks", delay=0.5)
    whole = run_one(model, tmp_path, hearing)
    [folder] = (tmp_path / "scores").iterdir()
    name = "clips.i64" if damage == "record" else "scores.f32"
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data + b"half" if damage == "record" else data[:-30])
    if damage == "lost":
        (folder / name).write_bytes(b"")
    mended = run_one(model, tmp_path, hearing)
    for a, b in zip(mended.scored.answers(), whole.scored.answers(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert (mended.scoring.clips_per_second is None) == (damage == "record")


def test_recordings_that_have_changed_are_scored_again(model, tmp_path):
    hearing, told, read = Hearing(mode="chunks", delay=0.5), [], []

    def run(order, changed):
        clips = make_clips(order=order, description={"same": 1}, versions=changed)

        def noting(places):
            read.append(list(places))
            return clips.read(places)

        return run_one(
            model, tmp_path, hearing, dataclasses.replace(clips, read=noting), problems=told
        )

    order = list(range(len(LENGTHS)))
    run(order, np.zeros(10))
    # Places 2 and 6 hold other sounds of other lengths now.
    others = [0, 1, 8, 3, 4, 5, 3, 7, 8, 9]
    again = run(others, [0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    back = run(order, np.zeros(10))
    assert read[1:] == [[2, 6], []]
    assert "8 of 10 clips were scored before, in" in told[0]
    assert "2 clips have changed since and are scored again" in told[1]
    assert f"10 of 10 clips were scored before, in {tmp_path / 'scores'}" in told[2]
    for made, wanted in ((again, others), (back, order)):
        fresh = run_one(model, tmp_path / "fresh", hearing, make_clips(order=wanted))
        for a, b in zip(made.scored.answers(), fresh.scored.answers(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_scores_of_other_weights_are_not_taken(checkpoint, model, tmp_path):
    changed = jax.tree.map(lambda leaf: 1.1 * leaf, checkpoint.variables)
    save_checkpoint(tmp_path / "tiny", dataclasses.replace(checkpoint, variables=changed))
    hearing = Hearing(mode="clip")
    one = run_one(model, tmp_path, hearing)
    other = run_one(str(tmp_path / "tiny"), tmp_path, hearing)
    assert other.scoring.clips_per_second is not None
    assert np.abs(one.scored.rows - other.scored.rows).max() > 1e-4
    assert len(list((tmp_path / "scores").iterdir())) == 2


def test_two_runs_at_once_are_refused(model, tmp_path):
    hearing = Hearing(mode="clip")
    clips = make_clips()

    def read(places):
        with pytest.raises(SatError, match="is in use by another run"):
            run_one(model, tmp_path, hearing)
        yield from clips.read(places)

    run_one(model, tmp_path, hearing, dataclasses.replace(clips, read=read))


def test_scores_are_kept_with_what_they_are_of(model, tmp_path):
    run_one(model, tmp_path, Hearing(mode="sliding", delay=0.5, buffer=1.0))
    [folder] = (tmp_path / "scores").iterdir()
    about = json.loads((folder / "about.json").read_text())
    assert about["model"] == model
    assert about["hearing"]["buffer"] == 1.0


# --- what is missing or wrong


def test_clips_that_cannot_be_read_are_left_out_and_tried_again(model, tmp_path):
    hearing, told = Hearing(mode="clip"), []
    run = run_one(
        model, tmp_path, hearing, make_clips(missing=(2, 5), description={}), problems=told
    )
    result = evaluate(run, threshold=0.5, cost=None)
    assert [clip.clip for clip in result.missing] == ["clip2", "clip5"]
    assert told == ["clip 2 is gone", "clip 5 is gone"]
    kept = [index for index in range(len(LENGTHS)) if index not in (2, 5)]
    fewer = run_one(model, tmp_path, hearing, make_clips(order=kept))
    same = evaluate(fewer, threshold=0.5, cost=None).to_dict()
    for name in ("mAP", "mAUC", "lwlrap"):
        assert result.to_dict()[name] == pytest.approx(same[name], rel=1e-12)
    mended = run_one(model, tmp_path, hearing, make_clips(description={}))
    assert len(mended.scored.clips) == len(LENGTHS)


def test_nothing_can_be_scored(model, tmp_path):
    with pytest.raises(SatError, match="none of the 10 clips could be scored"):
        run_one(model, tmp_path, Hearing(mode="clip"), make_clips(missing=range(10)))


@pytest.mark.parametrize("label", [-1, len(LABELS)])
def test_labels_of_another_model(model, tmp_path, label):
    clips = dataclasses.replace(make_clips(), labels=[[label]] * len(LENGTHS))
    with pytest.raises(SatError, match=f"label {label} is none of the model's classes 0 to 5"):
        run_one(model, tmp_path, Hearing(mode="clip"), clips)


def test_damaged_weights_end_the_run(checkpoint, tmp_path):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), checkpoint.variables)
    save_checkpoint(tmp_path / "broken", dataclasses.replace(checkpoint, variables=broken))
    with pytest.raises(SatError, match=r"broken, stream, 0\.5 s: scores are not finite"):
        run_one(str(tmp_path / "broken"), tmp_path, Hearing(delay=0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "chunks", "framing": "seamless"}, "framing=chunk"),
        ({"mode": "sliding", "delay": 11.0}, "a longer buffer or a shorter delay"),
        ({"mode": "all"}, "mode"),
    ],
)
def test_ways_that_could_never_work(options, message):
    with pytest.raises(SatError, match=message):
        Hearing(**options)


def test_clip_mode_has_no_delays():
    ways = make_hearings(["clip", "stream", "clip"], [2.0, 1.0, 2.0])
    assert [way.title for way in ways] == ["clip", "stream, 2 s", "stream, 1 s"]


def test_ways_that_are_one_for_a_model_are_heard_once(model, tmp_path):
    ways = make_hearings(["stream"], [None, 1 / 3])  # A model of 32 frames takes 1/3 s.
    listener = open_listener(model, ways, lambda tagger: make_clips())
    runs = score_with(listener, folder=tmp_path, batch_size=4, report=print)
    assert len(runs) == 1
    assert not Path(tmp_path / "clip").exists()
