"""Work for several threads, which Ctrl-C ends at once."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_PATIENCE_S = 2.0


def run_parallel(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, stop: threading.Event
) -> Generator[Result]:
    """Works on jobs in threads; results come as they are finished.

    A pool of the standard library would wait for all its threads when the program ends, and one
    that waits for a silent server can't be interrupted: these are daemons.

    Args:
      work: called with a job, from any thread.
      jobs: what to do.
      workers: the number of threads.
      stop: set when the caller leaves early, for whatever work is under way.

    Yields:
      One result for each job.

    Raises:
      Exception: what `work` raised.
    """
    waiting, lock = iter(jobs), threading.Lock()
    done: queue.SimpleQueue[Result | Exception] = queue.SimpleQueue()

    def labour() -> None:
        while not stop.is_set():
            with lock:
                job = next(waiting, None)
            if job is None:
                return
            try:
                done.put(work(job))
            except Exception as error:
                done.put(error)

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            result = done.get()
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join(_PATIENCE_S / workers)
