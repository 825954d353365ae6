"""The published table, and where its figures come from."""

from collections.abc import Iterator

from sat_jax.profile.analytic import Tokens, bytes_of_all_outputs, cached_kv_of_all_layers
from sat_jax.profile.measure import Profile
from sat_jax.weights.catalog import PUBLISHED, Published

MIB = 2.0**20
MEMORY_TOLERANCE = 0.05
"""How far the published memory may be from the rule that is named as its origin."""

EXTRA_SMALL = (
    ("audiotransformer_xs", 2.0),
    ("SAT_XS_2s", 2.0),
    ("audiotransformer_xs", 1.0),
    ("SAT_XS_1s", 1.0),
)
"""Models and delays that nobody has published, for the same table."""


def published_row(profile: Profile) -> Published | None:
    """The published row of a model by its registry name and chunk length, if there is one."""
    for row in PUBLISHED:
        if (row.model, row.delay) == (profile.model, profile.chunk_seconds):
            return row
    return None


def counted_gflops(profile: Profile) -> float:
    """The published rule for GFLOPs: layers with weights, on new tokens (and a cls token)."""
    return 2e-9 * profile.multiply_adds.published


def summed_mib(profile: Profile) -> float:
    """What fits the published memory: all outputs of all blocks in float32, none freed."""
    tokens, row = profile.tokens, published_row(profile)
    if row is not None and profile.config.is_streaming:
        # As the table has it: as many cached as new, also where the lengths say otherwise.
        tokens = Tokens(new=tokens.new, cached=tokens.new)
    return bytes_of_all_outputs(profile.config, tokens) / MIB


def differences(profile: Profile, row: Published) -> Iterator[str]:
    """One line on each figure that is not the published one, or not counted as it was."""
    for name, line in (
        ("tokens", _about_tokens(profile, row)),
        ("parameters", _about_parameters(profile, row)),
        ("GFLOPs", _about_gflops(profile, row)),
        ("memory", _about_memory(profile, row)),
    ):
        if line:
            yield f"{row.model}, {row.delay:g} s, {name}: {line}"


def _about_tokens(profile: Profile, row: Published) -> str:
    if row.tokens is None and profile.tokens.cached > profile.tokens.new:
        return (
            f"left blank, {tokens_text(profile)} here, since this model is published with the "
            "lengths of the 2 s one."
        )
    if row.tokens in (None, tokens_text(profile)):
        return ""
    return f"{row.tokens} published, {tokens_text(profile)} here: not explained."


def _about_parameters(profile: Profile, row: Published) -> str:
    if _rounds_to(profile.parameters / 1e6, row.parameters):
        return ""
    return f"{row.parameters} M published, {profile.parameters / 1e6:.3f} M here: not explained."


def _about_gflops(profile: Profile, row: Published) -> str:
    work, counted = profile.multiply_adds, counted_gflops(profile)
    origin = (
        "which rounds to what was published" if _rounds_to(counted, row.gflops) else "not explained"
    )
    attention = 2e-9 * (work.attention_new + work.attention_cached)
    line = (
        f"{row.gflops} published, {2e-9 * work.network:.3f} here: {counted:.3f} of layers with "
        f"weights on new tokens, {origin}, + {attention:.3f} of attention's products"
    )
    if work.spared:
        spared = f"{2e-9 * work.spared:.3f} spared in the last block"
        line += f" - {spared}, of which only the cls token is wanted"
    if not profile.config.is_streaming:
        return f"{line}."
    again = 2e-9 * (cached_kv_of_all_layers(profile.config) - work.cached_kv)
    return (
        f"{line} + {2e-9 * work.cached_kv:.3f} of layer 0 on cached tokens; those of the other "
        f"layers are not projected again, which would be {again:.3f} more."
    )


def _about_memory(profile: Profile, row: Published) -> str:
    here = (profile.temporary_bytes + profile.state_bytes) / MIB / profile.batch_size
    if _rounds_to(here, row.memory):
        return ""
    summed = summed_mib(profile)
    apart = summed / float(row.memory) - 1.0
    fit = "fits" if abs(apart) <= MEMORY_TOLERANCE else f"does not fit ({apart:+.0%})"
    return (
        f"{row.memory} MiB published, {here:.1f} here (temporary and state): XLA uses memory again "
        f"from block to block; the sum of all outputs, {summed:.1f}, {fit}."
    )


def tokens_text(profile: Profile) -> str:
    """New tokens, or new/cached ones, as the published table writes them."""
    tokens = profile.tokens
    return f"{tokens.new}/{tokens.cached}" if tokens.cached else str(tokens.new)


def _rounds_to(value: float, printed: str) -> bool:
    digits = len(printed.partition(".")[2])
    return f"{value:.{digits}f}" == printed
