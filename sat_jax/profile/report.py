"""Profiles as text."""

import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Any

import jax

from sat_jax.profile.measure import Profile
from sat_jax.profile.published import (
    MIB,
    counted_gflops,
    differences,
    published_row,
    summed_mib,
    tokens_text,
)
from sat_jax.profile.tables import markdown_table
from sat_jax.profile.timing import cpu_model

NOTES = """\
Multiply-adds are those of the matrix products, for one stream; the FFT and what is done element by
element are in XLA's count only, which has one round of the loop over a long chunk's pieces.
Temporary memory and state are for all streams, and so is a step's time."""

PUBLISHED_NOTES = """\
GFLOPs are of the network, for one stream, two for each multiply-add. *By its rule*: layers with
weights on new tokens, without attention's two products and without cached tokens. *Sum of outputs*:
of all blocks in float32, as if none were freed; where PeakMem comes from is not known, and this
fits most of it. mAP is the published one: `evaluate.py` measures it."""


def describe_machine() -> dict[str, Any]:
    """What the numbers were found on."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": cpu_model() if device.platform == "cpu" else device.device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
    }


def as_json(profiles: Sequence[Profile], machine: dict[str, Any]) -> str:
    """All numbers."""
    return json.dumps(
        {"machine": machine, "models": [_with_published(p) for p in profiles]}, indent=2
    )


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
    """Two tables, what a step costs and the published one, and lines on their differences."""
    load = "" if machine["load"] is None else f", load {machine['load']:.1f}"
    batch = profiles[0].batch_size
    parts = [
        f"{machine['device']} ({machine['platform']}), {machine['cores']} cores{load}; "
        f"jax {machine['jax']}, jaxlib {machine['jaxlib']}; "
        f"{batch} stream{'s' if batch > 1 else ''} side by side",
        _cost_table(profiles),
        NOTES,
    ]
    if any(published_row(profile) for profile in profiles):
        lines = [
            f"- {line}"
            for profile in profiles
            if (row := published_row(profile))
            for line in differences(profile, row)
        ]
        parts += [_published_table(profiles), PUBLISHED_NOTES, "\n".join(lines)]
    return "\n\n".join(part for part in parts if part)


def _cost_table(profiles: Sequence[Profile]) -> str:
    columns = [
        "model",
        "chunk s",
        "tokens new/cached",
        "parameters M",
        "multiply-adds M",
        "of the front end M",
        "GFLOP",
        "GFLOP (XLA)",
        "temporary MB",
        "state MB",
        "ms (p95)",
    ]
    return markdown_table(columns, [_cost_row(profile) for profile in profiles])


def _cost_row(profile: Profile) -> list[str]:
    work, latency = profile.multiply_adds, profile.latency
    return [
        profile.model,
        f"{profile.chunk_seconds:g}",
        tokens_text(profile),
        f"{profile.parameters / 1e6:.3f}",
        f"{work.total / 1e6:.1f}",
        f"{work.front_end / 1e6:.1f}",
        f"{2e-9 * work.total:.3f}",
        f"{profile.xla_flops / profile.batch_size / 1e9:.3f}",
        f"{profile.temporary_bytes / 1e6:.2f}",
        f"{profile.state_bytes / 1e6:.2f}",
        f"{latency.median_ms:.1f} ({latency.p95_ms:.1f})" if latency else "",
    ]


def _published_table(profiles: Sequence[Profile]) -> str:
    columns = [
        "model",
        "delay s",
        "tokens (published)",
        "parameters M (published)",
        "GFLOPs",
        "published",
        "by its rule",
        "memory MiB",
        "published PeakMem",
        "sum of outputs",
        "published mAP",
    ]
    return markdown_table(columns, [_published_cells(profile) for profile in profiles])


def _published_cells(profile: Profile) -> list[str]:
    row = published_row(profile)
    # One stream's, as published.
    memory = (profile.temporary_bytes + profile.state_bytes) / profile.batch_size / MIB
    return [
        profile.model,
        f"{profile.chunk_seconds:g}",
        tokens_text(profile) + (f" ({row.tokens})" if row and row.tokens else ""),
        f"{profile.parameters / 1e6:.3f}" + (f" ({row.parameters})" if row else ""),
        f"{2e-9 * profile.multiply_adds.network:.3f}",
        row.gflops if row else "",
        f"{counted_gflops(profile):.3f}",
        f"{memory:.1f}",
        row.memory if row else "",
        f"{summed_mib(profile):.1f}",
        f"{row.mean_average_precision:.1f}" if row else "",
    ]
