"""Threads that work ahead of a loop."""

import collections
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    ahead: int,
    stop: threading.Event | None = None,
) -> Generator[Result]:
    """Applies a function to items in threads, ahead of whoever takes the results.

    Args:
      function: called from any thread.
      items: may be endless.
      workers: number of threads.
      ahead: items that are worked on, or ready, while the caller uses a result.
      stop: is set when no more results are taken, so that `function` can return early.

    Yields:
      The results in the order of the items.

    Raises:
      Exception: whatever `function` raised, in place of its result.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="map-ahead")
    waiting: collections.deque[Future[Result]] = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if stop:
            stop.set()
        pool.shutdown(cancel_futures=True)
