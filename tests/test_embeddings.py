"""Embeddings are the features that the classifier sees; whole sounds in memory and chunks' tags."""

import jax
import numpy as np
import pytest
import soundfile
import soxr

from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.cache import init_cache
from sat_jax.models.transformer import AudioTransformer, init_variables
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint

LABELS = ("Dog", "Rain", "Cat")
SOUND = (0.1 * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)


def checkpoint(pooling):
    config = ModelConfig(
        width=64, depth=2, target_length=32, cache_length=32, num_classes=3, pooling=pooling
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    return Checkpoint(config=config, variables=variables, labels=LABELS, source="a test")


@pytest.fixture(scope="module")
def mean():
    return checkpoint("mean")


@pytest.mark.parametrize("pooling", ["mean", "token", "logit"])
def test_the_classifier_turns_embeddings_into_probabilities(pooling):
    loaded = checkpoint(pooling)
    network = AudioTransformer(loaded.config)
    plain, both = (Tagger(loaded, chunk_seconds=0.32, embeddings=each) for each in (False, True))
    blocks = [SOUND]  # Ends within a chunk: the end is another program.
    for expected, chunk in zip(plain.stream(blocks), both.stream(blocks), strict=True):
        np.testing.assert_allclose(chunk.probs, expected.probs, atol=1e-6)
        logits = network.apply(loaded.variables, chunk.embedding, method="logits")
        np.testing.assert_allclose(jax.nn.sigmoid(logits), chunk.probs, atol=1e-6)
    assert expected.embedding is None


@pytest.mark.parametrize("pooling", ["mean", "dm"])
def test_an_embedding_is_the_mean_of_the_tokens(pooling):
    loaded = checkpoint(pooling)
    log_mel = jax.random.normal(jax.random.key(1), (2, 64, 32))
    cache = init_cache(loaded.config, 2, "kv")
    network = AudioTransformer(loaded.config, embeds=True)
    outputs, _ = network.apply(loaded.variables, log_mel, cache)
    grid = network.apply(loaded.variables, log_mel, method="embed")
    tokens, _ = network.apply(loaded.variables, grid, cache, method="features")
    np.testing.assert_allclose(outputs[:, 3:], np.mean(tokens, axis=1), atol=1e-6)


def test_embed_returns_the_embeddings_of_the_chunks(mean, tmp_path):
    soundfile.write(tmp_path / "a.wav", SOUND, 16_000, subtype="FLOAT")
    expected = [
        chunk.embedding
        for chunk in Tagger(mean, chunk_seconds=0.5, embeddings=True).tag_file(tmp_path / "a.wav")
    ]
    tagger = Tagger(mean, chunk_seconds=0.5)
    for sound in (SOUND, tmp_path / "a.wav", str(tmp_path / "a.wav")):
        embeddings = tagger.embed(sound)
        assert embeddings.dtype == np.float32 and embeddings.shape == (3, 64)
        np.testing.assert_array_equal(embeddings, expected)
    with pytest.raises(SatError, match="shape"):
        tagger.embed(np.zeros((2, 2, 2)))


@pytest.mark.parametrize("mode", ["stream", "clip"])
def test_a_sound_in_memory_has_the_tags_of_its_file(mean, tmp_path, mode):
    tagger = Tagger(mean, chunk_seconds=0.5)
    stereo = np.stack([soxr.resample(SOUND, 16_000, 44_100), np.zeros(55_125, np.float32)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44_100, subtype="FLOAT")
    for channel in (None, 0):
        of_file = list(tagger.tag_file(tmp_path / "a.wav", mode=mode, channel=channel))
        of_array = list(tagger.tag(stereo, 44_100, mode=mode, channel=channel))
        for wanted, found in zip(of_file, of_array, strict=True):
            assert (found.start, found.end) == (wanted.start, wanted.end)
            np.testing.assert_array_equal(found.probs, wanted.probs)


@pytest.mark.parametrize(
    ("sound", "rate", "named"),
    [
        (np.zeros(100, np.int16), 16_000, "int16"),
        (np.zeros(100), 0, "rate 0"),
        (np.zeros((0,)), 16_000, "no audio"),
        (np.full(5_000, np.nan), 16_000, "NaN"),
        (np.zeros((1, 2, 3)), 16_000, "[1, 2, 3]"),
    ],
)
def test_arrays_that_are_no_sound(mean, sound, rate, named):
    with pytest.raises(SatError) as caught:
        list(Tagger(mean).tag(sound, rate))
    assert named in str(caught.value)


def test_a_chunk_has_tags(mean):
    chunk = next(Tagger(mean).tag(SOUND))
    order = np.argsort(-chunk.probs)
    tags = chunk.tags(2)
    assert [tag.label for tag in tags] == [LABELS[index] for index in order[:2]]
    assert [np.float32(tag.prob) for tag in tags] == chunk.probs[order[:2]].tolist()
    assert [tag.label for tag in chunk.tags(3, without=["dog"])] == [
        LABELS[index] for index in order if LABELS[index] != "Dog"
    ]
    assert chunk.tags(3, threshold=float(chunk.probs.max())) == tags[:1]
