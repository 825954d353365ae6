"""Windows by tf.data: the same as single reads, from any step, with a quiet end."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from data_pipeline.batches.reader import window_batches
from data_pipeline.batches.windows import Planner, WindowConfig
from data_pipeline.sources.source import make_table
from sat_jax.errors import SatError

pytest.importorskip("tensorflow")


class Noise:
    """Twenty clips in memory, of different lengths; clip 13 can't be read."""

    clips = make_table([f"clip {index}" for index in range(20)], [(0,)] * 20)

    def path_of(self, index):
        return "memory"

    def read(self, index, *, num_samples, place, start):
        if index == 13:
            raise SatError("clip 13: broken")
        sound = np.random.default_rng(index).random(1500 + 200 * index, np.float32)
        first = int(place * max(1, len(sound) - num_samples + 1))
        return sound[first : first + num_samples]


def config(**fields):
    base = {"batch_size": 3, "window_seconds": 0.16, "num_classes": 2, "sampler": "shuffle"}
    return WindowConfig(**base | fields)


@pytest.mark.parametrize("fill", ["wrap", "zeros"])
def test_tf_data_and_threads_give_the_same_batches_up_to_an_error(fill):
    settings = config(fill=fill)
    planner = Planner(Noise.clips, settings)
    bad = next(step for step in itertools.count() if 13 in planner(step).clip)
    start = max(0, bad - 3)
    by_threads, by_tf_data = (
        window_batches(Noise(), planner, settings, workers=3, tf_data=tf_data)(start)
        for tf_data in (False, True)
    )
    for _ in range(start, bad):
        ours, theirs = next(by_tf_data), next(by_threads)
        assert ours["waveform"].shape == (3, 2560) and ours["waveform"].dtype == np.float32
        for name in ("waveform", "target", "clips"):
            np.testing.assert_array_equal(ours[name], theirs[name])
    for batches in (by_tf_data, by_threads):
        with pytest.raises(SatError, match="clip 13"):
            next(batches)


PROGRAM = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1", "0"
import sys, time
import numpy as np
from data_pipeline.batches.reader import window_batches
from data_pipeline.batches.windows import Planner, WindowConfig
from data_pipeline.sources.source import make_table

class Slow:
    clips = make_table(["a"], [()])
    def read(self, index, *, num_samples, place, start):
        time.sleep(0.02)
        return np.zeros(num_samples, np.float32)

config = WindowConfig(batch_size=4, window_seconds=0.2, num_classes=1)
batches = window_batches(Slow(), Planner(Slow.clips, config), config, tf_data=True)(0)
for batch in batches:
    print(batch["waveform"].shape)
    sys.exit(3)
"""


def test_a_program_that_ends_while_clips_are_read_ends_quietly():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "(4, 3200)\n", "")
