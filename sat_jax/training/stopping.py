"""When a run should write a checkpoint and stop (floor 4)."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import jax

from sat_jax.training.config import TrainConfig

ShouldStop = Callable[[int], bool]
"""From a step to whether all processes are to stop after it; they all ask at each step."""


@contextlib.contextmanager
def stop_at_sigterm() -> Iterator[ShouldStop]:
    """Answers yes once SIGTERM came, in whichever process; a second one acts as it did before.

    Signals reach the main thread of a program only; elsewhere the answer stays no.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # JAX's own handler tells the other processes, which then agree on a step.
        yield multihost_utils.reached_preemption_sync_point
        return
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: stop.is_set()
        return
    before = signal.getsignal(signal.SIGTERM)

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before)

    signal.signal(signal.SIGTERM, ask_to_stop)
    try:
        yield lambda step: stop.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


class CheckpointClock:
    """Whether it is time for a checkpoint."""

    def __init__(self, config: TrainConfig) -> None:
        """Starts to count minutes."""
        self._config, self._since = config, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether the state after a step is to be written; all processes get the same answer."""
        due = step % self._config.checkpoint_every == 0 or step == self._config.num_steps
        due = due or self._minutes_are_over(step)
        if due:
            self._since = time.monotonic()
        return due

    def _minutes_are_over(self, step: int) -> bool:
        minutes = self._config.checkpoint_minutes
        if not minutes:
            return False
        over = time.monotonic() - self._since > 60.0 * minutes
        if jax.process_count() == 1:
            return over
        if step % self._config.log_every:  # To ask the first process costs time.
            return False
        from jax.experimental import multihost_utils

        return bool(multihost_utils.broadcast_one_to_all(over))
