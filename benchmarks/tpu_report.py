r"""Compiles training steps for TPUs, without a TPU, and reports memory and communication.

python -m benchmarks.tpu_report --topologies v5e:16x16,v6e:16x16 \
    --config configs/sat.py:SAT_T_2s --config configs/sat.py:SAT_B_2s --largest

Prints a Markdown table; --json writes all numbers to a file. See docs/pods.md.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.measuring import markdown_table
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments

DTYPES = ("float32", "bfloat16")
FSDP = {"off": False, "on": True}
CHIPS = {"TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32}
"""Memory of a chip in GB, from which the search for the largest batch starts."""

FLAGS = flags.FlagValues()

_CONFIGS = flags.DEFINE_multi_string(
    "config",
    [f"configs/sat.py:{name}" for name in ("SAT_T_2s", "SAT_S_2s", "SAT_B_2s")],
    "Config as for sat-jax train: a name or path, after a colon its argument. Repeatable.",
    flag_values=FLAGS,
)
_TOPOLOGIES = flags.DEFINE_list(
    "topologies", ["v5e:16x16"], "TPU types and layouts, such as v5e:16x16.", flag_values=FLAGS
)
_BATCH = flags.DEFINE_integer(
    "batch",
    None,
    "Global batch size; default: 8 per chip.",
    lower_bound=1,
    flag_values=FLAGS,
)
_DTYPES = flags.DEFINE_list(
    "dtypes", list(DTYPES), f"Precision: {' or '.join(DTYPES)}.", flag_values=FLAGS
)
_FSDP = flags.DEFINE_list(
    "fsdp", list(FSDP), "Whether the state is sharded over the chips: off or on.", flag_values=FLAGS
)
_LARGEST = flags.DEFINE_bool(
    "largest", False, "Also find the largest batch that fits.", flag_values=FLAGS
)
_JSON = flags.DEFINE_string("json", None, "JSON file for all numbers.", flag_values=FLAGS)


def main(arguments: Sequence[str]) -> bool:
    """Compiles all combinations of the flags and prints the table."""
    del arguments
    prepare()
    results = []
    for result in _results():
        results.append(result)
        if _JSON.value:
            Path(_JSON.value).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(results))
    return False


def prepare() -> None:
    """Sets the environment of the TPU compiler. Call it before JAX is imported.

    Raises:
      SatError: the compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise SatError("compiling for TPUs needs libtpu: pip install 'sat-jax[tpu-report]'")
    os.environ["JAX_PLATFORMS"] = "cpu"
    # The compiler reads these from a TPU machine, and complains without one.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-8"
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def open_topology(name: str) -> Any:
    """Returns the mesh of a TPU's chips.

    Args:
      name: such as "v5e:16x16".

    Raises:
      SatError: there is no such TPU.
    """
    import jax
    from jax.experimental import topologies

    from sat_jax.runtime.sharding import make_mesh

    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SatError(
            f"--topologies={name}: no such TPU; give one such as v5e:16x16 or v4:4x4x4 ({reason})"
        ) from error
    return make_mesh(list(described.devices))


def open_config(asked: str) -> tuple[Any, int]:
    """Returns the run of a config, and the samples of a window.

    Args:
      asked: the value of --config.

    Raises:
      SatError: there is no such config, or it trains the model of --init.
    """
    from sat_jax.config import MaeConfig
    from sat_jax.training.config_files import load_config
    from sat_jax.training.from_config import default_window_seconds, to_model, to_train_config

    config = load_config(asked)
    model = to_model(config, None, num_classes=None)
    run = to_train_config(config, model, epoch_size=1_000_000, data={})
    frontend = (model.encoder if isinstance(model, MaeConfig) else model).frontend
    seconds = config.data.window_seconds or default_window_seconds(model)
    return run, round(seconds * frontend.sample_rate)


