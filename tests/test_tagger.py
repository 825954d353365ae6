"""The tagger: files, blocks and steps of any size give the same probabilities."""

import itertools
import pickle

import jax
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sat_jax import SatError, ScoredChunk, Tagger, streaming
from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.runtime import program_store
from sat_jax.runtime.files import cache_dir
from sat_jax.weights.checkpoint import Checkpoint

TINY = ModelConfig(width=64, depth=2, num_classes=5, target_length=32, cache_length=32)


@pytest.fixture(scope="module")
def checkpoint():
    variables = jax.jit(init_variables, static_argnums=0)(TINY, jax.random.key(0))
    return Checkpoint(config=TINY, variables=variables, labels=default_label_names(5))


@pytest.fixture(scope="module")
def taggers(checkpoint):
    kinds = ("chunk", "seamless")
    return {kind: Tagger(checkpoint, chunk_seconds=0.32, framing=kind) for kind in kinds}


def noise(samples, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(samples)).astype(np.float32)


def probs(chunks):
    return np.stack([chunk.probs for chunk in chunks])


def write(path, samples, rate=16_000):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def step_through(tagger, samples, sizes):
    state, done, position = tagger.init(), [], 0
    for size in sizes:
        block = samples[position : position + size]
        position += size
        if not len(block):
            break
        scores, state = tagger.step(block, state)
        if state.ready[0]:
            done.append(np.asarray(scores)[0])
        else:
            assert not np.any(scores)
    rest = tagger.finish(state)
    return np.stack([*done, *np.asarray(rest)[:, 0]])


@pytest.mark.parametrize("kind", ["chunk", "seamless"])
@pytest.mark.parametrize("sizes", [[5120], [37, 2560]])
def test_steps_of_any_size_score_like_the_file(kind, sizes, taggers, tmp_path):
    tagger, samples = taggers[kind], noise(18_000)
    path = write(tmp_path / "a.wav", samples)
    want = probs(tagger.tag_file(path))
    have = step_through(tagger, samples, itertools.cycle(sizes))
    np.testing.assert_allclose(have, want, atol=1e-5)


def test_streams_of_a_batch_are_independent(taggers):
    tagger = taggers["chunk"]
    sounds, delay = [noise(15_360, seed) for seed in (1, 2)], 1024
    state = tagger.init(2)
    # The second stream joins later: its first samples are processed alone, then both go on.
    early = tagger.step(sounds[1][:delay], tagger.init())[1]
    state = jax.tree.map(lambda two, one: np.concatenate([two[:1], one]), state, early)
    found = [[], []]
    for start in range(0, 15_360 - delay, delay):
        block = [sounds[0][start : start + delay], sounds[1][start + delay : start + 2 * delay]]
        scores, state = tagger.step(np.stack(block), state)
        for stream in range(2):
            if state.ready[stream]:
                found[stream].append(np.asarray(scores)[stream])
    assert len(found[0]) < len(found[1])
    for stream in range(2):
        want = probs(tagger.stream([sounds[stream]]))[: len(found[stream])]
        np.testing.assert_allclose(found[stream], want, atol=1e-5)
    with pytest.raises(SatError):
        tagger.finish(state)


def test_a_scan_is_a_loop_of_steps(taggers):
    tagger = taggers["chunk"]
    samples = noise(3 * 2 * tagger.framing.hop).reshape(3, 2, -1)
    state = tagger.init(2)
    scanned, ready, last = tagger.scan(samples, state)
    assert scanned.shape == (3, 2, 5) and ready.all()
    for block, want in zip(samples, scanned, strict=True):
        probs, state = tagger.step(block, state)
        np.testing.assert_allclose(probs, want, atol=1e-5)
    assert last.chunks.tolist() == state.chunks.tolist() == [3, 3]
    with pytest.raises(SatError, match=r"\[3, 2, 5120\].*\b1\b"):
        tagger.scan(samples, tagger.init(1))


def test_the_documented_names_run_streams(taggers):
    tagger = taggers["chunk"]
    samples = noise(2 * tagger.framing.hop).reshape(2, 1, -1)
    model, state = streaming.StreamingModel(TINY, tagger.framing), tagger.init()
    want, _ = model.scan(tagger.variables, samples, state.model)
    probs, _, last = tagger.scan(samples, state)
    np.testing.assert_array_equal(probs, want)
    again = streaming.reset_streams(last, state, np.array([True]))
    assert again.chunks.tolist() == [0]
    kept = streaming.state_from_bytes(state, streaming.state_to_bytes(last))
    assert kept.chunks.tolist() == [2]


def test_streaming_models_are_hashable_and_equal_by_value(checkpoint, taggers):
    again = Tagger(checkpoint, chunk_seconds=0.32).streams
    assert again == taggers["chunk"].streams
    assert len({again, taggers["chunk"].streams, taggers["seamless"].streams}) == 2


