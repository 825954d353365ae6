"""Published figures and what explains them."""

import dataclasses

import pytest

from sat_jax.models.registry import MODELS
from sat_jax.profile import published_table
from sat_jax.profile.costs import count_multiply_adds, count_parameters, count_tokens
from sat_jax.profile.measure import Profile
from sat_jax.streaming.framing import make_framing
from sat_jax.weights.catalog import PUBLISHED


def counted_profile(row):
    """A profile with counts from the config; 2 MiB of temporary memory and 1 MiB of state."""
    config = MODELS[row.model]
    framing = make_framing(config, chunk_seconds=row.delay)
    return Profile(
        model=row.model,
        config=config,
        chunk_seconds=row.delay,
        batch_size=1,
        parameters=count_parameters(config),
        tokens=count_tokens(config, framing),
        multiply_adds=count_multiply_adds(config, framing),
        matmul_flops=0,
        xla_flops=0.0,
        temporary_bytes=2 << 20,
        state_bytes=1 << 20,
        compile_seconds=0.0,
        latency=None,
    )


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.model} {row.delay}")
def test_published_figures_are_explained(row):
    profile = counted_profile(row)
    assert published_table.published_row(profile) is row
    assert f"{published_table.counted_gflops(profile):.1f}" == row.gflops
    difference = published_table.summed_mib(profile) / float(row.memory) - 1.0
    assert not any("not explained" in line for line in published_table.differences(profile, row))
    # The published PeakMem of the B models at 1 s is lower than the sum of outputs.
    is_odd = row.model in ("audiotransformer_base", "SAT_B_1s") and row.delay == 1.0
    assert (abs(difference) > 0.05) == is_odd


def test_differences_name_the_figures():
    [row] = [row for row in PUBLISHED if row.model == "SAT_T_2s"]
    gflops, memory = published_table.differences(counted_profile(row), row)
    assert gflops.startswith("SAT_T_2s, 2 s, GFLOPs: 0.5 ")
    for figure in ("0.564", "0.515", "0.042", "0.007", "0.078"):
        assert figure in gflops
    assert memory.startswith("SAT_T_2s, 2 s, memory: 9 MiB ")
    assert "3.0" in memory and "8.9" in memory
    wrong = dataclasses.replace(counted_profile(row), parameters=5_000_000)
    [line] = [line for line in published_table.differences(wrong, row) if "parameters" in line]
    assert "5.496 M" in line and "5.000 M" in line
