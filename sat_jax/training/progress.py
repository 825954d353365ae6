"""The progress of a run: bar, log.jsonl and TensorBoard curves."""

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sat_jax.errors import SatError
from sat_jax.runtime.files import atomic_write, explain_write_errors
from sat_jax.training.config import TrainConfig
from sat_jax.training.curves import Curves
from sat_jax.training.damage import set_aside
from sat_jax.training.optimizer import make_schedule
from sat_jax.training.processes import from_first, is_first
from sat_jax.training.step import StepMetrics


class RunLog:
    """The file log.jsonl: lines of JSON about the steps of a run, in order, none twice."""

    def __init__(self, path: Path, *, step: int) -> None:
        """Opens a log for the steps after `step`.

        Args:
          path: the file.
          step: lines of an earlier start about later steps are dropped: those steps are made again.

        Raises:
          SatError: the file can't be written.
        """
        self._path, kept = path, []
        if path.exists():
            with explain_write_errors(path):
                lines = path.read_bytes().splitlines()
            parsed = [_parse(line) for line in lines if line.strip()]
            if None in parsed:  # A full disk or a power cut leaves half a line, or NUL bytes.
                set_aside(path, "a line is not JSON of a step", "; its good lines are kept")
            kept = [fields for fields in parsed if fields and fields["step"] <= step]
            with atomic_write(path) as new:
                text = "".join(json.dumps(fields) + "\n" for fields in kept)
                new.write_text(text, encoding="utf-8")
        with explain_write_errors(path):
            self._file = path.open("a", encoding="utf-8")
        self.has_validation = any(x["step"] == step and "validation" in x for x in kept)
        """Whether an earlier start validated the model after `step`."""

    def write(self, **fields: object) -> None:
        """Adds a line.

        Raises:
          SatError: it can't be written.
        """
        with explain_write_errors(self._path):
            self._file.write(json.dumps(fields) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # `write` has raised it before.
            self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    """Returns a line's fields; None if it is damaged."""
    try:
        fields = json.loads(line)
        return fields if isinstance(fields["step"], int) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class _PendingStep(NamedTuple):
    """A step whose results may still be computed."""

    step: int
    metrics: StepMetrics
    num_examples: int
    clips: Sequence[str]


class Progress:
    """Checks and logs each step's results while the next step runs, so that devices never wait.

    Only the first of several processes draws and writes.
    """

    def __init__(self, config: TrainConfig, folder: Path, *, start: int) -> None:
        """Opens bar, log and curves.

        Args:
          config: the run.
          folder: its workdir.
          start: steps made before.

        Raises:
          SatError: the log can't be written.
        """
        from tqdm import tqdm

        self._config = config
        self._schedule = make_schedule(
            config.optimizer, -(-config.num_steps // config.optimizer.accumulate)
        )
        self._pending: _PendingStep | None = None
        self._examples, self._since = 0, time.perf_counter()
        self._log = RunLog(folder / "log.jsonl", step=start) if is_first() else None
        self.has_validation = from_first(self._log is not None and self._log.has_validation)
        """Whether an earlier start validated the model after step `start`."""
        self._curves = Curves(folder / "tensorboard", start=start) if self._log else None
        # None shows the bar on a terminal only.
        self._bar = tqdm(
            total=config.num_steps,
            initial=start,
            unit="step",
            disable=None if self._log else True,
        )

    def __enter__(self) -> "Progress":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes bar, log and curves."""
        self._bar.close()
        if self._log is not None and self._curves is not None:
            self._log.close()
            self._curves.close()

    def add_step(
        self, step: int, metrics: StepMetrics, num_examples: int, clips: Sequence[str]
    ) -> None:
        """Adds a step, and finishes the one before.

        Args:
          step: its number, from 1.
          metrics: its results, which may still be computed.
          num_examples: examples in the global batch.
          clips: names of this process's clips.
        """
        self.finish_step()
        self._pending = _PendingStep(step, metrics, num_examples, clips)

    def finish_step(self) -> None:
        """Waits for the last step, checks its results and logs them.

        Raises:
          SatError: its loss or gradient is not finite.
        """
        if self._pending is None:
            return
        done, self._pending = self._pending, None
        loss, grad_norm = (float(x) for x in jax.device_get(done.metrics))
        # A gradient may overflow before the loss does; the weights must not reach a checkpoint.
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            self._write(done.step, loss=str(loss), grad_norm=str(grad_norm), clips=list(done.clips))
            raise SatError(
                f"step {done.step} has loss {loss} and gradient norm {grad_norm}, and was not "
                "saved: lower optimizer.learning_rate (and give --accept_changes), or check its "
                f"clips: {', '.join(done.clips) or 'unnamed'}"
            )
        self._examples += done.num_examples
        self._bar.update()
        if done.step % self._config.log_every == 0 or done.step == self._config.num_steps:
            self._log_step(done.step, loss, grad_norm)

    def log_validation(self, step: int, numbers: dict[str, float]) -> None:
        """Logs the results of a validation after a step."""
        shown = {name: value for name, value in numbers.items() if name != "score"}
        self._write(step, validation=shown)
        self._draw(step, {f"validation/{name}": value for name, value in shown.items()})
        if self._log is not None:
            text = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
            self._bar.write(f"step {step}: {text}")

    def _log_step(self, step: int, loss: float, grad_norm: float) -> None:
        now = time.perf_counter()
        rate = self._examples / (now - self._since)
        self._examples, self._since = 0, now
        lr = float(self._schedule((step - 1) // self._config.optimizer.accumulate))
        self._bar.set_postfix(loss=f"{loss:.4f}", lr=f"{lr:.2e}", clips_per_s=f"{rate:.1f}")
        self._write(step, loss=loss, grad_norm=grad_norm, lr=lr, clips_per_s=round(rate, 2))
        numbers = {"loss": loss, "grad_norm": grad_norm, "lr": lr, "clips_per_s": rate}
        self._draw(step, {f"train/{name}": value for name, value in numbers.items()})

    def _write(self, step: int, **fields: object) -> None:
        if self._log is not None:
            self._log.write(step=step, **fields)

    def _draw(self, step: int, numbers: dict[str, float]) -> None:
        if self._curves is not None:
            self._curves.add(step, numbers)
