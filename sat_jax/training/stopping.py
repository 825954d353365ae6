"""When a run writes a checkpoint, and when it stops early."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import jax

from sat_jax.training.config import TrainConfig
from sat_jax.training.processes import from_first

ShouldStop = Callable[[int], bool]
"""From a step to whether all processes stop after it. Every process calls it at every step."""

_STDERR = 2
_STOPPING = b"\nstopping after this step and a checkpoint; press Ctrl-C again to stop at once\n"


@contextlib.contextmanager
def stop_on_signal() -> Iterator[ShouldStop]:
    """Stops the run after SIGTERM or Ctrl-C; a second signal acts as it did before.

    With several processes, JAX passes SIGTERM on to the others, and Ctrl-C is not handled. Outside
    the main thread no signal arrives, so the run never stops early.

    Raises:
      KeyboardInterrupt: on exit, if the signal was Ctrl-C, so that the program ends.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # JAX's own handler tells the other processes, and all agree on a step.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):  # Standard error may be closed.
                os.write(_STDERR, _STOPPING)  # print is not safe in a signal handler.

    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # A shell's background jobs ignore Ctrl-C.
            signal.signal(number, handle)
    try:
        yield lambda step: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in received:
        raise KeyboardInterrupt


class CheckpointClock:
    """Decides when a checkpoint is due, by steps and by minutes."""

    def __init__(self, config: TrainConfig) -> None:
        """Starts to count minutes."""
        self._config, self._since = config, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Returns whether to save the state after a step; the same on all processes."""
        due = step % self._config.checkpoint_every == 0 or step == self._config.num_steps
        due = due or self._minutes_are_over(step)
        if due:
            self._since = time.monotonic()
        return due

    def _minutes_are_over(self, step: int) -> bool:
        minutes = self._config.checkpoint_minutes
        # With several processes, asking the first one costs time, so it is asked rarely.
        if not minutes or (jax.process_count() > 1 and step % self._config.log_every):
            return False
        return from_first(time.monotonic() - self._since > 60.0 * minutes)
