"""Events in a file, one JSON object a line."""

import asyncio
import errno
import json
import os
from pathlib import Path

from sat_jax.live.outputs import Output
from sat_jax.live.session import Session
from sat_jax.live.sinks.sink import NewestQueue, Report, live_event, pauses
from sat_jax.runtime.files import check_writable_file

_QUEUE = 10_000
_LONGEST_LINE = 1 << 16


class JsonLines:
    """Appends the events of live streams to a file.

    The file may be moved away at any time; the next event begins a new one.
    """

    name = "events_file"

    def __init__(self, path: str | Path, report: Report) -> None:
        """Checks the file.

        Args:
          path: the file; its folder is created.
          report: is told when the file can't be written, and when it can be again.

        Raises:
          SatError: it can't be written.
        """
        self._path, self._report = Path(path).absolute(), report
        check_writable_file(self._path)
        self._queue = NewestQueue[str](_QUEUE)
        self._failure = ""

    @property
    def waiting(self) -> int:
        """Lines to be written."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """Lines that were thrown away."""
        return self._queue.dropped

    def tell(self, session: Session, output: Output) -> None:
        """Takes an output; events are written."""
        if (message := live_event(session, output)) is not None:
            self._queue.put(json.dumps(message))

    async def run(self) -> None:
        """Writes until it is cancelled, and then what is left."""
        waits = pauses()
        try:
            while True:
                await self._queue.wait()
                if await self._write():
                    waits = pauses()
                else:
                    await asyncio.sleep(next(waits))
        finally:
            if len(self._queue):
                await self._write()

    async def _write(self) -> bool:
        """Writes all that waits; returns whether it could."""
        writing = asyncio.ensure_future(asyncio.to_thread(self._append, self._queue.take_all()))
        try:
            # A thread can't be stopped, so a cancelled task waits for it too.
            await asyncio.shield(writing)
        finally:
            left, failure = await writing
            self._queue.put_back(left)
            if failure and not self._failure:
                self._report(f"cannot write {self._path}: {failure}; events wait")
            elif self._failure and not failure:
                self._report(f"{self._path} can be written again; lost {self.dropped} events")
            self._failure = failure
        return not failure

    def _append(self, lines: list[str]) -> tuple[list[str], str]:
        """Returns the lines that could not be written, and why."""
        written = 0
        try:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                _end_line(file)
                for line in lines:
                    _append_whole(file, line.encode() + b"\n")
                    written += 1
            finally:
                os.close(file)
        except OSError as error:
            return lines[written:], error.strerror or str(error)
        return [], ""


def _append_whole(file: int, data: bytes) -> None:
    """Appends all bytes, or none of them."""
    size = os.fstat(file).st_size
    if os.write(file, data) < len(data):
        os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _end_line(file: int) -> None:
    """Removes a line that a crash has cut; other text without a line break gets one."""
    size = os.fstat(file).st_size
    start = max(0, size - _LONGEST_LINE)
    cut = os.pread(file, size - start, start).rpartition(b"\n")[2]
    if cut.startswith(b'{"stream"'):
        os.ftruncate(file, size - len(cut))
    elif cut:
        os.write(file, b"\n")
