"""Silence of C libraries."""

import ctypes
import os
import sys
import threading

import pytest

from sat_jax.runtime.quiet import C_SILENCE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only for glibc")
def test_only_c_code_is_silent_and_only_in_the_context(capfd):
    libc = ctypes.CDLL(None)
    inside, done = threading.Barrier(2), threading.Barrier(2)

    def other():
        with C_SILENCE:
            inside.wait(10)
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with C_SILENCE:
        libc.puts(b"in both")
    libc.perror(b"in one")
    print("Python", flush=True)
    os.write(2, b"a file descriptor\n")
    done.wait(10)
    thread.join()
    libc.puts(b"after")
    libc.fflush(None)
    assert capfd.readouterr() == ("Python\nafter\n", "a file descriptor\n")
