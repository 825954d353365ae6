"""Stages: results are made once, and signals are passed on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from projects.box_model.stage_log import StageLog, read_json
from projects.box_model.stages import run_stage
from sat_jax.errors import SatError

ROOT = Path(__file__).parents[3]


def write_file(path, text):
    """Returns a command that writes a file."""
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    return ("-c", code, str(path), text)


def test_results_are_reused_if_they_were_made_in_the_same_way(tmp_path, capfd):
    result = tmp_path / "course" / "sub" / "result"

    def stage(text, work=result.parent.parent, inputs=()):
        path = work / "sub" / "result"
        run_stage(work, "writing", path, write_file(path, text), inputs=inputs)
        return path.read_text()

    assert [stage("one"), stage("one")] == ["one", "one"]
    assert capfd.readouterr().out.count("$ python") == 1
    for made in (lambda: stage("two"), lambda: stage("one", inputs=["other weights"])):
        with pytest.raises(SatError, match="sub/result"):
            made()
    assert result.read_text() == "one"
    moved = result.parent.parent.rename(tmp_path / "moved")
    assert stage("one", work=moved) == "one"
    assert capfd.readouterr().out == ""
    (moved / "stages.json").unlink()
    with pytest.raises(SatError, match="sub/result"):
        stage("one", work=moved)
    (moved / "stages.json").write_text("{")
    with pytest.raises(SatError, match=r"stages\.json"):
        stage("one", work=moved)


def test_a_failed_stage_can_be_run_in_another_way(tmp_path):
    result = tmp_path / "result"
    with pytest.raises(SatError, match="exit code 3"):
        run_stage(tmp_path, "writing", result, ("-c", "raise SystemExit(3)"))
    run_stage(tmp_path, "writing", result, write_file(result, "one"))
    assert StageLog(tmp_path).seconds()["writing"]["wall"] > 0.01
    assert [stage["made_by"][-1] for stage in read_json(tmp_path / "stages.json").values()] == [
        "one"
    ]


def test_two_processes_in_one_folder_make_each_result_once(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from projects.box_model.stages import run_stage\n"
        "work, own = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "slow = 'import pathlib, sys, time; path = pathlib.Path(sys.argv[1]);' \\\n"
        '    \'path.with_suffix(".begun").open("a").write("x"); time.sleep(0.5); path.touch()\'\n'
        "for name in ('shared', own, own + '2'):\n"
        "    run_stage(work, name, work / name, ('-c', slow, str(work / name)))\n"
    )
    for _ in range(2):  # The second time, all results exist.
        commands = [[sys.executable, "-c", code, tmp_path, own] for own in ("one", "two")]
        both = [subprocess.Popen(c, cwd=ROOT, stdout=subprocess.PIPE, text=True) for c in commands]
        out = "".join(process.communicate(timeout=120)[0] for process in both)
        assert [process.returncode for process in both] == [0, 0]
    assert out == ""
    names = {"shared", "one", "one2", "two", "two2"}
    assert {path.read_text() for path in tmp_path.glob("*.begun")} == {"x"}
    assert {path.stem for path in tmp_path.glob("*.begun")} == names
    log = StageLog(tmp_path)
    assert {name for name, time in log.seconds().items() if time["wall"] > 0.5} == names
    assert not log.unfinished_starts()


SAVING = """
import pathlib, signal, sys, time
def stop(*_):
    with open('saved', 'a') as file: file.write('x')
    time.sleep(0.5)
    sys.exit()
for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, stop)
pathlib.Path('ready').touch()
time.sleep(60)
"""
"""A command that saves each time it gets a signal."""

COURSE = """
import pathlib, sys
from projects.box_model import stages
from sat_jax.errors import SatError
stages.ROOT = pathlib.Path(sys.argv[1])
try: stages.run('-c', sys.argv[2])
except (SatError, KeyboardInterrupt) as error:
    saved = (stages.ROOT / 'saved').read_text()
    (stages.ROOT / 'end').write_text(f"{type(error).__name__} {saved}")
"""


@pytest.mark.parametrize(
    ("number", "send", "end"),
    [
        (signal.SIGINT, os.killpg, "KeyboardInterrupt x"),  # As a terminal does.
        (signal.SIGINT, os.kill, "KeyboardInterrupt x"),
        (signal.SIGTERM, os.kill, "SatError x"),
    ],
)
def test_a_signal_reaches_the_command_once_and_its_end_is_awaited(tmp_path, number, send, end):
    arguments = [sys.executable, "-c", COURSE, tmp_path, SAVING]
    with subprocess.Popen(arguments, cwd=ROOT, start_new_session=True) as process:
        deadline = time.monotonic() + 180
        while not (tmp_path / "ready").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        send(process.pid, number)
        process.wait(timeout=180)
    assert (tmp_path / "end").read_text() == end