def test_taggers_states_and_chunks_have_reprs(taggers):
    tagger = taggers["seamless"]
    assert "5 classes" in repr(tagger) and "seamless" in repr(tagger) and "0.32 s" in repr(tagger)
    assert "3 streams" in repr(tagger.init(3, "none"))
    streams = repr(tagger.streams)
    assert "5 classes" in streams and "seamless" in streams and len(streams) < 80
    chunk = ScoredChunk(start=0.0, end=2.0, probs=np.array([0.1, 0.75], np.float32))
    assert repr(chunk) == "ScoredChunk(start=0, end=2, probs=[2 classes, highest 0.750 at 1])"


def test_nothing_is_left_to_finish(taggers):
    tagger = taggers["chunk"]
    assert len(tagger.finish(tagger.init())) == 0
    _, state = tagger.step(noise(tagger.framing.hop), tagger.init())
    assert len(tagger.finish(state)) == 0


@pytest.mark.parametrize("aggregation", ["mean", "max", "last"])
def test_clip_mode_of_a_long_file_is_that_of_the_whole(aggregation, taggers, tmp_path):
    tagger, samples = taggers["chunk"], noise(90_001)
    path = write(tmp_path / "long.wav", samples)
    (scores,) = tagger.tag_file(path, mode="clip", aggregation=aggregation)
    want = tagger.streams.clip(tagger.variables, samples[None], aggregation=aggregation)
    np.testing.assert_allclose(scores.probs, want[0], atol=1e-5)
    assert (scores.start, scores.end) == (0.0, 90_001 / 16_000)


def test_a_file_does_not_depend_on_the_one_before(taggers, tmp_path):
    tagger = taggers["chunk"]
    paths = [write(tmp_path / f"{seed}.wav", noise(12_000, seed)) for seed in (3, 4)]
    first = [probs(tagger.tag_file(path)) for path in paths]
    again = [probs(tagger.tag_file(path)) for path in reversed(paths)]
    for have, want in zip(again, reversed(first), strict=True):
        np.testing.assert_array_equal(have, want)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    num_samples=st.integers(100, 9_000),
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 96_000]),
    channels=st.integers(1, 5),
)
def test_odd_lengths_rates_and_channel_counts(taggers, tmp_path, num_samples, rate, channels):
    samples = noise(num_samples * channels).reshape(-1, channels)
    path = write(tmp_path / "odd.wav", samples, rate)
    chunks = list(taggers["chunk"].tag_file(path))
    resampled = num_samples * 16_000 / rate
    assert abs(chunks[-1].end * 16_000 - resampled) <= 2
    assert abs(len(chunks) - resampled / 5120) < 1.001
    assert all(np.isfinite(chunk.probs).all() for chunk in chunks)
    ends = [chunk.end for chunk in chunks]
    assert [chunk.start for chunk in chunks] == [0.0, *ends[:-1]]


def test_the_short_warm_up_leaves_the_same_cache(checkpoint):
    tagger = Tagger(checkpoint)
    assert tagger.streams.step_warms_up()
    want = tagger.streams.init(tagger.variables, 2)
    have = tagger.init(2).model
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_other_chunk_lengths_warm_up_as_published(checkpoint, taggers):
    assert not Tagger(checkpoint, chunk_seconds=0.16).streams.step_warms_up()
    assert not taggers["seamless"].streams.step_warms_up()


def test_blocks_of_any_length_are_one_program(taggers):
    tagger, rng = taggers["chunk"], np.random.default_rng(4)
    sizes = rng.integers(1, tagger.framing.hop + 1, 40)
    samples = noise(int(sizes.sum()))
    want = probs(tagger.stream([samples]))
    programs = dict(tagger.programs._programs)
    np.testing.assert_array_equal(step_through(tagger, samples, sizes), want)
    assert tagger.programs._programs == programs


