"""The command prepare: its lines and exit codes."""

import sys

import numpy as np
import pytest
import soundfile

from tests.support.programs import run_command

pytest.importorskip("tensorflow_datasets")


def test_a_dataset_is_built_once(tmp_path, capsys):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "good0000000_0_10.wav", np.zeros(16_000), 16_000)
    rows = [f'{name}, 0, 10, "/m/09x0r"\n' for name in ("good0000000", "missing0001")]
    (tmp_path / "eval.csv").write_text("".join(rows))
    flags = [f"--audio={tmp_path / 'audio'}", f"--eval_csv={tmp_path / 'eval.csv'}"]
    flags += [f"--data_dir={tmp_path}", "--workers=1"]
    assert run_command("prepare", *flags) == 0
    skipped = tmp_path / "audioset/1.0.0/skipped_eval.csv"
    assert capsys.readouterr().out == (f"eval: 1 clips, 1 skipped (1 missing; see {skipped})\n")
    assert run_command("prepare", *flags) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and str(tmp_path / "audioset/1.0.0") in printed.err


def test_a_missing_table_is_named_before_slow_imports(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "data_pipeline.audioset.prepare", None)
    table = tmp_path / "none.csv"
    flags = [f"--audio={tmp_path}", f"--data_dir={tmp_path}", f"--eval_csv={table}"]
    assert run_command("prepare", *flags) == 1
    assert str(table) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--data_dir=x", "--eval_csv=x"], "--audio"),
        (["--data_dir=x", "--audio=x"], "--eval_csv"),
        (["--audio=x", "--data_dir=x", "--eval_csv=x", "--workers=0"], "--workers=0"),
        (["--audio=x", "--data_dir=x", "--eval_csv=x", "y"], "y"),
    ],
)
def test_wrong_flags(capsys, flags, named):
    assert run_command("prepare", *flags) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sat-jax prepare: ") and named in line
