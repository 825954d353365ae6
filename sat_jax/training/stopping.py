"""When a run should write a checkpoint and stop."""

import contextlib
import os
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
def stop_when_asked() -> Iterator[ShouldStop]:
    """Answers yes once SIGTERM or Ctrl-C came; a second one acts as it did before.

    Of several processes JAX tells the others of a SIGTERM, and Ctrl-C is left alone. Signals reach
    the main thread of a program only; elsewhere the answer stays no.

    Raises:
      KeyboardInterrupt: at the end, when it was Ctrl-C, so that nothing goes on behind it.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # JAX's own handler tells the other processes, which then agree on a step.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):  # Nobody may be there to read it.
                os.write(_STANDARD_ERROR, _ONE_MORE_STEP)  # print may be at work just now.

    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # As Ctrl-C is in a shell's background jobs.
            signal.signal(number, ask_to_stop)
    try:
        yield lambda step: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in came:
        raise KeyboardInterrupt


_STANDARD_ERROR = 2
_ONE_MORE_STEP = b"\nstopping after this step and a checkpoint; Ctrl-C once more: at once\n"


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