@pytest.mark.parametrize("kind", ["chunk", "seamless"])
def test_a_stream_of_years_answers_as_at_the_start(kind, taggers):
    tagger, state = taggers[kind], taggers[kind].init()
    block = noise(tagger.framing.hop)
    for _ in range(3):
        _, state = tagger.step(block, state)
    want, _ = tagger.step(block, state)
    for chunks in (40 * 86_400 // 2, 2**31 - 2, 2**31, 2**40):
        late = state._replace(chunks=np.full(1, chunks))
        for _ in range(2):
            late = tagger.step(block, late)[1]
        assert late.chunks.tolist() == [chunks + 2]
        np.testing.assert_array_equal(
            tagger.step(block, state._replace(chunks=np.full(1, chunks)))[0], want
        )


def test_a_step_that_completes_nothing_passes_the_cache_on(taggers):
    state = taggers["chunk"].init(2)
    _, after = taggers["chunk"].step(np.zeros((2, 100), np.float32), state)
    assert after.cache is state.cache and not after.ready.any()
    assert state.filled.tolist() == [0, 0] and after.filled.tolist() == [100, 100]


@pytest.fixture
def new_process(monkeypatch):
    """Forgets all programs, and keeps those of new taggers in the cache folder."""

    def forget():
        jax.clear_caches()
        monkeypatch.setattr(program_store, "_stores", {})

    monkeypatch.delenv("SAT_JAX_KEEP_PROGRAMS")
    forget()
    return forget


def test_programs_are_kept_for_the_next_start(checkpoint, taggers, tmp_path, new_process):
    folder, samples = cache_dir() / "programs", [noise(12_000)]
    want = probs(taggers["chunk"].stream(samples))
    for _ in range(2):  # Compiled and stored, then loaded.
        new_process()
        tagger = Tagger(checkpoint, chunk_seconds=0.32)
        np.testing.assert_array_equal(probs(tagger.stream(samples)), want)
        names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 3
    for path in folder.iterdir():
        path.write_bytes(b"damaged")
    new_process()
    tagger = Tagger(checkpoint, chunk_seconds=0.32)
    np.testing.assert_array_equal(probs(tagger.stream(samples)), want)
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all(path.stat().st_size > 1000 for path in folder.iterdir())


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_programs_are_not_kept_if_told_so(by, checkpoint, new_process, monkeypatch):
    if by == "environment":
        monkeypatch.setenv("SAT_JAX_KEEP_PROGRAMS", "0")
    Tagger(checkpoint, chunk_seconds=0.32, keep_programs=by == "environment").init(1, "none")
    assert not (cache_dir() / "programs").exists()


@pytest.mark.slow
def test_programs_of_jax_s_own_cache_are_not_stored(checkpoint, tmp_path, new_process, monkeypatch):
    scores = []
    for folder in ("first", "second", "second"):
        new_process()
        monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path / folder))
        tagger = Tagger(checkpoint, chunk_seconds=0.32)
        scores.append(probs(tagger.stream([noise(20_000)], warmup="none")))
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


def test_a_folder_that_cannot_be_made_is_ignored(checkpoint, tmp_path, new_process, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path / "file" / "cache"))
    tagger = Tagger(checkpoint, chunk_seconds=0.32)
    assert len(list(tagger.stream([noise(5120)], warmup="none"))) == 1


def test_taggers_can_be_pickled(taggers):
    for tagger in taggers.values():
        again = pickle.loads(pickle.dumps(tagger))
        samples = [noise(12_000)]
        np.testing.assert_array_equal(probs(again.stream(samples)), probs(tagger.stream(samples)))
        assert repr(again) == repr(tagger)


def test_wrong_samples_are_refused(taggers):
    tagger = taggers["chunk"]
    state = tagger.init(2)
    for shape in ((100,), (3, 100), (2, 0), (2, 5121), (2, 1, 100)):
        with pytest.raises(SatError):
            tagger.step(np.zeros(shape, np.float32), state)


def test_autoencoders_and_wrong_chunk_lengths_are_refused(checkpoint):
    encoder = ModelConfig(width=64, depth=1, target_length=32)
    mae = Checkpoint(config=MaeConfig(encoder=encoder), variables={}, labels=())
    with pytest.raises(SatError, match="autoencoder"):
        Tagger(mae)
    for seconds in (0.1, float("nan"), float("inf")):
        with pytest.raises(SatError, match=str(seconds)):
            Tagger(checkpoint, chunk_seconds=seconds)


def test_wrong_arguments_are_refused(taggers):
    tagger = taggers["chunk"]
    state = tagger.init()
    with pytest.raises(SatError, match="int16"):
        tagger.step(np.zeros(100, np.int16), state)
    with pytest.raises(SatError, match="batch_size=0"):
        tagger.init(0)
    with pytest.raises(SatError, match=r"'loud'.*silence, none"):
        tagger.init(1, "loud")
    with pytest.raises(SatError, match=r"'foo'.*stream, clip"):
        tagger.tag_file("x.wav", mode="foo")


@pytest.mark.parametrize("framing", ["chunk", "seamless"])
@pytest.mark.parametrize("chunks", [40 * 86_400 // 2, 2**31 - 2])
def test_a_stream_answers_after_forty_days_as_at_the_start(taggers, framing, chunks):
    tagger = taggers[framing]
    samples = noise(tagger.framing.hop, 3)
    state = tagger.init()
    for _ in range(3):
        _, state = tagger.step(samples, state)
    expected, _ = tagger.step(samples, state)
    old = state._replace(chunks=np.full(1, chunks, np.int32))
    np.testing.assert_array_equal(tagger.step(samples, old)[0], expected)
