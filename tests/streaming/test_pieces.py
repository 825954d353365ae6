"""The pieces of a spectrogram against the published rule, written out in loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_jax.config import ModelConfig
from sat_jax.streaming.pieces import PiecePlan, cut_pieces, plan_clip, plan_pieces


def lengths_by_rule(config: ModelConfig, frames: int) -> list[tuple[int, int]]:
    """Returns the frames of each piece, without and with zero-padding."""
    target = config.target_length
    if frames <= (target if config.is_streaming else target + 15):
        return [(frames, frames)]
    lengths = []
    while frames >= target:
        lengths.append((target, target))
        frames -= target
    if frames and config.pad_last:
        padded = target
        if config.is_streaming:
            padded = next(length for length in range(16, 999, 16) if length >= frames)
        lengths.append((frames, padded))
    return lengths


@settings(max_examples=200, deadline=None)
@given(st.integers(16, 70), st.sampled_from([0, 32]), st.booleans(), st.integers(16, 300))
def test_pieces_are_those_of_the_rule(
    target_length: int, cache_length: int, pad_last: bool, frames: int
) -> None:
    config = ModelConfig(
        width=64, target_length=target_length, cache_length=cache_length, pad_last=pad_last
    )
    wanted = lengths_by_rule(config, frames)
    assert plan_pieces(config, frames).lengths == wanted
    # A whole recording has the same patches: frames of a single piece that fill none are left out.
    columns = [padded // 16 for _, padded in wanted]
    of_clip = plan_clip(config, frames).lengths
    assert [padded // 16 for _, padded in of_clip] == columns
    assert of_clip == (wanted if len(wanted) > 1 else [(16 * columns[0], 16 * columns[0])])


@pytest.mark.parametrize(
    "plan", [PiecePlan(1, 40, 0, 0), PiecePlan(2, 20, 5, 16), PiecePlan(0, 20, 7, 32)]
)
def test_pieces_follow_each_other_and_the_last_ends_with_zeros(plan: PiecePlan) -> None:
    spectrogram = np.random.default_rng(0).random((2, 3, 50)).astype(np.float32)
    whole, rest = cut_pieces(plan, spectrogram)
    position = 0
    for piece, (length, padded) in zip(
        [*whole, *([] if rest is None else [rest])], plan.lengths, strict=True
    ):
        assert piece.shape == (2, 3, padded)
        want = spectrogram[..., position : position + length]
        np.testing.assert_array_equal(piece[..., :length], want)
        assert not piece[..., length:].any()
        position += length
