"""Data of a training run: notes, record, and pseudo labels that do not fit."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from data_pipeline.batches.windows import WindowConfig
from data_pipeline.psl.parquet_files import PslWriter
from data_pipeline.training_data import open_training_data, window_config
from sat_jax.errors import SatError
from sat_jax.labels import class_fingerprint
from sat_jax.models.registry import MAES, MODELS
from sat_jax.training.config_files import load_config

LABELS = ("Speech", "Dog", "Cat")


@pytest.fixture
def source(tmp_path):
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(32_000), 16_000)
    table = tmp_path / "clips.csv"
    table.write_text("file,labels\na.wav,Speech\nb.wav,Dog\nc.wav,Cat\n")
    return {"clips": str(table), "folder": str(tmp_path)}


def config(**changes):
    fields = {"batch_size": 2, "window_seconds": 2.0, "num_classes": 3, "psl_share": 1.0}
    return WindowConfig(**(fields | changes))


def psl(path, names, classes="0;1"):
    columns = {
        "filename": names,
        "start": [0.0] * len(names),
        "end": [2.0] * len(names),
        "prob": ["0.5;0.0"] * len(names),
        "idxs": [classes] * len(names),
    }
    pq.write_table(pa.table(columns), path)
    return [str(path)]


def numbers(note):
    return re.findall(r"\d+", note)


def test_notes_count_clips_with_pseudo_labels(source, tmp_path):
    known = psl(tmp_path / "known.parquet", ["a.wav", "b.wav"])
    data = open_training_data(config(), LABELS, source, psl_paths=known)
    assert [numbers(note) for note in data.notes] == [["3"], ["2", "3", "1"]]
    more = psl(tmp_path / "more.parquet", ["a.wav", "x.wav", "y.wav"])
    data = open_training_data(config(), LABELS, source, psl_paths=more)
    assert numbers(data.notes[1]) == ["1", "3", "2", "2"]
    everything = psl(tmp_path / "all.parquet", ["a.wav", "b.wav", "c.wav"])
    data = open_training_data(config(), LABELS, source, psl_paths=everything)
    assert numbers(data.notes[1]) == ["3", "3"]
    batch = next(data.batches(0))
    assert batch["target"].tolist() == [[0.5, 0.0, 0.0]] * 2


def test_pseudo_labels_with_no_share_are_refused(source, tmp_path):
    with pytest.raises(SatError, match=r"p\.parquet.*data\.psl_share=0"):
        open_training_data(
            config(psl_share=0.0), LABELS, source, psl_paths=psl(tmp_path / "p.parquet", ["a.wav"])
        )


def test_the_record_depends_on_labels(source, tmp_path):
    def record(rows, labels=LABELS):
        paths = psl(tmp_path / "p.parquet", rows)
        return open_training_data(config(), labels, source, psl_paths=paths).record

    first = record(["a.wav"])
    assert record(["a.wav"]) == first
    assert record(["b.wav"])["psl"] != first["psl"]
    assert record(["a.wav"], ("Cat", "Dog", "Speech"))["labels"] != first["labels"]


def test_missing_validation_files_name_their_own_flag(source, tmp_path):
    with pytest.raises(SatError, match=r"c\.csv: .*c/x\.wav.* --valid_folder"):
        valid = {"clips": str(tmp_path / "c.csv"), "folder": str(tmp_path / "c")}
        (tmp_path / "c.csv").write_text("file,labels\nx.wav,Dog\n")
        open_training_data(config(psl_share=0.0), LABELS, source, valid_fields=valid)


def test_shards_need_a_tensorflow_dataset(source):
    with pytest.raises(SatError, match=r"data\.read_order='shards'.*--tfds"):
        open_training_data(config(psl_share=0.0, read_order="shards"), LABELS, source)
    with pytest.raises(SatError, match=r"data\.read_order='files'"):
        config(read_order="files")


def test_pseudo_labels_of_another_model_are_refused_before_the_run(source, tmp_path):
    paths = psl(tmp_path / "p.parquet", ["a.wav", "b.wav"], classes="0;3")
    with pytest.raises(SatError, match=r"p\.parquet has class 3, the model has 0 to 2"):
        open_training_data(config(), LABELS, source, psl_paths=paths)


def test_pseudo_labels_by_a_teacher_of_other_classes_are_refused(source, tmp_path):
    path = str(tmp_path / "made.parquet")
    with PslWriter(path, {"classes": class_fingerprint(LABELS)}) as writer:
        writer.write(
            ["a.wav"], np.zeros(1), np.full(1, 2.0), np.zeros((1, 1), int), np.ones((1, 1))
        )
    assert open_training_data(config(), LABELS, source, psl_paths=[path]).notes
    with pytest.raises(SatError, match=r"made\.parquet"):
        open_training_data(config(), LABELS[::-1], source, psl_paths=[path])


def test_windows_follow_from_config_and_model():
    model = MODELS["SAT_T_2s"]
    config = load_config("sat.py:SAT_T_2s")
    windows = window_config(config, model)
    assert (windows.window_seconds, windows.num_classes, windows.chunks) == (4.0, 527, 1)
    config.loss_per_chunk = True
    assert window_config(config, model).chunks == 2
    # fine-tuning has no length of its own.
    assert window_config(load_config("finetune.py"), MODELS["SAT_T_1s"]).window_seconds == 2.0


def test_windows_of_an_autoencoder_have_no_targets():
    config = load_config("mae.py:tiny")
    assert window_config(config, MAES["mae_tiny"]).num_classes == 0
    config.data.psl_share = 0.5
    with pytest.raises(SatError, match=r"psl_share=0\.5"):
        window_config(config, MAES["mae_tiny"])
