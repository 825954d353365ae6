"""Parses the options of Apache Beam from one flag."""

import contextlib
import io
from typing import Any

from sat_jax.errors import SatError


def parse_beam_options(options: str) -> Any:
    """Parses Beam's options.

    Args:
      options: as for Beam's own programs but without dashes, joined by commas:
        "runner=FlinkRunner,flink_master=host:8081".

    Returns:
      A `PipelineOptions`.

    Raises:
      SatError: Apache Beam is missing, a value is wrong, or no runner is named that exists.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
        from apache_beam.runners.runner import create_runner
    except ModuleNotFoundError:
        raise SatError("--beam_options needs Apache Beam: pip install 'sat-jax[beam]'") from None
    parts = [part for part in options.split(",") if part]
    if not any(part.startswith("runner=") for part in parts):
        # Beam ignores unknown options, and would run everything on this machine.
        raise SatError(f"--beam_options={options} names no runner: add, say, runner=DirectRunner")
    parsed = PipelineOptions([f"--{part}" for part in parts])
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            parsed.get_all_options()
        except SystemExit:
            reason = printed.getvalue().strip().rpartition("error: ")[2]
            raise SatError(f"--beam_options={options}: {reason}") from None
    try:
        create_runner(parsed.view_as(StandardOptions).runner)
    except (ValueError, ImportError, AttributeError, TypeError) as error:
        reason = str(error).partition("\n")[0].partition(" Valid values")[0].rstrip(".")
        raise SatError(f"--beam_options={options}: {reason}: correct the runner") from None
    return parsed
