"""States as bytes: they go on as if never stopped; everything else is refused in one line."""

import hashlib

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sat_jax import SatError, StreamState, Tagger
from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.streaming import state_from_bytes, state_to_bytes
from sat_jax.weights.checkpoint import Checkpoint

TINY = ModelConfig(width=64, depth=2, num_classes=5, target_length=32, cache_length=32)


def make_tagger(framing="chunk", chunk_seconds=0.32, **changes):
    config = ModelConfig(**(TINY.to_dict() | {"frontend": TINY.frontend} | changes))
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    checkpoint = Checkpoint(config=config, variables=variables, labels=default_label_names(5))
    return Tagger(checkpoint, chunk_seconds=chunk_seconds, framing=framing)


@pytest.fixture(scope="module")
def tagger():
    return make_tagger()


def signed(data):
    """Returns bytes whose checksum is right, whatever they hold."""
    return b"sat_jax streams 2\n" + hashlib.blake2b(data, digest_size=16).digest() + data


def refused(like, data):
    with pytest.raises(SatError, match=r"^[^\n]+$"):
        state_from_bytes(like, data)


def test_a_saved_state_goes_on_as_if_never_stopped(tagger):
    samples = 0.1 * np.random.default_rng(0).standard_normal((5, 2, 3_000)).astype(np.float32)
    state = tagger.init(2)
    for block in samples[:3]:
        _, state = tagger.step(block, state)
    restored = state_from_bytes(tagger.init(2, "none"), state_to_bytes(state))
    for block in samples[3:]:
        want, state = tagger.step(block, state)
        have, restored = tagger.step(block, restored)
        np.testing.assert_array_equal(have, want)
    assert state_to_bytes(restored) == state_to_bytes(state)


def test_counters_of_any_integer_type_are_saved(tagger):
    state = tagger.init(1, "none")._replace(chunks=jnp.full((1,), 7, jnp.int32))
    assert state_from_bytes(tagger.init(1, "none"), state_to_bytes(state)).chunks.tolist() == [7]


def test_every_flipped_bit_is_noticed(tagger):
    state = tagger.init(1, "none")
    data, rng = state_to_bytes(state), np.random.default_rng(0)
    for place in [*range(60), *rng.integers(0, len(data), 60)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        refused(state, bytes(damaged))


def test_cut_longer_and_foreign_bytes_are_refused(tagger):
    state = tagger.init(1, "none")
    data = state_to_bytes(state)
    for length in (0, 1, 17, 18, 30, 34, len(data) // 2, len(data) - 1):
        refused(state, data[:length])
    for other in (data + b"x", data + data, b"hello", "text", None, signed(b""), signed(b"\xc1")):
        refused(state, other)
    refused(state, flax.serialization.to_bytes(state))  # As version 1 wrote it.
    refused(state, data.replace(b"streams 2", b"streams 3"))


@pytest.mark.parametrize(
    "changes",
    [
        {"framing": "seamless"},
        {"chunk_seconds": 0.16},
        {"width": 128},
        {"depth": 1},
        {"depth": 3},
        {"cache_length": 0},
        {"cache_length": 48},
        {"dtype": "bfloat16"},
    ],
)
def test_states_of_other_models_and_framings_are_refused(changes, tagger):
    refused(make_tagger(**changes).init(1, "none"), state_to_bytes(tagger.init(1, "none")))


def test_states_of_other_batches_are_refused(tagger):
    with pytest.raises(SatError, match=r"\[2, 8, 64\].*\[3, 8, 64\]"):
        state_from_bytes(tagger.init(3, "none"), state_to_bytes(tagger.init(2, "none")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filled", np.array([-(10**9)])),
        ("filled", np.array([5_120])),
        ("filled", np.array([10**6])),
        ("filled", np.array([1.0])),
        ("filled", np.array([[0]])),
        ("filled", "0"),
        ("filled", 0),
        ("filled", None),
        ("chunks", np.array([-1])),
        ("chunks", np.array([np.nan])),
        ("ready", np.array([1])),
        ("ready", None),
        ("ready", {}),
        ("window", np.zeros((1, 5_119), np.float32)),
        ("peak_db", {}),
        ("cache", {}),
        ("cache", 3),
    ],
)
def test_damaged_fields_are_refused(name, value, tagger):
    """By bytes whose checksum is right, and by each function of a tagger."""
    state = tagger.init(1, "none")
    fields = flax.serialization.to_state_dict(state) | {name: value}
    refused(state, signed(flax.serialization.msgpack_serialize(fields)))
    for call in (
        lambda state: tagger.step(np.zeros(100, np.float32), state),
        lambda state: tagger.scan(np.zeros((1, 1, 100), np.float32), state),
        tagger.finish,
    ):
        with pytest.raises(SatError, match=r"^this state [^\n]+$"):
            call(state._replace(**{name: value}))


def test_more_cached_tokens_than_there_is_room_for_are_refused(tagger):
    state = tagger.init(1, "none")
    for count in (-1, 9):
        cache = state.cache._replace(num_real=np.array([count], np.int32))
        refused(state, state_to_bytes(state._replace(cache=cache)))


@pytest.mark.parametrize("nothing", [None, 3, (), np.zeros(4), {}])
def test_other_objects_are_not_states(nothing, tagger):
    with pytest.raises(SatError, match=r"^[^\n]+$"):
        state_to_bytes(nothing)
    refused(nothing, state_to_bytes(tagger.init(1, "none")))
    assert isinstance(tagger.init(), StreamState)
