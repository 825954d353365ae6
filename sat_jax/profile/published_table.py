"""Published figures beside those of a profile, and why they differ."""

from collections.abc import Iterator

from sat_jax.profile.measure import Profile
from sat_jax.weights.catalog import PUBLISHED, Published

MIB = 2.0**20

_WIDTHS_PER_TOKEN = 18
"""Outputs of a block for one token, in model widths, if none were freed: norm1 1, qkv 3,
attention 1, proj 1, sum 1, norm2 1, fc1 4, GELU 4, fc2 1, sum 1."""
_WIDTHS_PER_CACHED_TOKEN = 3
"""The same for a cached token that is projected again: norm1 1, keys and values 2."""

UNPUBLISHED = (
    ("audiotransformer_xs", 2.0),
    ("SAT_XS_2s", 2.0),
    ("audiotransformer_xs", 1.0),
    ("SAT_XS_1s", 1.0),
)
"""Further models, with their delays in seconds, for the same table."""


def published_row(profile: Profile) -> Published | None:
    """Returns the published row of the same model and chunk length; None without one."""
    for row in PUBLISHED:
        if (row.model, row.delay) == (profile.model, profile.chunk_seconds):
            return row
    return None


def counted_gflops(profile: Profile) -> float:
    """Counts GFLOPs as published: two for each multiply-add of layers with weights, new tokens."""
    return 2e-9 * profile.multiply_adds.published


def summed_mib(profile: Profile) -> float:
    """Sums the float32 outputs of all blocks as if none were freed, without attention weights.

    How the published PeakMem was measured is not known. This sum is close to most of its figures.
    """
    config, tokens, row = profile.config, profile.tokens, published_row(profile)
    # The published table has as many cached tokens as new ones, whatever the config says.
    cached = tokens.new if row is not None and config.is_streaming else tokens.cached
    widths = _WIDTHS_PER_TOKEN * tokens.new + _WIDTHS_PER_CACHED_TOKEN * cached
    return config.depth * config.width * widths * 4 / MIB


def stream_mib(profile: Profile) -> float:
    """Returns temporary memory and state of one stream."""
    return (profile.temporary_bytes + profile.state_bytes) / profile.batch_size / MIB


def differences(profile: Profile, row: Published) -> Iterator[str]:
    """Yields a line for each figure that differs from the published one."""
    for name, line in (
        ("tokens", _compare_tokens(profile, row)),
        ("parameters", _compare_parameters(profile, row)),
        ("GFLOPs", _compare_gflops(profile, row)),
        ("memory", _compare_memory(profile, row)),
    ):
        if line:
            yield f"{row.model}, {row.delay:g} s, {name}: {line}"


def _compare_tokens(profile: Profile, row: Published) -> str:
    tokens = profile.tokens
    if row.tokens is None and tokens.cached > tokens.new:
        return f"{tokens} here, not published; this model has the cache of the 2 s model."
    if row.tokens in (None, str(tokens)):
        return ""
    return f"{row.tokens} published, {tokens} here: not explained."


def _compare_parameters(profile: Profile, row: Published) -> str:
    if _rounds_to(profile.parameters / 1e6, row.parameters):
        return ""
    return f"{row.parameters} M published, {profile.parameters / 1e6:.3f} M here: not explained."


def _compare_gflops(profile: Profile, row: Published) -> str:
    config, work, counted = profile.config, profile.multiply_adds, counted_gflops(profile)
    origin = "the published count" if _rounds_to(counted, row.gflops) else "not explained"
    attention = 2e-9 * (work.attention_new + work.attention_cached)
    line = (
        f"{row.gflops} published, {2e-9 * work.network:.3f} here: {counted:.3f} for layers with "
        f"weights on new tokens ({origin}) + {attention:.3f} for attention"
    )
    if work.spared:
        line += f" - {2e-9 * work.spared:.3f} for the last block, which needs the cls token only"
    if not config.is_streaming:
        return f"{line}."
    all_layers = config.depth * config.cache_tokens * 2 * config.width**2
    return (
        f"{line} + {2e-9 * work.cached_kv:.3f} for cached tokens in layer 0. Cached keys and "
        f"values save {2e-9 * (all_layers - work.cached_kv):.3f} in the other layers."
    )


def _compare_memory(profile: Profile, row: Published) -> str:
    here, summed = stream_mib(profile), summed_mib(profile)
    if _rounds_to(here, row.memory):
        return ""
    return (
        f"{row.memory} MiB published, {here:.1f} here (temporary memory and state): XLA reuses "
        f"memory from block to block. The sum of all outputs is {summed:.1f} MiB "
        f"({summed / float(row.memory) - 1.0:+.0%})."
    )


def _rounds_to(value: float, printed: str) -> bool:
    digits = len(printed.partition(".")[2])
    return f"{value:.{digits}f}" == printed
