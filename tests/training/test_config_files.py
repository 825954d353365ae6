"""Config files are found by path and by name, in a clone and in an installed package."""

import re
import shutil
from pathlib import Path

import pytest

from sat_jax.errors import SatError
from sat_jax.training import config_files
from sat_jax.training.config_files import find_config, find_unknown_field, load_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", ["sat.py", "sat", "configs/sat.py"])
def test_names_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(f"{name}:SAT_T_1s") == (CONFIGS / "sat.py", ["SAT_T_1s"])
    assert load_config(f"{name}:SAT_T_1s").name == "SAT_T_1s"
    assert load_config(name).name == "SAT_T_2s"


def test_an_existing_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sat.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(argument='none'): return ConfigDict({'name': argument})\n"
    )
    assert load_config("sat.py:own:x").name == "own:x"
    assert load_config(str(tmp_path / "sat.py")).name == "none"
    with pytest.raises(AttributeError):
        load_config("sat.py").other = 1


def test_an_installed_package_has_its_own_configs(tmp_path, monkeypatch):
    installed = tmp_path / "sat_jax" / "training" / "config_files.py"
    monkeypatch.setattr(config_files, "__file__", str(installed))
    shutil.copytree(CONFIGS, tmp_path / "sat_jax" / "configs")
    assert find_config("vit.py") == (tmp_path / "sat_jax" / "configs" / "vit.py", [])
    assert load_config("vit.py:tiny").name == "audiotransformer_tiny"


@pytest.mark.parametrize("name", ["none.py:debug", "__init__.py", "configs", "/"])
def test_what_is_not_found_is_answered_by_the_names_there_are(name):
    with pytest.raises(SatError, match=re.escape(name.split(":")[0])) as raised:
        load_config(name)
    assert all(path.name in str(raised.value) for path in CONFIGS.glob("[!_]*.py"))


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("optimizer.weight_decy", ["optimizer.weight_decy", "optimizer.weight_decay"]),
        ("optimizer.lr", ["optimizer.lr", "optimizer.learning_rate"]),
        ("sed", ["sed", "seed"]),
        ("optimzer.lr", ["optimzer.lr", "did you mean optimizer?"]),
        ("batch_size", ["did you mean data.batch_size?"]),
        ("learning_rte", ["did you mean optimizer.learning_rate?"]),
        ("data.seed", ["did you mean seed?"]),
        ("modle.width", ["did you mean model.width?"]),
        ("foo.bar", ["foo.bar"]),
        ("seed.foo", ["seed"]),
        ("optimizer", ["such as optimizer.accumulate"]),
    ],
)
def test_unknown_fields_are_answered_by_known_ones(path, named):
    message = find_unknown_field(load_config("sat"), path)
    assert all(name in message for name in named)
    assert len(message) < 300 and "\n" not in message
    assert find_unknown_field(load_config("sat"), "optimizer.weight_decay") is None


def test_a_file_that_is_not_python_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("learning_rate: 1\n")
    with pytest.raises(SatError, match=r"notes\.txt"):
        load_config(str(tmp_path / "notes.txt"))
