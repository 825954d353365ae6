"""The contract of streams, for every variant of the model, at small size.

1. A scan equals a loop of steps, and the shapes of the state never change.
2. The first step and the last are one compiled program.
3. NaN in one stream changes nothing in its neighbours, and a reset heals it.
4. The future changes nothing.
5. Streams of a batch at different points give what they give alone.
6. Streams that stand still keep their state, whatever their windows hold.
7. Cached keys and values give what cached tokens give.
8. Gradients of a scan equal those of a loop.
9. Seamless streaming equals clip mode.
10. Samples in blocks of any lengths make the windows of the whole.
11. The memory of a scan does not grow with its chunks.
12. Ends of any lengths, padded to one shape, score as if they were not.
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
from sat_jax.models.frontend import log_mel
from sat_jax.models.transformer import init_variables
from sat_jax.streaming import Framing, ModelState, StreamingModel, make_framing, reset_streams
from sat_jax.streaming.ends import gather_ends
from sat_jax.streaming.pieces import PiecePlan, normalize, plan_clip, run_pieces, to_probs
from sat_jax.streaming.state import new_streams
from sat_jax.streaming.windows import cut_windows, hold_samples

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
    """Streams of a variant: model, weights and windows."""

    model: StreamingModel
    variables: Any
    form: CacheForm
    windows: np.ndarray  # [k, b, s]

    def init(self, batch_size: int = 2, warmup: str = "silence") -> ModelState:
        return self.model.init(self.variables, batch_size, warmup=warmup, cache_form=self.form)

    def step(self, window: Any, state: ModelState, active: Any = None) -> tuple[Any, ModelState]:
        return self.model.step(self.variables, window, state, active)

    def scan(self, windows: Any, state: ModelState) -> tuple[np.ndarray, ModelState]:
        probs, state = self.model.scan(self.variables, windows, state)
        return np.asarray(probs), state

    def loop(self, windows: Any, state: ModelState) -> tuple[np.ndarray, ModelState]:
        scores = []
        for window in windows:
            score, state = self.step(window, state)
            scores.append(np.asarray(score))
        return np.stack(scores), state


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.1 * rng.standard_normal(num_samples).astype(np.float32)


def cut(framing: Framing, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    margin = np.zeros(framing.margin, np.float32)
    return cut_windows(framing, np.concatenate([margin, wave]), begins=True)


@functools.cache
def stream_of(name: str) -> Stream:
    variant = VARIANTS[name]
    config = variant.config
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(1))
    # Positions and statistics as after training; those of a fresh model would hide mistakes.
    rng = np.random.default_rng(2)
    variables = jax.tree.map(
        lambda x: x + 0.2 * rng.standard_normal(x.shape).astype(np.float32) ** 2, variables
    )
    if config.input_norm == "batch":
        bands = config.frontend.n_mels
        statistics = {"mean": jnp.full(bands, -20.0), "var": jnp.full(bands, 100.0)}
        variables["batch_stats"] = {"input_norm": statistics}
    framing = make_framing(config, variant.kind, chunk_seconds=variant.seconds)
    length = 4 * framing.hop + framing.window
    windows = np.stack([cut(framing, noise(length, seed))[0] for seed in (0, 1)], axis=1)
    return Stream(StreamingModel(config, framing), variables, variant.form, windows)


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
    looped, after = stream.loop(stream.windows, before)
    scanned, last = stream.scan(stream.windows, before)
    np.testing.assert_allclose(scanned, looped, rtol=1e-4, atol=tolerance(name))
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
    _, state = stream.step(stream.windows[0], stream.init())
    programs = StreamingModel.step._cache_size()
    stream.loop(stream.windows[1:], state)
    assert StreamingModel.step._cache_size() == programs


@every_variant
def test_3_nan_changes_nothing_in_a_neighbour(name: str) -> None:
    stream = stream_of(name)
    clean, _ = stream.loop(stream.windows, stream.init())
    poisoned = stream.windows.copy()
    poisoned[1, 1] = np.nan
    dirty, state = stream.loop(poisoned, stream.init())
    np.testing.assert_array_equal(dirty[:, 0], clean[:, 0])
    assert np.isnan(dirty[:, 1]).any()
    # A reset heals the poisoned stream and leaves the other one alone.
    state = reset_streams(state, stream.init(), jnp.array([False, True]))
    healed, _ = stream.loop(stream.windows, state)
    np.testing.assert_array_equal(healed[:, 1], clean[:, 1])


@every_variant
def test_4_the_future_changes_nothing(name: str) -> None:
    stream = stream_of(name)
    other = stream.windows.copy()
    other[3:] = 0.3
    have, _ = stream.scan(other, stream.init())
    want, _ = stream.scan(stream.windows, stream.init())
    np.testing.assert_array_equal(have[:3], want[:3])
    assert np.abs(have[4] - want[4]).max() > 0


@every_variant
def test_5_streams_at_different_points_are_as_if_alone(name: str) -> None:
    stream = stream_of(name)
    _, state = stream.loop(stream.windows[:2], stream.init())
    state = reset_streams(state, stream.init(), jnp.array([True, False]))
    mixed, state = stream.loop(stream.windows[2:], state)
    for index, begin in ((0, 2), (1, 0)):
        twice = np.repeat(stream.windows[begin:, index : index + 1], 2, axis=1)
        alone, _ = stream.loop(twice, stream.init())
        np.testing.assert_array_equal(mixed[:, index], alone[2 - begin :, index])


@every_variant
def test_6_streams_that_stand_still_keep_their_state(name: str) -> None:
    stream = stream_of(name)
    want, after = stream.loop(stream.windows, stream.init())
    # The second stream stands still in every other step, with garbage in its window.
    state, have, done = stream.init(), [], 0
    for index in range(9):
        goes_on, window = index % 2 == 0, np.full_like(stream.windows[0], np.nan)
        window[0] = stream.windows[index // 2, 0]
        if goes_on:
            window[1] = stream.windows[done, 1]
        probs, moved = stream.step(window, state, jnp.array([True, goes_on]))
        for leaf, before in zip(*map(jax.tree.leaves, (moved, state)), strict=True):
            if not goes_on:
                np.testing.assert_array_equal(leaf[1], before[1])
        if goes_on:
            have.append(probs[1])
            done += 1
        else:
            assert not np.any(probs[1])
        state = moved
    np.testing.assert_array_equal(np.stack(have), want[:, 1])
    for leaf, other in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        np.testing.assert_array_equal(leaf[1], other[1])


@pytest.mark.parametrize(
    ("kv", "tokens"), [("mean", "mean, token cache"), ("token", "token, token cache")]
)
def test_7_cached_keys_and_values_give_what_tokens_give(kv: str, tokens: str) -> None:
    short, long = stream_of(kv), stream_of(tokens)
    for warmup in ("silence", "none"):
        have, _ = short.loop(short.windows, short.init(warmup=warmup))
        want, _ = long.loop(long.windows, long.init(warmup=warmup))
        np.testing.assert_allclose(have, want, atol=2e-5)


@pytest.mark.parametrize(
    "name", [pytest.param("mean, token cache", marks=pytest.mark.slow), "seamless, token"]
)
def test_8_gradients_of_a_scan_are_those_of_a_loop(name: str) -> None:
    stream = stream_of(name)
    state, windows = stream.init(warmup="none"), stream.windows[:3]

    def scanned(variables: Any) -> jax.Array:
        scores, _ = stream.model.scan(variables, windows, state)
        return jnp.square(scores).sum()

    def looped(variables: Any) -> jax.Array:
        total, current = 0.0, state
        for window in windows:
            scores, current = stream.model.step(variables, window, current)
            total += jnp.square(scores).sum()
        return total

    have = jax.jit(jax.grad(scanned))(stream.variables)["params"]
    want = jax.jit(jax.grad(looped))(stream.variables)["params"]
    for leaf, other in zip(*map(jax.tree.leaves, (have, want)), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-4 * (1 + np.abs(other).max()))
    assert np.abs(want["blocks_0"]["attn"]["qkv"]["kernel"]).max() > 0


# Recordings that end inside a piece, at its end, and where only the mirrored end completes one;
# 5120 samples are a piece. All end together, at different points, in one program.
ENDS = (4_000, 5_120, 5_200, 15_200, 15_360, 15_500)


@pytest.mark.parametrize(
    ("name", "pad_last", "falls_silent"),
    [
        ("seamless", False, False),
        ("seamless", True, False),
        ("seamless", True, True),  # The floor of the spectrogram follows the loud beginning.
        ("seamless, clip model", False, False),
        ("seamless, clip model", True, False),
        ("seamless, token", False, False),
    ],
)
def test_9_seamless_streaming_is_clip_mode(name: str, pad_last: bool, falls_silent: bool) -> None:
    stream = stream_of(name)
    config = dataclasses.replace(stream.model.config, pad_last=pad_last)
    model = dataclasses.replace(stream.model, config=config)
    waves = [noise(num_samples, num_samples) for num_samples in ENDS]
    if falls_silent:
        waves = [np.where(np.arange(len(wave)) < 2_000, 10 * wave, 0) for wave in waves]
    for wave, scores in zip(waves, to_the_end(model, stream.variables, waves), strict=True):
        want = model.clip(stream.variables, wave[None])[0]
        np.testing.assert_allclose(np.mean(scores, axis=0), want, atol=2e-5)


def test_9_shorter_seamless_chunks_are_clip_mode_of_a_shorter_model() -> None:
    config = changed(pad_last=True)
    model = StreamingModel(config, make_framing(config, "seamless", chunk_seconds=0.16))
    short = StreamingModel(dataclasses.replace(config, target_length=16), model.framing)
    variables = stream_of("seamless").variables
    params = variables["params"]
    # One column of patches needs the first position, and the cache the last two.
    cut_params = params | {"time_pos_embed": params["time_pos_embed"][np.array([0, 2, 3])]}
    waves = [noise(num_samples, num_samples) for num_samples in ENDS]
    for wave, scores in zip(waves, to_the_end(model, variables, waves), strict=True):
        want = short.clip(variables | {"params": cut_params}, wave[None])[0]
        np.testing.assert_allclose(np.mean(scores, axis=0), want, atol=2e-5)


def to_the_end(
    model: StreamingModel, variables: Any, waves: list[np.ndarray]
) -> list[list[np.ndarray]]:
    """Returns the scores of all chunks of each wave, streamed side by side."""
    windows, rests = zip(*(cut(model.framing, wave) for wave in waves), strict=True)
    chunks = [len(each) for each in windows]
    state = model.init(variables, len(waves), warmup="none")
    scores: list[list[np.ndarray]] = [[] for _ in waves]
    none = np.full(model.framing.window, np.nan, np.float32)
    for index in range(max(chunks)):
        active = np.array([index < count for count in chunks])
        window = [each[index] if index < len(each) else none for each in windows]
        probs, state = model.step(variables, np.stack(window), state, active)
        for row in np.flatnonzero(active):
            scores[row].append(probs[row])
    ends = gather_ends(model.config, model.framing, rests, chunks)
    last = model.finish(variables, ends, state)
    for row, count in enumerate(ends.num_chunks(model.framing)):
        scores[row] += list(last[:count, row])
    return scores


@pytest.mark.parametrize("name", ["seamless", "mean", "one-patch chunks"])
def test_10_blocks_of_any_lengths_make_the_same_windows(name: str) -> None:
    framing = stream_of(name).model.framing
    rng, hop = np.random.default_rng(3), framing.hop
    waves = noise(2 * 6 * hop).reshape(2, -1)
    whole = [cut(framing, wave) for wave in waves]
    for longest in (hop // 7, hop):
        empty = ModelState(cache=(), peak_db=np.zeros(2))
        state, position, found = new_streams(framing, empty), 0, [[], []]
        while position < waves.shape[1]:
            length = int(rng.integers(1, longest + 1)) if position else 1
            block = waves[:, position : position + length]
            position += block.shape[1]
            before = jax.tree.map(np.copy, state)
            windows, after = hold_samples(framing, state, block)
            for row in np.flatnonzero(after.ready):
                found[row].append(windows[row])
            jax.tree.map(np.testing.assert_array_equal, state, before)
            state = after
        for row, (windows, rest) in enumerate(whole):
            np.testing.assert_array_equal(np.stack(found[row]), windows)
            np.testing.assert_array_equal(state.window[row, : state.filled[row]], rest)
            assert state.chunks[row] == len(windows)


# Lengths of rests in samples: under one patch, whole patches, some of the next one, nearly a chunk.
@every_variant
def test_12_padded_ends_score_as_if_they_were_not(name: str) -> None:
    stream = stream_of(name)
    model, config, frontend = stream.model, stream.model.config, stream.model.config.frontend
    if model.framing.kind == "seamless":
        return  # See test 9.
    longest = model.framing.hop - 1
    lengths = [1, min(2_600, longest), longest // 2 + 7, longest]
    _, state = stream.loop(stream.windows[:2, [0, 1, 0, 1]], stream.init(len(lengths)))
    rests = [noise(length, length) for length in lengths]
    ends = gather_ends(config, model.framing, rests, [2] * len(lengths))
    (have,) = model.finish(stream.variables, ends, state)
    for row, rest in enumerate(rests):
        plan = plan_clip(config, frontend.num_frames(len(rest)))
        wave = np.pad(rest, (0, max(0, 2_560 - len(rest))))[None]
        one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], state)
        want = score_unpadded(model, stream.variables, wave, one, plan=plan)[0]
        np.testing.assert_allclose(have[row], want, atol=tolerance(name), err_msg=str(len(rest)))


@functools.partial(jax.jit, static_argnums=0, static_argnames="plan")
def score_unpadded(
    model: StreamingModel, variables: Any, wave: jax.Array, state: ModelState, *, plan: PiecePlan
) -> jax.Array:
    spectrogram = log_mel(wave, model.config.frontend)
    normalized = normalize(model.network, variables, spectrogram)
    scores, _ = run_pieces(model.network, variables, normalized, state.cache, plan=plan)
    return to_probs(model.config, scores.mean(0))


def test_a_step_takes_whole_windows() -> None:
    stream = stream_of("mean")
    too_many = np.zeros((2, stream.model.framing.window + 1), np.float32)
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
        shape = (num_chunks, *stream.windows.shape[1:])
        windows = jax.ShapeDtypeStruct(shape, jnp.float32)
        lowered = StreamingModel.scan.lower(stream.model, stream.variables, windows, stream.init())
        return lowered.compile().memory_analysis().temp_size_in_bytes

    # A chunk's scores may be set aside, but nothing of the order of its samples or tokens.
    assert temporary_bytes(200) - temporary_bytes(20) < 180 * 100
