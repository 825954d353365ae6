"""Checkpoint folders: read back as written; damaged ones are refused."""

import dataclasses
import functools
import gc
import json
import re
import shutil
import sys
import threading

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from sat_jax.config import FrontendConfig
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.models.registry import MAES, MODELS, model_config
from sat_jax.models.shapes import weight_shapes
from sat_jax.weights.checkpoint import Checkpoint, fingerprint, load_checkpoint, save_checkpoint
from sat_jax.weights.warm_start import fresh_variables

LABELS = tuple(label.name for label in audioset_labels())
SAT = model_config("SAT_XS_2s")


@pytest.fixture
def checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in weight_shapes(SAT)
    }
    return Checkpoint(
        config=SAT, variables=unflatten_dict(arrays, sep="/"), labels=LABELS, source="a test"
    )


def test_round_trip(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "model", checkpoint)
    read = load_checkpoint(tmp_path / "model")
    assert (read.config, read.labels, read.source) == (
        checkpoint.config,
        checkpoint.labels,
        checkpoint.source,
    )
    jax.tree.map(np.testing.assert_array_equal, read.variables, checkpoint.variables)


def test_the_folder_of_a_run_names_the_checkpoint_inside(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "run" / "model", checkpoint)
    with pytest.raises(SatError, match=r"run is .*run/model is"):
        load_checkpoint(tmp_path / "run")


def test_an_existing_folder_is_never_overwritten(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "model", checkpoint)
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "model"))):
        save_checkpoint(tmp_path / "model", checkpoint)


def test_damaged_weights_are_one_line_and_nothing_later(checkpoint, tmp_path, monkeypatch, caplog):
    save_checkpoint(tmp_path / "model", checkpoint)
    for path in (tmp_path / "model" / "weights").rglob("*"):
        if path.is_file() and "d" in path.parts:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    late: list[object] = []
    hook = late.append
    monkeypatch.setattr(sys, "unraisablehook", hook)
    with pytest.raises(SatError, match=r"model is damaged: .*weights") as caught:
        load_checkpoint(tmp_path / "model")
    assert "\n" not in str(caught.value)
    gc.collect()
    assert (late, caplog.messages) == ([], [])
    assert sys.unraisablehook is hook  # Reading leaves no threads that would need a hook.


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, "\x00"])
def test_damaged_metadata_is_one_line(checkpoint, tmp_path, text):
    save_checkpoint(tmp_path / "model", checkpoint)
    (tmp_path / "model" / "model" / "metadata").write_text(text)
    with pytest.raises(SatError, match=r"model is damaged: .*model/metadata"):
        load_checkpoint(tmp_path / "model")


def test_changed_weights_are_noticed(checkpoint, tmp_path):
    """A flipped bit that can still be read as a number must not become a wrong answer."""
    save_checkpoint(tmp_path / "model", checkpoint)
    other = jax.tree.map(np.array, checkpoint.variables)
    other["params"]["head"]["kernel"][3, 4] *= -1
    save_checkpoint(tmp_path / "other", dataclasses.replace(checkpoint, variables=other))
    shutil.rmtree(tmp_path / "model" / "weights")
    shutil.copytree(tmp_path / "other" / "weights", tmp_path / "model" / "weights")
    with pytest.raises(SatError, match=r"model is damaged: .*weights"):
        load_checkpoint(tmp_path / "model")


