"""The batched scorers against the tagger, which scores one recording at a time."""

import jax
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.transformer import init_variables
from sat_jax.streaming import StreamingModel, make_framing
from sat_jax.streaming.stream_scorer import StreamScorer
from sat_jax.streaming.window_scorer import WindowScorer
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint

RATE = 16_000
CLIP_MODEL = {"pooling": "logit", "pad_last": True, "target_length": 64}
STREAMING_MODEL = {"pooling": "dm", "cache_length": 48, "target_length": 48}
# One sample, one less and one more than a chunk, several chunks, several and a rest.
LENGTHS = (1, 7_999, 8_000, 8_001, 16_000, 24_123, 39_999)


def make_model(**changes):
    config = ModelConfig(**({"width": 64, "depth": 1, "num_classes": 12} | changes))
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    # Fresh weights hardly distinguish sounds; larger ones do.
    variables["params"] = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    return config, variables


def make_tagger(config, variables, **options):
    labels = tuple("abcdefghijkl")
    return Tagger(Checkpoint(config=config, variables=variables, labels=labels), **options)


def sounds(lengths=LENGTHS):
    rng = np.random.default_rng(0)
    return [
        (rng.uniform(0.01, 0.3) * rng.standard_normal(length)).astype(np.float32)
        for length in lengths
    ]


def half_second_streams():
    config, variables = make_model(**STREAMING_MODEL)
    return StreamingModel(config, make_framing(config, chunk_seconds=0.5)), variables


def default_streams(config):
    return StreamingModel(config, make_framing(config))


# --- streams


@pytest.mark.parametrize(
    ("model", "framing", "seconds", "warmup"),
    [
        (STREAMING_MODEL, "chunk", 0.5, "silence"),
        (STREAMING_MODEL, "seamless", 0.48, "none"),
        pytest.param(
            *(STREAMING_MODEL | {"pad_last": True}, "seamless", 0.32, "silence"),
            marks=pytest.mark.slow,
        ),
        (CLIP_MODEL, "chunk", 0.5, "none"),
    ],
)
def test_streams_score_as_if_alone(model, framing, seconds, warmup):
    config, variables = make_model(**model)
    tagger = make_tagger(config, variables, chunk_seconds=seconds, framing=framing)
    scorer = StreamScorer(tagger.streams, variables, warmup=warmup, batch_size=4)
    for sound, probs in zip(sounds(), scorer.score(sounds()), strict=True):
        alone = [chunk.probs for chunk in tagger.stream([sound], warmup=warmup)]
        assert probs.shape == (len(alone), 12)
        np.testing.assert_allclose(probs, np.stack(alone), atol=3e-6)


def test_streams_may_be_longer_than_a_call(monkeypatch):
    streams, variables = half_second_streams()
    options = {"warmup": "none", "batch_size": 3}
    whole = StreamScorer(streams, variables, **options).score(sounds())
    monkeypatch.setattr("sat_jax.streaming.stream_scorer._SECONDS_PER_CALL", 1.0)
    cut = StreamScorer(streams, variables, **options).score(sounds())
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_batch_changes_nothing(batch_size):
    streams, variables = half_second_streams()
    scorer = StreamScorer(streams, variables, warmup="silence", batch_size=batch_size)
    reference = StreamScorer(streams, variables, warmup="silence", batch_size=4)
    backwards = scorer.score(sounds()[::-1])[::-1]
    for one, other in zip(reference.score(sounds()), backwards, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_damaged_weights_are_noticed_in_streams():
    streams, variables = half_second_streams()
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), variables)
    scorer = StreamScorer(streams, broken, warmup="none", batch_size=2)
    with pytest.raises(SatError, match="not finite"):
        scorer.score(sounds())


# --- windows


@pytest.mark.parametrize(
    ("model", "aggregation"),
    [
        (CLIP_MODEL, "max"),
        (CLIP_MODEL | {"pad_last": False}, "last"),
        (STREAMING_MODEL, "mean"),
    ],
)
def test_windows_score_like_clip_mode(model, aggregation):
    config, variables = make_model(**model)
    tagger = make_tagger(config, variables)
    scorer = WindowScorer(tagger.streams, variables, batch_size=3, aggregation=aggregation)
    scored = dict(scorer.score(enumerate(sounds())))
    assert sorted(scored) == list(range(len(LENGTHS)))
    for key, sound in enumerate(sounds()):
        [alone] = tagger.clip([sound], aggregation=aggregation)
        np.testing.assert_allclose(scored[key], alone.probs, atol=3e-6)


def test_long_windows_come_in_smaller_batches():
    config, variables = make_model(**STREAMING_MODEL)
    scorer = WindowScorer(default_streams(config), variables, batch_size=4)
    rows = [scorer._rows(scorer._shape(RATE * seconds)) for seconds in (1, 10, 24, 3600)]
    assert rows == [4, 4, 1, 1]


@pytest.mark.parametrize("changes", [{}, {"target_length": 40, "pad_last": False}])
def test_windows_of_one_length_are_a_batch_of_clips(changes):
    config, variables = make_model(**(CLIP_MODEL | changes))
    scorer = WindowScorer(default_streams(config), variables, batch_size=4)
    windows = 0.1 * np.random.default_rng(0).standard_normal((3, RATE)).astype(np.float32)
    scored = dict(scorer.score(enumerate(windows)))
    expected = default_streams(config).clip(variables, windows)
    np.testing.assert_allclose([scored[i] for i in range(3)], expected, atol=2e-6)


def test_equal_shapes_share_a_program():
    config, variables = make_model(**CLIP_MODEL)
    scorer = WindowScorer(default_streams(config), variables, batch_size=4)

    # Lengths within the same patches, and single windows, need no new program.
    def score(*lengths):
        list(scorer.score((n, np.full(n, 0.1, np.float32)) for n in lengths))
        return StreamingModel.clip._cache_size()

    before = score(RATE, 8000)
    assert score(8001, 8200, RATE, 9000, 8000, *[RATE] * 9) == before
    assert score(5200) == before + 1


def test_damaged_weights_are_noticed_in_windows():
    config, variables = make_model(**CLIP_MODEL)
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), variables)
    scorer = WindowScorer(default_streams(config), broken, batch_size=2)
    with pytest.raises(SatError, match="not finite"):
        list(scorer.score(enumerate(sounds())))
