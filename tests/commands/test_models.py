"""The table of named models."""

import json
import subprocess
import sys

import pytest

from sat_jax.commands.models import list_models
from sat_jax.models.registry import MODELS
from sat_jax.streaming.framing import default_chunk_seconds
from sat_jax.weights.catalog import PUBLISHED_FILES, converted_folder, published_file
from tests.support.programs import run_command


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_JAX_CACHE", str(tmp_path))


def test_every_model_has_a_row_and_says_where_its_weights_are():
    rows = {model.name: model for model in list_models()}
    assert list(rows) == list(MODELS)
    assert rows["SAT_XS_2s"].weights == "bundled"
    assert 1e6 < rows["SAT_XS_2s"].bytes < 4 * 2**20
    assert rows["SAT_XS_1s"][-2:] == ("none published", None)
    for name in PUBLISHED_FILES:
        assert rows[name].weights == "to download"
        assert rows[name].bytes == 4 * rows[name].parameters
    assert rows["SAT_B_1s"][:4] == ("SAT_B_1s", 1.0, 85672591, 41.4)
    assert rows["SAT_T_2s"][:4] == ("SAT_T_2s", 2.0, 5495695, 43.3)
    assert rows["audiotransformer_tiny"].published_map == 39.1


def test_delays_are_those_of_the_tagger():
    for model in list_models():
        if model.name != "SAT_S_1s":  # published with the lengths of the 2 s model
            assert model.delay == default_chunk_seconds(MODELS[model.name])


@pytest.mark.parametrize("kind", ["converted", "downloaded"])
def test_cached_weights_have_their_size_on_disk(kind):
    if kind == "converted":
        (converted_folder("SAT_T_2s") / "weights").mkdir(parents=True)
        (converted_folder("SAT_T_2s") / "weights" / "d").write_bytes(bytes(1234))
    else:
        published_file("SAT_T_2s").parent.mkdir(parents=True)
        published_file("SAT_T_2s").write_bytes(bytes(1234))
    (row,) = (model for model in list_models() if model.name == "SAT_T_2s")
    assert row[-2:] == ("cached", 1234)


def test_table_and_json_name_the_same_models(capsys):
    assert run_command("models") == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert run_command("models", "--format=json") == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == list(MODELS)


def test_arguments_are_refused(capsys):
    assert run_command("models", "SAT_T_2s") == 2
    assert "SAT_T_2s" in capsys.readouterr().err


def test_it_needs_no_jax():
    code = (
        "import sys; from sat_jax.commands.models import list_models; list_models(); "
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
