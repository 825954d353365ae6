"""Streams beside the PyTorch model, for any chunk length, warm-up and end.

The golden numbers have whole chunks of the models' own lengths, and short ones only after silence.
"""

import numpy as np
import pytest
import torch

from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint
from tests.support.golden_models import small_config, small_weights
from tests.support.reference_models import small_sat, stream

LABELS = tuple("abcdefghijk")


@pytest.mark.parametrize(
    ("name", "seconds", "warmup", "length", "pad_last"),
    [
        ("sat_mean_2s", 0.16, "none", 2.5, False),  # More chunks than the cache holds, then 0.1 s.
        ("sat_dm_1s", 0.5, "none", 2.2, False),  # Chunks of three columns, a cache of six.
        ("sat_short_cache", 0.34, "silence", 1.5, False),
        ("sat_logit_2s", 2.5, "none", 5.3, False),  # More than a piece.
        ("sat_dm_1s", 1.2, "silence", 3.0, True),  # A chunk is two pieces, the end one.
    ],
)
def test_streams_are_those_of_pytorch(
    name: str, seconds: float, warmup: str, length: float, pad_last: bool
) -> None:
    checkpoint = Checkpoint(
        config=small_config(name, pad_last=pad_last), variables=small_weights(name), labels=LABELS
    )
    tagger = Tagger(checkpoint, chunk_seconds=seconds)
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(round(16_000 * length)).astype(np.float32)
    # The floors of spectrograms follow the maximum of each chunk.
    wave[len(wave) // 4 : len(wave) // 2] = 0.0
    wave[-100:] = 0.0
    have = np.stack([chunk.probs for chunk in tagger.stream([wave], warmup=warmup)])
    # What is shorter than a patch ends with silence.
    whole = round(16_000 * seconds)
    rest = max(-(-len(wave) // whole) * whole - whole + 2560 - len(wave), 0)
    padded = torch.from_numpy(np.pad(wave, (0, rest)))[None]
    want, _ = stream(small_sat(name, pad_last=pad_last), padded, seconds, chunks=100, warmup=warmup)
    if name == "sat_logit_2s":
        want = want.sigmoid()
    assert len(have) == -(-len(wave) // whole)
    np.testing.assert_allclose(have, want, atol=1e-5)
