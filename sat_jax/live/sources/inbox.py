"""Bytes on their way from the thread that receives them to the one that reads them."""

import queue
import threading

_POLL_SECONDS = 0.2


class Inbox:
    """A bounded queue of bytes that ends.

    Attributes:
      problem: why it ended; "" before.
    """

    def __init__(self, limit: int) -> None:
        """Starts empty.

        Args:
          limit: the most pieces that wait.
        """
        self.problem = ""
        self._pieces = queue.Queue[bytes](limit)
        self._is_ended = threading.Event()
        self._is_closed = threading.Event()

    def put(self, data: bytes) -> bool:
        """Adds bytes once there is room; returns False if nobody reads them any more."""
        while not self._is_closed.is_set():
            try:
                self._pieces.put(data, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def offer(self, data: bytes) -> bool:
        """Adds bytes if there is room; returns whether there was. It never waits."""
        try:
            self._pieces.put_nowait(data)
        except queue.Full:
            return False
        return True

    def end(self, problem: str) -> None:
        """Ends it: nothing follows."""
        self.problem = self.problem or problem
        self._is_ended.set()

    def get(self, seconds: float) -> bytes | None:
        """Returns the next bytes; b"" if none come within so many seconds, None at the end."""
        was_ended = self._is_ended.is_set()
        try:
            return self._pieces.get(timeout=0.0 if was_ended else seconds, block=not was_ended)
        except queue.Empty:
            return None if was_ended else b""

    def close(self) -> None:
        """Releases a thread that waits in `put`."""
        self._is_closed.set()