def edit(folder, field, value):
    """Changes what model/metadata says, and removes its checksum as earlier programs had none."""
    path = folder / "model" / "metadata"
    data = json.loads(path.read_text("utf-8"))
    del data["model_crc32"]
    *parents, name = field.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[name] = value
    path.write_text(json.dumps(data), "utf-8")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("config.depth", 3, "params/blocks_3"),
        ("config.depth", 10**30, "params/blocks_9"),
        ("config.width", 192, r"\[\d*128.* instead of \[\d*192"),
        ("config.target_length", 400, r"time_pos_embed is \[24, 128\] instead of \[37, 128\]"),
        ("config.mlp_ratio", 3, r"params/blocks_0/mlp/fc1/kernel is \[512, 128\]"),
        ("config.layer_scale", 0.1, "params/blocks_0/ls1/gamma"),
        ("config.pooling", "token", "params/cls_token"),
        ("config.input_norm", "fixed", "input_norm"),
        ("config.mlp_ratio", None, "mlp_ratio=None"),
        ("config.mlp_ratio", float("nan"), "mlp_ratio=nan"),
        ("config.pad_last", "x", "pad_last='x'"),
        ("config.depth", 9.0, "depth=9.0"),
        ("config.num_classes", True, "num_classes=True"),
        ("config.pooling", None, "pooling=None"),
        ("config.frontend", None, "config"),
        ("config.frontend.hop_length", 1, r"hop_length=1\b"),
        ("config.frontend.sample_rate", 8000, "f_max=8000.0.* 4000 Hz"),
        ("config.frontend.f_max", 1e9, "f_max=1000000000.0"),
        ("config", {"encoder": {}}, "encoder"),
        ("labels", [1] * 527, "labels"),
        ("labels", "x" * 527, "labels"),
        ("kind", "mae", "config"),
        ("kind", [], r" \[\] in checkpoint format 1"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(field, value, message, checkpoint, tmp_path):
    save_checkpoint(tmp_path / "m", checkpoint)
    edit(tmp_path / "m", field, value)
    with pytest.raises(SatError, match=message):
        load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("before", "after"),
    [('"hop_length": 160', '"hop_length": 161'), ("Speech", "Spfech"), ("a test", "a tess")],
)
def test_a_flipped_bit_in_the_metadata_is_noticed(before, after, checkpoint, tmp_path):
    save_checkpoint(tmp_path / "m", checkpoint)
    path = tmp_path / "m" / "model" / "metadata"
    text = path.read_text("utf-8")
    path.write_text(text.replace(before, after, 1), "utf-8")
    assert path.read_text("utf-8") != text
    with pytest.raises(SatError, match=r"m is damaged: .*checksum"):
        load_checkpoint(tmp_path / "m")


def test_folders_of_earlier_programs_are_read(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "m", checkpoint)
    edit(tmp_path / "m", "source", "years ago")
    assert load_checkpoint(tmp_path / "m").source == "years ago"


@pytest.mark.parametrize(
    "config",
    [
        *(MODELS[name] for name in ("SAT_XS_2s", "SAT_S_2s", "audiotransformer_tiny")),
        MAES["mae_xs"],
        dataclasses.replace(SAT, mlp_ratio=3, layer_scale=0.1, input_norm="fixed"),
        dataclasses.replace(SAT, frontend=FrontendConfig(n_mels=128)),
    ],
)
def test_shapes_are_those_of_the_traced_model(config):
    traced = jax.eval_shape(functools.partial(fresh_variables, config), jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in flatten_dict(traced, sep="/").items()}
    assert dict(weight_shapes(config)) == shapes


def test_unraisable_errors_of_others_are_passed_on(checkpoint, tmp_path, monkeypatch):
    """Writing a checkpoint drops only the tracebacks of its own late arrays."""
    late: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: late.append(str(raised.exc_value)))
    save_checkpoint(tmp_path / "model", checkpoint)

    class Complaining:
        def __del__(self) -> None:
            raise ValueError("mine")

    thread = threading.Thread(target=Complaining)
    thread.start()
    thread.join()
    assert late == ["mine"]


def test_the_fingerprint_follows_config_and_weights(checkpoint):
    changed = jax.tree.map(np.array, checkpoint.variables)
    next(iter(jax.tree.leaves(changed))).flat[0] += 1e-3
    other = dataclasses.replace(checkpoint.config, pad_last=not checkpoint.config.pad_last)
    same = fingerprint(checkpoint.config, jax.tree.map(np.array, checkpoint.variables))
    prints = {
        same,
        fingerprint(checkpoint.config, checkpoint.variables),
        fingerprint(checkpoint.config, changed),
        fingerprint(other, checkpoint.variables),
    }
    assert len(prints) == 3
