"""The contract of streams, for every variant of the model, at small size.

1. A scan equals a loop of steps, and the shapes of the state never change.
2. The first step and the last are one compiled program.
3. NaN in one stream changes nothing in its neighbours, and a reset heals it.
4. The future changes nothing.
5. Streams of a batch at different points give what they give alone.
6. A saved state goes on as if never stopped.
7. Cached keys and values give what cached tokens give.
8. Gradients of a scan equal those of a loop.
9. Seamless streaming equals clip mode.
10. Cutting the input elsewhere changes nothing.
11. The memory of a scan does not grow with its chunks.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax.config import FrontendConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.cache import CacheForm
from sat_jax.models.transformer import init_variables
from sat_jax.streaming import (
    StreamingModel,
    StreamState,
    make_framing,
    reset_streams,
    state_from_bytes,
    state_to_bytes,
)
from sat_jax.streaming.incremental import rebuffer
from sat_jax.streaming.pieces import plan_rest

SMALL = ModelConfig(width=64, depth=2, num_classes=5, target_length=32, cache_length=32)


class Variant(NamedTuple):
    """A model, its framing and the form of its cache."""

    config: ModelConfig = SMALL
    kind: str = "chunk"
    seconds: float = 0.34
    form: CacheForm = "kv"


def changed(**changes: Any) -> ModelConfig:
    return dataclasses.replace(SMALL, **changes)


VARIANTS = {
    "mean": Variant(),
    "mean, token cache": Variant(form="tokens"),
    "token": Variant(changed(pooling="token")),
    "token, token cache": Variant(changed(pooling="token"), form="tokens"),
    "dm": Variant(changed(pooling="dm")),
    "logit": Variant(changed(pooling="logit")),
    "LayerScale, fixed norm": Variant(changed(layer_scale=0.1, input_norm="fixed")),
    # Wide enough for `sat_jax.models.few_rows`.
    "wide": Variant(changed(width=512)),
    "128 bands": Variant(changed(frontend=FrontendConfig(n_mels=128))),
    "short cache": Variant(changed(cache_length=16)),
    "long cache": Variant(changed(cache_length=64)),
    "bfloat16": Variant(changed(dtype="bfloat16")),
    "one-patch chunks": Variant(seconds=0.16),
    "one-patch chunks, token": Variant(changed(pooling="token"), seconds=0.16),
    "chunks of several pieces": Variant(seconds=0.7),
    "padded last piece": Variant(changed(pad_last=True), seconds=0.5),
    "seamless": Variant(kind="seamless"),
    "seamless, token": Variant(changed(pooling="token"), kind="seamless"),
    "seamless, one patch": Variant(kind="seamless", seconds=0.16),
    "clip model": Variant(changed(cache_length=0, pad_last=True)),
    "seamless, clip model": Variant(changed(cache_length=0), kind="seamless"),
}


class Stream(NamedTuple):
    """Streams of a variant: model, weights and samples."""

    model: StreamingModel
    variables: Any
    form: CacheForm
    samples: np.ndarray  # [k, b, s]

    @property
    def hop(self) -> int:
        return self.model.framing.hop

    @property
    def is_seamless(self) -> bool:
        return self.model.framing.kind == "seamless"

    def init(self, batch_size: int = 2, warmup: str = "silence") -> StreamState:
        return self.model.init(self.variables, batch_size, warmup=warmup, cache_form=self.form)

    def step(self, samples: Any, state: StreamState) -> tuple[jax.Array, StreamState]:
        return self.model.step(self.variables, samples, state)

    def scan(self, samples: Any, state: StreamState) -> tuple[np.ndarray, np.ndarray, StreamState]:
        probs, ready, state = self.model.scan(self.variables, samples, state)
        return np.asarray(probs), np.asarray(ready), state

    def loop(self, samples: Any, state: StreamState) -> tuple[np.ndarray, StreamState]:
        scores = []
        for block in samples:
            score, state = self.step(block, state)
            scores.append(np.asarray(score))
        return np.stack(scores), state


@functools.cache
def stream_of(name: str) -> Stream:
    variant = VARIANTS[name]
    config = variant.config
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(1))
    # Positions and statistics as after training; those of a fresh model would hide mistakes.
    noise = np.random.default_rng(2)
    variables = jax.tree.map(
        lambda x: x + 0.2 * noise.standard_normal(x.shape).astype(np.float32) ** 2, variables
    )
    if config.input_norm == "batch":
        bands = config.frontend.n_mels
        statistics = {"mean": jnp.full(bands, -20.0), "var": jnp.full(bands, 100.0)}
        variables["batch_stats"] = {"input_norm": statistics}
    framing = make_framing(config, variant.kind, chunk_seconds=variant.seconds)
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal((5, 2, framing.hop)).astype(np.float32)
    return Stream(StreamingModel(config, framing), variables, variant.form, samples)


RARE = {
    "dm",
    "LayerScale, fixed norm",
    "128 bands",
    "long cache",
    "bfloat16",
    "one-patch chunks, token",
    "chunks of several pieces",
    "padded last piece",
    "seamless, one patch",
}

# One worker runs all tests of a variant, which are compiled once.
every_variant = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.xdist_group(name), *([pytest.mark.slow] if name in RARE else [])],
        )
        for name in VARIANTS
    ],
)


def tolerance(name: str) -> float:
    return 2e-2 if VARIANTS[name].config.dtype == "bfloat16" else 2e-5


@every_variant
def test_1_a_scan_is_a_loop_of_steps_and_state_shapes_stay(name: str) -> None:
    stream = stream_of(name)
    before = stream.init()
    looped, after = stream.loop(stream.samples, before)
    scanned, ready, last = stream.scan(stream.samples, before)
    np.testing.assert_allclose(scanned, looped, rtol=1e-4, atol=tolerance(name))
    first_chunk = 1 if stream.is_seamless else 0
    assert ready[first_chunk:].all() and not ready[:first_chunk].any()
    for leaf, other, initial in zip(*map(jax.tree.leaves, (after, last, before)), strict=True):
        assert (leaf.shape, leaf.dtype) == (initial.shape, initial.dtype)
        np.testing.assert_allclose(
            leaf.astype(jnp.float32),
            other.astype(jnp.float32),
            rtol=50 * tolerance(name),
            atol=50 * tolerance(name),
        )


@every_variant
def test_2_all_steps_are_one_program(name: str) -> None:
    stream = stream_of(name)
    _, state = stream.step(stream.samples[0], stream.init())
    programs = StreamingModel.step._cache_size()
    stream.loop(stream.samples[1:], state)
    assert StreamingModel.step._cache_size() == programs


@every_variant
def test_3_nan_changes_nothing_in_a_neighbour(name: str) -> None:
    stream = stream_of(name)
    clean, _ = stream.loop(stream.samples, stream.init())
    poisoned = stream.samples.copy()
    poisoned[1, 1] = np.nan
    dirty, state = stream.loop(poisoned, stream.init())
    np.testing.assert_array_equal(dirty[:, 0], clean[:, 0])
    assert np.isnan(dirty[:, 1]).any()
    # A reset heals the poisoned stream and leaves the other one alone.
    state = reset_streams(state, stream.init(), jnp.array([False, True]))
    healed, _ = stream.loop(stream.samples, state)
    np.testing.assert_array_equal(healed[:, 1], clean[:, 1])


@every_variant
def test_4_the_future_changes_nothing(name: str) -> None:
    stream = stream_of(name)
    other = stream.samples.copy()
    other[3:] = 0.3
    have, _, _ = stream.scan(other, stream.init())
    want, _, _ = stream.scan(stream.samples, stream.init())
    np.testing.assert_array_equal(have[:3], want[:3])
    assert np.abs(have[4] - want[4]).max() > 0


@every_variant
def test_5_streams_at_different_points_are_as_if_alone(name: str) -> None:
    stream = stream_of(name)
    _, state = stream.loop(stream.samples[:2], stream.init())
    state = reset_streams(state, stream.init(), jnp.array([True, False]))
    mixed, state = stream.loop(stream.samples[2:], state)
    for index, begin in ((0, 2), (1, 0)):
        twice = np.repeat(stream.samples[begin:, index : index + 1], 2, axis=1)
        alone, _ = stream.loop(twice, stream.init())
        np.testing.assert_array_equal(mixed[:, index], alone[2 - begin :, index])
    chunks_behind = 1 if stream.is_seamless else 0
    assert state.chunks.tolist() == [3 - chunks_behind, 5 - chunks_behind]


@every_variant
def test_6_a_saved_state_goes_on_as_if_never_stopped(name: str) -> None:
    stream = stream_of(name)
    _, state = stream.loop(stream.samples[:2], stream.init())
    restored = state_from_bytes(stream.init(), state_to_bytes(state))
    have, _ = stream.loop(stream.samples[2:], restored)
    want, _ = stream.loop(stream.samples[2:], state)
    np.testing.assert_array_equal(have, want)


def test_6_damaged_or_foreign_states_are_refused() -> None:
    stream = stream_of("mean")
    data = state_to_bytes(stream.init())
    with pytest.raises(SatError):
        state_from_bytes(stream.init(), data[: len(data) // 2])
    with pytest.raises(SatError, match=r"\[2, 8, 64\].*\[3, 8, 64\]"):
        state_from_bytes(stream.init(3), data)


@pytest.mark.parametrize(
    ("kv", "tokens"), [("mean", "mean, token cache"), ("token", "token, token cache")]
)
def test_7_cached_keys_and_values_give_what_tokens_give(kv: str, tokens: str) -> None:
    short, long = stream_of(kv), stream_of(tokens)
    for warmup in ("silence", "none"):
        have, _ = short.loop(short.samples, short.init(warmup=warmup))
        want, _ = long.loop(long.samples, long.init(warmup=warmup))
        np.testing.assert_allclose(have, want, atol=2e-5)


@pytest.mark.parametrize(
    "name", [pytest.param("mean, token cache", marks=pytest.mark.slow), "seamless, token"]
)
def test_8_gradients_of_a_scan_are_those_of_a_loop(name: str) -> None:
    stream = stream_of(name)
    state, samples = stream.init(warmup="none"), stream.samples[:3]

    def scanned(variables: Any) -> jax.Array:
        scores, _, _ = stream.model.scan(variables, samples, state)
        return jnp.square(scores).sum()

    def looped(variables: Any) -> jax.Array:
        total, current = 0.0, state
        for block in samples:
            scores, current = stream.model.step(variables, block, current)
            total += jnp.square(scores).sum()
        return total

    have = jax.jit(jax.grad(scanned))(stream.variables)["params"]
    want = jax.jit(jax.grad(looped))(stream.variables)["params"]
    for leaf, other in zip(*map(jax.tree.leaves, (have, want)), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-4 * (1 + np.abs(other).max()))
    assert np.abs(want["blocks_0"]["attn"]["qkv"]["kernel"]).max() > 0


def whole_recording(stream: Stream, num_samples: int) -> np.ndarray:
    rng = np.random.default_rng(num_samples)
    return 0.1 * rng.standard_normal((1, num_samples)).astype(np.float32)


def push(
    stream: Stream, block: np.ndarray, state: StreamState
) -> tuple[StreamState, np.ndarray | None]:
    """Runs a step on a whole hop; puts a shorter last block into the window only."""
    if block.shape[1] == stream.hop:
        score, state = stream.step(block, state)
        return state, np.asarray(score) if state.ready.all() else None
    window, filled = np.array(state.window), int(state.filled[0])
    window[:, filled : filled + block.shape[1]] = block
    return state._replace(window=window, filled=state.filled + block.shape[1]), None


# Recordings that end inside a piece, at its end, and where only the mirrored end completes one.
@pytest.mark.parametrize(
    ("name", "pad_last", "num_samples"),
    [
        ("seamless", False, 15_500),
        ("seamless", False, 15_360),
        ("seamless", False, 15_200),
        ("seamless", True, 15_500),
        ("seamless", True, 4_000),
        ("seamless", True, 5_120),  # one frame more than a whole piece
        ("seamless", True, 5_200),
        ("seamless", True, 15_200),  # behind pieces already scored: a whole one, and one frame
        ("seamless", True, 15_360),
        ("seamless, clip model", False, 15_500),
        ("seamless, clip model", True, 15_500),
        ("seamless, clip model", True, 15_360),
        ("seamless, clip model", True, 5_200),
        ("seamless, token", False, 15_500),
    ],
)
def test_9_seamless_streaming_is_clip_mode(name: str, pad_last: bool, num_samples: int) -> None:
    stream = stream_of(name)
    config = dataclasses.replace(stream.model.config, pad_last=pad_last)
    model = dataclasses.replace(stream.model, config=config)
    stream = stream._replace(model=model)
    wave = whole_recording(stream, num_samples)
    want = model.clip(stream.variables, wave)
    state, scores = stream.init(1, warmup="none"), []
    # A piece needs 96 samples beyond its hop: with them ahead, each hop completes one.
    for block in rebuffer([wave[0]], 5120, first=96):
        state, score = push(stream, block[None], state)
        scores += [] if score is None else [score]
    plan = plan_rest(
        config, model.framing, filled=int(state.filled[0]), chunks=int(state.chunks[0])
    )
    if not plan.is_empty:
        scores += list(model.finish(stream.variables, state, plan=plan))
    np.testing.assert_allclose(np.mean(scores, axis=0), want, atol=2e-5)


@pytest.mark.parametrize("name", ["seamless", "mean", "one-patch chunks"])
def test_10_cutting_the_input_elsewhere_changes_nothing(name: str) -> None:
    stream = stream_of(name)
    wave = stream.samples.swapaxes(0, 1).reshape(2, -1)
    want, ready, _ = stream.scan(stream.samples, stream.init())
    hop = stream.hop
    for block in (hop // 7, hop - 1):
        state, have = stream.init(), []
        for begin in range(0, wave.shape[1] - block + 1, block):
            score, state = stream.step(wave[:, begin : begin + block], state)
            have += [np.asarray(score)] if state.ready.all() else []
        want_ready = want[ready.all(1)]
        np.testing.assert_allclose(have, want_ready[: len(have)], atol=2e-5)
        assert len(have) >= len(want_ready) - 1


def test_a_step_takes_at_most_one_hop() -> None:
    stream = stream_of("mean")
    too_many = np.zeros((2, stream.hop + 1), np.float32)
    with pytest.raises(SatError, match=r"5440.*5441"):
        stream.step(too_many, stream.init())


@pytest.mark.parametrize(
    ("kind", "seconds", "limit"),
    [("chunk", 0.15, "0.16 s"), ("seamless", 0.34, None), ("seamless", 0.48, "0.32 s")],
)
def test_chunk_lengths_that_make_no_sense(kind: str, seconds: float, limit: str | None) -> None:
    if limit is None:
        assert make_framing(SMALL, kind, chunk_seconds=seconds).hop == 32 * 160
        return
    with pytest.raises(SatError, match=f"{seconds} s.*{limit}"):
        make_framing(SMALL, kind, chunk_seconds=seconds)


def test_11_the_memory_of_a_scan_does_not_grow() -> None:
    stream = stream_of("mean")

    def temporary_bytes(num_chunks: int) -> int:
        samples = jax.ShapeDtypeStruct((num_chunks, 2, stream.hop), jnp.float32)
        lowered = StreamingModel.scan.lower(stream.model, stream.variables, samples, stream.init())
        return lowered.compile().memory_analysis().temp_size_in_bytes

    # A chunk's scores may be set aside, but nothing of the order of its samples or tokens.
    assert temporary_bytes(200) - temporary_bytes(20) < 180 * 100
