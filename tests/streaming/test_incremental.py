"""Recordings that arrive in blocks give what whole recordings give."""

import jax
import numpy as np
import pytest

from sat_jax.config import FrontendConfig
from sat_jax.models.frontend import log_mel
from sat_jax.runtime.program_store import open_store
from sat_jax.streaming.incremental import SpectrogramStream, rebuffer

FRONTEND = FrontendConfig()
_log_mel = jax.jit(log_mel, static_argnums=1)


@pytest.mark.parametrize("num_samples", [257, 300, 2560, 80_000, 80_095, 80_096, 200_001])
@pytest.mark.parametrize("block", [1000, 77_777, 10**6])
def test_spectrogram_of_blocks_is_that_of_the_whole(num_samples: int, block: int) -> None:
    rng = np.random.default_rng(num_samples)
    wave = rng.standard_normal(num_samples).astype(np.float32)
    stream = SpectrogramStream(FRONTEND, open_store(None))
    parts = [p for begin in range(0, num_samples, block) for p in stream.push(wave[begin:][:block])]
    have = np.concatenate(parts + stream.finish(), axis=1)
    want = np.asarray(log_mel(wave[None], FRONTEND))[0]
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, atol=1e-3)


def test_rebuffer_keeps_every_sample_in_order() -> None:
    rng = np.random.default_rng(0)
    signal = np.arange(10_000, dtype=np.float32)
    for _ in range(20):
        cuts = np.sort(rng.integers(0, len(signal), 9))
        size, first = int(rng.integers(1, 900)), int(rng.integers(0, 900))
        blocks = list(rebuffer(np.split(signal, cuts), size, first=first))
        np.testing.assert_array_equal(np.concatenate(blocks), signal)
        assert len(blocks[0]) == (first or size)
        assert {len(b) for b in blocks[1:-1]} <= {size}
