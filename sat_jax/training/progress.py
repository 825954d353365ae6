"""What a run tells while it goes on: a bar, a log, curves."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors
from sat_jax.training.config import TrainConfig
from sat_jax.training.optimizer import make_schedule
from sat_jax.training.step import StepMetrics
from sat_jax.training.workdir import RunLog


class _Seen(NamedTuple):
    """A step under way."""

    step: int
    metrics: StepMetrics
    num_examples: int
    clips: Sequence[str]


def _said_by_first(answer: bool) -> bool:
    """The first process's answer."""
    if jax.process_count() == 1:
        return answer
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(answer))


class Progress:
    """Looks at each step's numbers once the next one is under way, so that devices never wait.

    Only the first of several processes draws and writes.
    """

    def __init__(self, config: TrainConfig, folder: Path, *, start: int) -> None:
        """Opens bar, log and curves of a run.

        Args:
          config: the run.
          folder: its workdir.
          start: steps made before.

        Raises:
          SatError: the log can't be written.
        """
        from tensorboardX import SummaryWriter
        from tqdm import tqdm

        self._config, self._start = config, start
        self._schedule = make_schedule(
            config.optimizer, -(-config.num_steps // config.optimizer.accumulate)
        )
        self._seen: _Seen | None = None
        self._examples, self._since = 0, time.perf_counter()
        first = jax.process_index() == 0
        self._log = RunLog(folder / "log.jsonl", step=start) if first else None
        self.was_measured = _said_by_first(self._log is not None and self._log.was_measured)
        """Whether an earlier start measured the model after the step that this one starts at."""
        # Curves drawn beyond the checkpoint by an earlier start are hidden from there on.
        self._curves_folder = folder / "tensorboard"
        with explain_write_errors(self._curves_folder):
            self._curves = (
                SummaryWriter(str(self._curves_folder), purge_step=start + 1) if first else None
            )
        # None draws it on a terminal only.
        self._bar = tqdm(
            total=config.num_steps, initial=start, unit="step", disable=None if first else True
        )

    def __enter__(self) -> "Progress":
        """The progress itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes all that is open."""
        self._bar.close()
        if self._log is not None and self._curves is not None:
            self._log.close()
            with explain_write_errors(self._curves_folder):
                self._curves.close()

    def see(self, step: int, metrics: StepMetrics, num_examples: int, clips: Sequence[str]) -> None:
        """Takes note of a step, and settles the one before.

        Args:
          step: its number, counted from 1.
          metrics: its results, perhaps still being computed.
          num_examples: of the whole batch, of all processes.
          clips: the names of this process's clips.
        """
        self.settle()
        self._seen = _Seen(step, metrics, num_examples, clips)

    def settle(self) -> None:
        """Waits for the step last seen, checks and logs it.

        Raises:
          SatError: its loss or gradient is not finite.
        """
        if self._seen is None:
            return
        seen, self._seen = self._seen, None
        loss, grad_norm = (float(x) for x in jax.device_get(seen.metrics))
        # A gradient can be ill before the loss is; weights would carry it into a checkpoint.
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            self._write(seen.step, loss=str(loss), grad_norm=str(grad_norm), clips=list(seen.clips))
            raise SatError(
                f"step {seen.step} has loss {loss} and gradient norm {grad_norm}, and was not "
                "saved: lower optimizer.learning_rate (and --accept_changes), or look at its "
                f"clips: {', '.join(seen.clips) or 'unnamed'}"
            )
        self._examples += seen.num_examples
        self._bar.update()
        if seen.step % self._config.log_every == 0 or seen.step == self._config.num_steps:
            self._tell(seen.step, loss, grad_norm)

    def measured(self, step: int, numbers: dict[str, float]) -> None:
        """Logs what was measured on the validation clips after a step."""
        told = {name: value for name, value in numbers.items() if name != "score"}
        self._write(step, validation=told)
        self._draw(step, {f"validation/{name}": value for name, value in told.items()})
        if self._log is not None:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in told.items())
            self._bar.write(f"step {step}: {shown}")

    def _tell(self, step: int, loss: float, grad_norm: float) -> None:
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
            with explain_write_errors(self._curves_folder):
                for name, value in numbers.items():
                    self._curves.add_scalar(name, value, step)
