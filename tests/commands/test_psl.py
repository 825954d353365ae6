"""The command psl: files of labels, error lines and exit codes."""

import jax
import numpy as np
import pytest
import soundfile

from data_pipeline.psl.parquet_files import read_metadata
from data_pipeline.psl.table import read_psl
from sat_jax.config import ModelConfig
from sat_jax.labels import class_fingerprint
from sat_jax.models.transformer import init_variables
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint, save_checkpoint
from tests.support.programs import run_command

RATE = 16_000


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(4):
        soundfile.write(tmp_path / f"{index}.wav", 0.1 * rng.standard_normal(RATE), RATE)
    rows = [f"{index}.wav,No class of the teacher" for index in range(4)]
    (tmp_path / "clips.csv").write_text("\n".join(["file,labels", *rows, "lost.wav,"]))
    return tmp_path / "clips.csv"


def test_labels_of_a_shard(clips, tmp_path, capsys):
    config = ModelConfig(width=64, depth=1, target_length=64, num_classes=4)
    variables = jax.jit(init_variables, static_argnums=0)(config, jax.random.key(3))
    checkpoint = Checkpoint(config=config, variables=variables, labels=tuple("abcd"), source="")
    save_checkpoint(tmp_path / "model", checkpoint)
    flags = ["--window=1", "--hop=0.5", "--top_k=3", "--shard=0/2", f"--output={tmp_path / 'out'}"]
    assert run_command("psl", "-m", tmp_path / "model", f"--clips={clips}", *flags) == 1
    printed = capsys.readouterr()
    lost, count = printed.err.splitlines()
    assert lost.startswith("sat-jax psl: ") and str(tmp_path / "lost.wav") in lost
    assert "1 clips" in count
    assert str(tmp_path / "out") in printed.out and "2 clips" in printed.out
    (part,) = (tmp_path / "out").iterdir()
    metadata = read_metadata(part)
    assert metadata["classes"] == class_fingerprint("abcd")
    assert (metadata["window"], metadata["hop"], metadata["top_k"]) == (1.0, 0.5, 3)
    table = read_psl([tmp_path / "out"], ["0.wav", "2.wav"])
    assert table.window_starts.tolist() == [0, 1, 2]
    for name, indices, probs in zip(("0.wav", "2.wav"), table.indices, table.probs, strict=True):
        [answer] = Tagger(checkpoint).clip([soundfile.read(tmp_path / name, dtype="float32")[0]])
        np.testing.assert_array_equal(indices, np.argsort(-answer.probs)[:3])
        np.testing.assert_allclose(probs, answer.probs[indices], atol=2e-6)


def test_labels_of_events(clips, tmp_path):
    table = tmp_path / "strong.tsv"
    rows = ["0.wav\t0.2\t0.7\tDog", *(f"{name}.wav\t\t\t" for name in ("1", "2", "3", "lost"))]
    table.write_text("\n".join(["filename\tonset\toffset\tevent_label", *rows]))
    flags = [f"--strong={table}", f"--clips={clips}", "--window=0.5", "--hop=0.5", "--top_k=1"]
    assert run_command("psl", *flags, f"--output={tmp_path / 'psl.parquet'}") == 1
    found = read_psl([tmp_path / "psl.parquet"], [f"{index}.wav" for index in range(4)])
    assert found.probs[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


SOURCE = ["--clips=a"]
OUTPUT = ["-m", "x", "--output=o"]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([], 2, "--model"),
        (["-m", "x"], 2, "--output"),
        (OUTPUT, 2, "--hdf5_tsv"),
        ([*OUTPUT, *SOURCE, "--tfds=b:c"], 2, "--clips and --tfds"),
        ([*OUTPUT, "--folder=a"], 2, "--folder"),
        (["-m", "x", "--output=psl.txt", *SOURCE], 2, "--output=psl.txt"),
        (["-m", "x", "--output=psl.v2/", *SOURCE], 1, "x"),
        ([*OUTPUT, "--tfds=b"], 2, "--tfds=b"),
        ([*OUTPUT, *SOURCE, "--shard=2/2"], 2, "--shard=2/2"),
        ([*OUTPUT, *SOURCE, "--top_k=0"], 2, "--top_k=0"),
        ([*OUTPUT, *SOURCE, "a.wav"], 2, "a.wav"),
        ([*OUTPUT, *SOURCE], 1, "x"),
    ],
)
def test_wrong_flags(tmp_path, monkeypatch, capsys, arguments, code, named):
    monkeypatch.chdir(tmp_path)
    assert run_command("psl", *arguments) == code
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith("sat-jax psl: ") and named in line
    assert printed.out == "" and not list(tmp_path.iterdir())
