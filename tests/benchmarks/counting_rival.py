"""A rival for tests of benchmarks that run in another process: cheap, and it can fail."""

import os
from typing import Any

from benchmarks.training_rivals import Rival


def count(task: Any) -> Rival:
    """One that counts from a number on, and ends its process at 3."""
    number = task

    def call() -> float:
        nonlocal number
        number += 1
        if number == 3:
            os._exit(1)
        return number

    return Rival(call, {"pid": os.getpid(), "setting": os.environ["SAT_JAX_SETTING"]})
