"""The curves of a run, for TensorBoard."""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sat_jax.runtime.files import explain_write_errors


class Curves:
    """A file of TensorBoard events.

    tensorboardX's own writer has a thread: on a full disk the thread ends with a traceback, and the
    program waits for it for ever. Here an event is written when it is added.
    """

    def __init__(self, folder: Path, *, start: int) -> None:
        """Opens a new file.

        Args:
          folder: the folder of the files of all starts; created if needed.
          start: steps made before. Points of an earlier start after it are hidden.

        Raises:
          SatError: the file can't be written.
        """
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder = folder
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / name).open("ab", buffering=0)
        self._write(file_version="brain.Event:2")
        self._write(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Adds a point to each named curve.

        Raises:
          SatError: the file can't be written.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(step=step, summary=Summary(value=values))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        parts = [length, masked_crc32c(length), data, masked_crc32c(data)]
        packed = [x if isinstance(x, bytes) else struct.pack("<I", x) for x in parts]
        with explain_write_errors(self._folder):
            self._file.write(b"".join(packed))
