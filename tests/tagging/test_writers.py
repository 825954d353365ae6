"""Tags on standard output that fails, and scores in files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import PIPE_CLOSED
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagging.writers import save_scores, stack_chunks

LABELS = ["Stream", "Trickle, dribble", "Boat, Water vehicle", "Ocean", "Waves, surf"]


def make_chunks(probs, seconds=2.0):
    return [
        ScoredChunk(start=i * seconds, end=(i + 1) * seconds, probs=np.asarray(row, np.float32))
        for i, row in enumerate(probs)
    ]


PROGRAM = """
import numpy as np
from sat_jax.runtime.command_line import Program
from sat_jax.runtime.files import open_output
from absl import flags
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tags import TagSelection
from sat_jax.tagging.writers import TagWriter
def main(arguments):
    with open_output(None) as stream:
        writer = TagWriter(stream, format_name="text", selection=TagSelection(labels=["é"]))
        with writer.recording("日本") as write:
            for i in range(COUNT):
                write(ScoredChunk(start=i, end=i + 1, probs=np.ones(1, np.float32)))
Program(main=main, flag_values=flags.FlagValues(), doc="").run("tags", [])
"""

PRINT_AT_EXIT = "import atexit; atexit.register(print, 'the end')\n"


def start_program(count, *, first="", **options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", first + PROGRAM.replace("COUNT", str(count))],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        **options,
    )


def test_closed_pipe_ends_quietly():
    with start_program(200_000, first=PRINT_AT_EXIT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == PIPE_CLOSED


def test_terminal_that_cannot_show_a_name():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with start_program(1, stdout=subprocess.PIPE, env=environment) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.splitlines()[0] == rb"===== \u65e5\u672c ====="


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_behind_standard_output(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with (
        open("/dev/full", "wb") as full,
        start_program(1, stdout=full, env=environment) as process,
    ):
        (line,) = process.stderr.read().decode().splitlines()
        assert process.wait() == 1
    assert line.startswith("tags: ") and "No space left" in line


def test_scores_read_back(tmp_path):
    chunks = make_chunks(np.random.default_rng(0).random((4, 5)), seconds=0.16)
    path = tmp_path / "made" / "for it" / "día.npz"
    for _ in range(2):
        save_scores(path, stack_chunks(chunks, 5), LABELS)
    with np.load(path, allow_pickle=False) as scores:
        assert sorted(scores) == ["end", "labels", "probs", "start"]
        assert scores["probs"].dtype == np.float32
        np.testing.assert_array_equal(scores["probs"], [chunk.probs for chunk in chunks])
        np.testing.assert_allclose(scores["start"], 0.16 * np.arange(4))
        np.testing.assert_allclose(scores["end"], 0.16 * np.arange(1, 5))
        assert scores["labels"].tolist() == LABELS
    assert os.listdir(path.parent) == ["día.npz"]


def test_scores_of_no_chunk(tmp_path):
    save_scores(tmp_path / "a.npz", stack_chunks([], 5), LABELS)
    with np.load(tmp_path / "a.npz") as scores:
        assert scores["probs"].shape == (0, 5)
        assert scores["start"].shape == scores["end"].shape == (0,)


def test_scores_into_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.npz"
    with pytest.raises(SatError, match=re.escape(str(path))):
        save_scores(path, stack_chunks([], 5), LABELS)
