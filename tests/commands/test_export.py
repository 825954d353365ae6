"""The command sat-jax export."""

import numpy as np
import pytest

from sat_jax.commands import export
from tests.support.programs import run_program


def test_a_checked_export(tmp_path, capsys):
    folder = tmp_path / "new" / "listener"
    assert run_program(export.PROGRAM, "export", str(folder)) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("checked: probabilities differ by at most ")
    assert str(folder / "run.py") in second
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.onnx", "export.json", "state.bin", "run.py"}
    assert run_program(export.PROGRAM, "export", str(folder)) == 1
    assert f"{folder} exists" in capsys.readouterr().err


def test_an_export_that_differs_is_not_written(tmp_path, capsys, monkeypatch):
    from sat_jax.export import onnx_runtime

    load_step = onnx_runtime.load_step

    def load_wrong(content):
        step = load_step(content)
        return lambda arrays: {
            name: array * np.float32(0.99) if name == "probs" else array
            for name, array in step(arrays).items()
        }

    monkeypatch.setattr(onnx_runtime, "load_step", load_wrong)
    folder = tmp_path / "listener"
    assert run_program(export.PROGRAM, "export", str(folder)) == 1
    assert "the export is not the model: probabilities differ by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([], 2, "folder"),
        (["a", "b"], 2, "folder"),
        (["--opset=30", "a"], 2, "opset"),
        (["--model=SAT_Q", "DIR/a"], 1, "SAT_Q"),
        (["--chunk=0.16", "--framing=odd", "a"], 2, "odd"),
    ],
)
def test_wrong_arguments(arguments, code, named, tmp_path, capsys):
    given = [argument.replace("DIR", str(tmp_path)) for argument in arguments]
    assert run_program(export.PROGRAM, "export", *given) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("export: ") and named in line
