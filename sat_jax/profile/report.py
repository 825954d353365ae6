"""Profiles as Markdown tables and JSON."""

import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Any

import jax

from sat_jax.profile.measure import Profile
from sat_jax.profile.published_table import (
    counted_gflops,
    differences,
    published_row,
    stream_mib,
    summed_mib,
)
from sat_jax.profile.timing import cpu_model, markdown_table

NOTES = """\
Multiply-adds are those of the matrix products, for one stream. XLA also counts the FFT and
element-wise operations, but a loop over a long chunk's pieces only once. Temporary memory, state
and time are for all streams."""

PUBLISHED_NOTES = """\
GFLOPs are of the network, for one stream, two for each multiply-add. *By its rule*: layers with
weights on new tokens, without attention's two products and without cached tokens. *Sum of outputs*:
of all blocks in float32, if none were freed. How PeakMem was measured is not known; this sum is
close to most of it. mAP is the published one; `sat-jax evaluate` measures it."""


def describe_machine() -> dict[str, Any]:
    """Describes the device and the versions, for people and JSON."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": cpu_model() if device.platform == "cpu" else device.device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
    }


def as_json(profiles: Sequence[Profile], machine: dict[str, Any]) -> str:
    """Returns all numbers as JSON."""
    models = [_with_published(profile) for profile in profiles]
    return json.dumps({"machine": machine, "models": models}, indent=2)


def _with_published(profile: Profile) -> dict[str, Any]:
    row = published_row(profile)
    if row is None:
        return profile.to_dict() | {"published": None}
    figures = {
        "tokens": row.tokens,
        "parameters_m": float(row.parameters),
        "gflops": float(row.gflops),
        "gflops_by_its_rule": counted_gflops(profile),
        "memory_mib": float(row.memory),
        "memory_mib_by_its_rule": summed_mib(profile),
        "mAP": row.mean_average_precision,
        "differences": list(differences(profile, row)),
    }
    return profile.to_dict() | {"published": figures}


def as_markdown(profiles: Sequence[Profile], machine: dict[str, Any]) -> str:
    """Returns a table of costs, and one beside the published figures with their differences."""
    load = "" if machine["load"] is None else f", load {machine['load']:.1f}"
    batch = profiles[0].batch_size
    parts = [
        f"{machine['device']} ({machine['platform']}), {machine['cores']} cores{load}; "
        f"jax {machine['jax']}, jaxlib {machine['jaxlib']}; "
        f"{batch} stream{'s' if batch > 1 else ''}",
        _table([_cost_cells(profile) for profile in profiles]),
        NOTES,
    ]
    rows = [(profile, published_row(profile)) for profile in profiles]
    lines = [f"- {line}" for profile, row in rows if row for line in differences(profile, row)]
    if any(row for _, row in rows):
        published = _table([_published_cells(profile) for profile in profiles])
        parts += [published, PUBLISHED_NOTES, "\n".join(lines)]
    return "\n\n".join(part for part in parts if part)


def _cost_cells(profile: Profile) -> dict[str, str]:
    work, latency = profile.multiply_adds, profile.latency
    return {
        "model": profile.model,
        "chunk s": f"{profile.chunk_seconds:g}",
        "tokens new/cached": str(profile.tokens),
        "parameters M": f"{profile.parameters / 1e6:.3f}",
        "multiply-adds M": f"{work.total / 1e6:.1f}",
        "of the front end M": f"{work.front_end / 1e6:.1f}",
        "GFLOP": f"{2e-9 * work.total:.3f}",
        "GFLOP (XLA)": f"{profile.xla_flops / profile.batch_size / 1e9:.3f}",
        "temporary MB": f"{profile.temporary_bytes / 1e6:.2f}",
        "state MB": f"{profile.state_bytes / 1e6:.2f}",
        "ms (p95)": f"{latency.median_ms:.1f} ({latency.p95_ms:.1f})" if latency else "",
    }


def _published_cells(profile: Profile) -> dict[str, str]:
    row = published_row(profile)
    return {
        "model": profile.model,
        "delay s": f"{profile.chunk_seconds:g}",
        "tokens (published)": f"{profile.tokens}"
        + (f" ({row.tokens})" if row and row.tokens else ""),
        "parameters M (published)": f"{profile.parameters / 1e6:.3f}"
        + (f" ({row.parameters})" if row else ""),
        "GFLOPs": f"{2e-9 * profile.multiply_adds.network:.3f}",
        "published": row.gflops if row else "",
        "by its rule": f"{counted_gflops(profile):.3f}",
        "memory MiB": f"{stream_mib(profile):.1f}",
        "published PeakMem": row.memory if row else "",
        "sum of outputs": f"{summed_mib(profile):.1f}",
        "published mAP": f"{row.mean_average_precision:.1f}" if row else "",
    }


def _table(rows: Sequence[dict[str, str]]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])
