"""Keeps C libraries from printing.

libsndfile's MP3 decoder describes damage on standard error, and its SDS decoder prints on standard
output. Neither can be told not to.
"""

import ctypes
import os
import threading

_NAMES = ("stdout", "stderr")


class _Silence:
    """Sends what C libraries print nowhere, while at least one thread is in the context.

    It replaces the variables through which C code finds its streams. The file descriptors, and
    with them Python's own output and other programs, are not touched.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._streams: list[ctypes.c_void_p] = []
        self._before: list[int | None] = []
        if not _is_glibc():
            return  # Elsewhere the variables have other names, or cannot be changed.
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        self._nowhere = libc.fopen(os.devnull.encode(), b"w")
        self._streams = [ctypes.c_void_p.in_dll(libc, name) for name in _NAMES]
        self._before = [stream.value for stream in self._streams]

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                for stream in self._streams:
                    stream.value = self._nowhere

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                for stream, before in zip(self._streams, self._before, strict=True):
                    stream.value = before


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False


C_SILENCE = _Silence()
"""A context, for any number of threads."""
