"""Memory of a training program in large pages that it keeps.

XLA asks for the arrays of a step anew in each one, hundreds of megabytes on CPUs, and glibc by
default gives them back to the system in between, which then clears them again page by page.
"""

import os
import sys

TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,  # asks for pages of 2 MB instead of 4 kB
        "mmap_max": 0,  # large arrays come out of the heap ...
        "arena_max": 1,  # ... of which there is one for all threads
        "top_pad": 1 << 28,
        "trim_threshold": 1 << 40,  # and nothing is given back
    }.items()
)
"""For ``GLIBC_TUNABLES``; where the C library is another one it means nothing."""


def restart_in_large_pages() -> None:
    """Starts this program over with `TUNABLES`, unless the user has set his own.

    glibc reads them only when a process begins. The process stays the same one, with its
    arguments; call this before anything has been done.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