def _results() -> Iterator[dict[str, Any]]:
    # All are opened first, so that a misspelt name is not found after an hour.
    meshes = {topology: open_topology(topology) for topology in _TOPOLOGIES.value}
    runs = {asked: open_config(asked) for asked in _CONFIGS.value}
    for topology, mesh in meshes.items():
        for asked, (run, num_samples) in runs.items():
            for dtype in _DTYPES.value:
                for fsdp in _FSDP.value:
                    chosen = choose(run, dtype=dtype, fsdp=FSDP[fsdp])
                    labels = {"config": asked, "topology": topology, "dtype": dtype, "fsdp": fsdp}
                    print(", ".join(labels.values()), flush=True)
                    yield labels | report_on(chosen, mesh, num_samples=num_samples)


def choose(run: Any, *, dtype: str, fsdp: bool) -> Any:
    """Returns a run with another precision and sharding."""
    from sat_jax.config import MaeConfig

    model = run.model
    if isinstance(model, MaeConfig):
        encoder = dataclasses.replace(model.encoder, dtype=dtype)
        model = dataclasses.replace(model, encoder=encoder)
    else:
        model = dataclasses.replace(model, dtype=dtype)
    return dataclasses.replace(run, model=model, fsdp=fsdp)


def report_on(run: Any, mesh: Any, *, num_samples: int) -> dict[str, Any]:
    """Returns the costs of a run per chip, JSON-ready."""
    from benchmarks.tpu_footprint import compile_footprint, largest_batch

    @functools.cache
    def compile_for(batch_size: int) -> Any:
        started = time.perf_counter()
        footprint = compile_footprint(run, mesh, batch_size=batch_size, num_samples=num_samples)
        result = f"{footprint.peak_bytes / 1e6:.0f} MB" if footprint else "does not fit"
        seconds = time.perf_counter() - started
        print(f"batch {batch_size}: {result}, compiled in {seconds:.0f} s", flush=True)
        return footprint

    footprint = compile_for(_BATCH.value or 8 * mesh.size)
    if footprint is None:
        raise SatError(
            f"a batch of {_BATCH.value or 8 * mesh.size} does not fit: give a smaller --batch"
        )
    report = {"chips": mesh.size, **dataclasses.asdict(footprint)}
    if _LARGEST.value:
        fits, fails = largest_batch(
            compile_for, unit=mesh.size, start=_first_guess(mesh, compile_for)
        )
        report |= {"largest_batch": fits.batch_size, "too_large_batch": fails}
        report["largest_peak_bytes"] = fits.peak_bytes
    return report


def _first_guess(mesh: Any, compile_for: Callable[[int], Any]) -> int:
    """Returns the examples per chip that should just fit, estimated from two large batches."""
    from benchmarks.tpu_footprint import expected_limit

    smaller, larger = (compile_for(count * mesh.size) for count in (64, 128))
    if smaller is None or larger is None:
        return 32
    gigabytes = CHIPS.get(mesh.devices.flat[0].device_kind, 16)
    return expected_limit(smaller, larger, int(0.95 * gigabytes * (1 << 30))) // mesh.size


def as_markdown(results: Sequence[dict[str, Any]]) -> str:
    """Returns the table of the report."""
    columns = [
        "config",
        "TPU",
        "compute",
        "fsdp",
        "batch",
        "arguments MB",
        "temporary MB",
        "peak MB",
        "GFLOP",
        "collectives: count, MB",
        "largest batch",
    ]
    return markdown_table(columns, [_row(result) for result in results])


def _row(result: dict[str, Any]) -> list[str]:
    sizes = (result[f"{what}_bytes"] / 1e6 for what in ("argument", "temporary", "peak"))
    traffic = (
        f"{kind} {one['count']}, {one['num_bytes'] / 1e6:.1f}"
        for kind, one in sorted(result["collectives"].items())
    )
    return [
        result["config"].rpartition(":")[2] or result["config"],
        result["topology"],
        result["dtype"],
        result["fsdp"],
        str(result["batch_size"]),
        *(f"{size:.0f}" for size in sizes),
        f"{result['flops'] / 1e9:.1f}",
        "; ".join(traffic) or "none",
        str(result.get("largest_batch", "")),
    ]


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "give configs by --config")
    for flag, choices in ((_DTYPES, DTYPES), (_FSDP, tuple(FSDP))):
        for value in flag.value:
            if value not in choices:
                raise flags.Error(f"--{flag.name}: {value!r} is not one of {', '.join(choices)}")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("benchmarks.tpu_report", sys.argv[1:])
