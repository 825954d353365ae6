"""A live run: nothing is compiled once the first samples are read."""

import io
import logging

import jax
import numpy as np
import pytest

from sat_jax.config import ModelConfig
from sat_jax.labels import default_label_names
from sat_jax.models.transformer import init_variables
from sat_jax.runtime import program_store
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint
from tests.support.programs import run_command

RATE = 16_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = ModelConfig(
        width=64, depth=1, num_classes=5, target_length=32, cache_length=32, pad_last=True
    )
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(0))
    labels = default_label_names(5)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(folder, Checkpoint(config=config, variables=variables, labels=labels))
    return folder


class Microphone(io.BytesIO):
    """Standard input that forgets, at its first sample, what was compiled before."""

    def __init__(self, samples, forget):
        super().__init__((samples * 32767).astype("<i2").tobytes())
        self._forget = forget

    def read(self, size=-1):
        if self.tell() == 0:
            self._forget()
        return super().read(size)

    read1 = read


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("-c", "0.34"),
        ("-c", "0.9"),  # several pieces, the last one padded
        ("--framing=seamless", "-c", "0.32"),
        ("--warmup=none", "-c", "0.32"),
        ("--plot={folder}/picture.png",),
    ],
    ids=" ".join,
)
def test_a_live_run_compiles_before_it_reads(flags, tiny, tmp_path, monkeypatch, caplog, capsys):
    flags = [flag.format(folder=tmp_path) for flag in flags]
    jax.clear_caches()
    monkeypatch.setattr(program_store, "_stores", {})
    samples = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE + 4_321)
    microphone = Microphone(samples, caplog.clear)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(microphone))
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, logger="jax"):
        assert run_command("tag", "-m", tiny, "-k", 1, "--format=csv", *flags, "-") == 0
    end = float(capsys.readouterr().out.splitlines()[-1].split(",")[2])
    assert abs(end - (len(samples) / RATE)) < 0.17
    compiled = [each.getMessage() for each in caplog.records if "ompil" in each.getMessage()]
    assert not compiled


def test_clip_mode_compiles_its_spectrogram_before_it_reads(tiny, monkeypatch, caplog, capsys):
    """The model itself runs after the end of the sound, on pieces of a length not known before."""
    jax.clear_caches()
    monkeypatch.setattr(program_store, "_stores", {})
    microphone = Microphone(np.zeros(2 * RATE), caplog.clear)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(microphone))
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, logger="jax"):
        assert run_command("tag", "-m", tiny, "--mode=clip", "-") == 0
    compiled = " ".join(
        each.getMessage() for each in caplog.records if "ompil" in each.getMessage()
    )
    assert "clip_piece" in compiled and "framed_power_db" not in compiled
