"""What recipes tell of their models, and how a trained one gets into the package."""

import functools
import importlib
import json
import operator
import os
import signal
import struct
import subprocess
import sys
import time
import types
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from data_pipeline.sources.clips import Clip
from projects.box_model import bundle as bundle_module
from projects.box_model import course as pkg_audio
from projects.box_model import stages
from projects.box_model.accuracy import choose, summarize
from projects.box_model.bundle import bundle
from projects.box_model.clips_fingerprint import clips_fingerprint
from projects.box_model.dataset_fingerprint import dataset_fingerprint
from projects.box_model.esc10_results import read_choice, summarize_folds, write_tables
from projects.box_model.stage_log import StageLog, read_json
from projects.box_model.stages import run_stage
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.models.registry import model_config
from sat_jax.weights.catalog import bundled_folder
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.weights.warm_start import fresh_variables


def test_accuracy_is_counted_by_class():
    truth = ["dog", "dog", "rain", "rain", "rain"]
    chosen = ["dog", "rain", "rain", "rain", "dog"]
    result = summarize(truth, chosen)
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["by_class"] == pytest.approx({"dog": 1 / 2, "rain": 2 / 3})
    assert result["confused"] == {"dog -> rain": 1, "rain -> dog": 1}


def test_a_class_is_chosen_by_the_mean_of_its_strongest_name():
    probs = np.zeros((2, 10), np.float32)
    probs[:, 0] = (0.9, 0.0)
    probs[:, 1] = (0.0, 0.8)  # Another name of the same class: 0.85 together.
    probs[:, 2] = (0.95, 0.7)
    probs[:, 3] = (1.0, 0.6)  # Of no class.
    probs[:, 4:7] = 0.5
    probs[:, 7] = 0.48  # The sixth.
    chunks = [types.SimpleNamespace(probs=row) for row in probs]
    tagger = types.SimpleNamespace(tag_file=lambda path: iter(chunks))
    classes = [(2,), (0, 1), (7,), (8,)]
    for labels, is_among_first in (((2,), True), ((6,), True), ((7,), False), ((7, 4), True)):
        choice = choose(tagger, Clip(Path("a.wav"), labels, "a.wav"), classes)
        assert choice == ((0, 1), is_among_first)


def test_folds_are_told_of_together_and_by_class():
    folds = {
        "1": {"accuracy": 0.75, "by_class": {"dog": 0.5, "rain": 1.0}, "among_first_five": 0.25},
        "2": {"accuracy": 0.25, "by_class": {"dog": 0.0, "rain": 0.5}, "among_first_five": 1.0},
    }
    tuned = {fold: folds["1"] for fold in folds}
    result = summarize_folds(folds, tuned)
    assert result["zero_shot"] == {
        "accuracy": 0.5,
        "by_fold": {"1": 0.75, "2": 0.25},
        "by_class": {"dog": 0.25, "rain": 0.75},
        "among_first_five": 0.625,
    }
    lines = write_tables(result).splitlines()
    assert "| zero-shot | 0.500 | 0.750 | 0.250 |" in lines
    assert "| fine-tuned on the other folds | 0.750 | 0.750 | 0.750 |" in lines
    assert [line for line in lines if line.startswith("| dog")] == [
        "| dog | 0.250 |",
        "| dog | 0.500 |",
    ]
    assert any("likeliest of all the model's for 0.625 of" in line for line in lines)


@pytest.mark.parametrize("content", ["[]", '{"accuracy": 0.5, "by_class": {}}', "{"])
def test_choices_of_another_form_are_damaged(tmp_path, content):
    (tmp_path / "zero_shot1.json").write_text(content)
    with pytest.raises(SatError, match=r"zero_shot1\.json is damaged: remove it"):
        read_choice(tmp_path / "zero_shot1.json")


def write_file(path, text):
    """A command whose result is a file."""
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    return ("-c", code, str(path), text)


def test_results_are_reused_only_where_they_were_made_in_the_same_way(tmp_path, capfd):
    result = tmp_path / "course" / "sub" / "result"

    def stage(text, work=result.parent.parent, inputs=()):
        path = work / "sub" / "result"
        run_stage(work, "writing", path, write_file(path, text), inputs=inputs)
        return path.read_text()

    assert [stage("one"), stage("one")] == ["one", "one"]
    assert capfd.readouterr().out.count("$ python") == 1
    for made in (lambda: stage("two"), lambda: stage("one", inputs=["other weights"])):
        with pytest.raises(SatError, match=r"result was made with .*give another --workdir"):
            made()
    assert result.read_text() == "one"
    moved = result.parent.parent.rename(tmp_path / "moved")
    assert stage("one", work=moved) == "one"
    assert capfd.readouterr().out == "", "it was not made again"
    (moved / "stages.json").unlink()
    with pytest.raises(SatError, match="is there, but not how it was made"):
        stage("one", work=moved)
    (moved / "stages.json").write_text("{")
    with pytest.raises(SatError, match=r"stages\.json is damaged: give another --workdir"):
        stage("one", work=moved)


def test_what_failed_may_be_tried_in_another_way(tmp_path):
    result = tmp_path / "result"
    with pytest.raises(SatError, match="exit code 3"):
        run_stage(tmp_path, "writing", result, ("-c", "raise SystemExit(3)"))
    run_stage(tmp_path, "writing", result, write_file(result, "one"))
    assert StageLog(tmp_path).seconds()["writing"]["wall"] > 0.01
    assert [stage["made_by"][-1] for stage in read_json(tmp_path / "stages.json").values()] == [
        "one"
    ]


def test_results_of_other_scenes_are_refused(tmp_path, monkeypatch):
    made = []

    def make(*command):
        made.append(command)
        [output] = [flag for flag in command if flag.startswith("--output=")]
        Path(output.removeprefix("--output=")).touch()

    monkeypatch.setattr(stages, "run", make)
    data = tmp_path / "pkg_audio" / "1.2.0"
    data.mkdir(parents=True)
    (data / "strong_train.tsv").write_text("filename")

    def label():
        about = dataset_fingerprint(data)
        pkg_audio._Course(tmp_path / "work", tmp_path, f"the data set {about}", ()).label_chunks(2)

    label()
    label()
    (data / "strong_train.tsv").write_text("file")
    with pytest.raises(SatError, match=r"with the data set \w+, now it is the data set .*remove"):
        label()
    assert len(made) == 1


def record(data):
    """As TensorFlow writes it, but for the first checksum, which nobody reads."""
    return struct.pack("<QI", len(data), 0) + data + struct.pack("<I", zlib.crc32(data))


def test_a_data_set_is_known_by_what_is_in_it_wherever_it_lies(tmp_path):
    def write(folder, **changes):
        files = {
            "dataset_info.json": b"{}",
            "strong_train.tsv": b"filename",
            "x-train.tfrecord-00000-of-00001": record(b"one") + record(b"two"),
            "clips_0.npz": b"an index",
        }
        folder.mkdir()
        for name, content in (files | changes).items():
            (folder / name).write_bytes(content)
        return dataset_fingerprint(folder)

    first = write(tmp_path / "a")
    assert write(tmp_path / "b", **{"clips_0.npz": b"other", "clips_1.npz": b""}) == first
    changes = {
        "strong_train.tsv": b"filenames",
        "x-train.tfrecord-00000-of-00001": record(b"one") + record(b"six"),
    }
    for number, (name, content) in enumerate(changes.items()):
        assert write(tmp_path / str(number), **{name: content}) != first, name
    with pytest.raises(SatError, match="is damaged: it ends inside the record"):
        write(tmp_path / "c", **{"x-train.tfrecord-00000-of-00001": record(b"one")[:-1]})


def test_recordings_are_known_by_their_table_and_their_sizes(tmp_path):
    table, sound = tmp_path / "table.csv", tmp_path / "a.wav"
    sound.write_bytes(b"long")
    table.write_text("file,class\na.wav,hum\ngone.wav,hum\n")
    first, again = clips_fingerprint(table), clips_fingerprint(table)
    sound.write_bytes(b"longer")
    longer = clips_fingerprint(table)
    table.write_text(table.read_text().replace("hum", "hiss"))
    assert first == again and len({first, longer, clips_fingerprint(table)}) == 3


def test_two_recipes_in_one_folder_share_what_both_need(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from projects.box_model.stages import run_stage\n"
        "work, own = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "slow = 'import pathlib, sys, time; path = pathlib.Path(sys.argv[1]);' \\\n"
        '    \'path.with_suffix(".begun").open("a").write("x"); time.sleep(1); path.touch()\'\n'
        "for name in ('shared', own, own + '2'):\n"
        "    run_stage(work, name, work / name, ('-c', slow, str(work / name)))\n"
    )
    for _ in range(2):  # The second time all is there.
        commands = [[sys.executable, "-c", code, tmp_path, own] for own in ("one", "two")]
        both = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
        out = "".join(process.communicate(timeout=120)[0] for process in both)
        assert [process.returncode for process in both] == [0, 0]
    assert out == ""
    names = {"shared", "one", "one2", "two", "two2"}
    assert {path.read_text() for path in tmp_path.glob("*.begun")} == {"x"}, "each once"
    assert {path.stem for path in tmp_path.glob("*.begun")} == names
    log = StageLog(tmp_path)
    assert {name for name, time in log.seconds().items() if time["wall"] > 1} == names
    assert not log.unknown_starts()


SAVING = """
import os, pathlib, signal, sys, time
def stop(*_):
    with open('saved', 'a') as file: file.write('x')
    time.sleep(0.5)
    sys.exit()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, stop)
pathlib.Path('new').write_text(str(os.getpid()))
pathlib.Path('new').rename('ready')
time.sleep(60)
"""
"""A command that saves each time it is told to stop."""

RECIPE = """
import pathlib, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # The tests' own caller may have told to ignore it.
from projects.box_model import stages
from sat_jax.errors import SatError
stages.ROOT = pathlib.Path(sys.argv[1])
try: stages.run('-c', sys.argv[2])
except (SatError, KeyboardInterrupt) as error:
    saved = (stages.ROOT / 'saved').read_text()
    (stages.ROOT / 'end').write_text(f"{type(error).__name__} {saved}")
"""
ENDS = {signal.SIGINT: "KeyboardInterrupt x"} | dict.fromkeys(
    (signal.SIGTERM, signal.SIGHUP), "SatError x"
)


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("tell", [os.kill, os.killpg])
def test_a_recipe_that_is_told_to_stop_waits_for_the_command_it_runs(tmp_path, number, tell):
    arguments = [sys.executable, "-c", RECIPE, tmp_path, SAVING]
    with subprocess.Popen(arguments, start_new_session=True) as process:
        wait_for(tmp_path / "ready")
        tell(process.pid, number)
        process.wait(timeout=60)
    assert (tmp_path / "end").read_text() == ENDS[number]


def test_ctrl_c_in_a_terminal_stops_a_recipe_and_its_command_once(tmp_path):
    terminal = (
        "import os, pathlib, pty, sys, time\n"
        "pid, keys = pty.fork()\n"
        "if not pid: os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])\n"
        "while not (pathlib.Path(sys.argv[2]) / 'ready').exists(): time.sleep(0.1)\n"
        "os.write(keys, bytes([3]))\n"
        "os.waitpid(pid, 0)"
    )
    arguments = [sys.executable, "-c", terminal, RECIPE, tmp_path, SAVING]
    subprocess.run(arguments, timeout=60, check=True)
    assert (tmp_path / "end").read_text() == "KeyboardInterrupt x"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells states of processes")
def test_ctrl_z_halts_the_command_too(tmp_path):
    def wait_for_state(pid, states):
        for _ in range(100):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in states:
                return
            time.sleep(0.1)
        raise AssertionError(f"{pid} is in none of the states {states}")

    arguments = [sys.executable, "-c", RECIPE, tmp_path, SAVING]
    with subprocess.Popen(arguments) as process:
        wait_for(tmp_path / "ready")
        both = (process.pid, int((tmp_path / "ready").read_text()))
        for number, states in ((signal.SIGTSTP, "T"), (signal.SIGCONT, "SR")):
            process.send_signal(number)
            for pid in both:
                wait_for_state(pid, states)
        process.terminate()
        process.wait(timeout=60)
    assert (tmp_path / "end").read_text() == "SatError x"


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} has not come")


def test_one_fold_is_not_enough(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("file,fold,class,audioset_names\na.wav,1,hum,Hum\n")
    command = [
        sys.executable,
        "-m",
        "projects.box_model.esc10",
        f"--clips={table}",
        f"--workdir={tmp_path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "table.csv has clips of 1 fold: two are needed" in done.stderr
    table.write_text("file,class,audioset_names\na.wav,hum,Hum\n")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "column 'fold'" in done.stderr


@pytest.fixture
def checkpoint(tmp_path):
    config = model_config("SAT_XS_1s")
    variables = jax.jit(fresh_variables, static_argnums=0)(config, jax.random.key(0))
    labels = default_label_names(config.num_classes)
    save_checkpoint(tmp_path / "run", Checkpoint(config=config, variables=variables, labels=labels))
    return tmp_path / "run", variables


def test_bundled_weights_are_those_that_were_trained_but_for_rounding(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(bundle_module, "BUNDLED", tmp_path / "models")
    trained, variables = checkpoint
    for _ in range(2):  # A new model takes the old one's place.
        folder = bundle(trained, "SAT_XS_1s")
    for before, after in zip(
        jax.tree.leaves(variables), jax.tree.leaves(load_checkpoint(folder).variables), strict=True
    ):
        before, after = np.asarray(before), np.asarray(after)
        assert after.dtype == np.float32
        # bfloat16 keeps 8 bits: half of the last one is 2^-9.
        np.testing.assert_allclose(after, before, rtol=2**-8, atol=1e-30)
        np.testing.assert_array_equal(after.view(np.uint32) & 0xFFFF, 0)

    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(folder) < 0.6 * size(trained)
    assert not [
        p for p in folder.rglob("*") if p.is_file() and str(tmp_path).encode() in p.read_bytes()
    ]
    with pytest.raises(SatError, match="is no SAT_XS_2s"):
        bundle(trained, "SAT_XS_2s")


@pytest.mark.parametrize("name", ["", ".", "..", "../data", "no such model", "/etc"])
def test_only_names_of_bundled_models_have_a_folder(name):
    assert bundled_folder(name) is None


@pytest.mark.parametrize(
    ("module", "arguments", "code", "words"),
    [
        ("pkg_audio", [], 2, "--tfds_dir is needed"),
        ("pkg_audio", ["--tfds_dir=d", "--workdir=w", "--seeds=x"], 2, "--seeds=x are no numbers"),
        ("pkg_audio", ["--tfds_dir=d", "--workdir=w", "--seeds="], 2, "--seeds"),
        ("pkg_audio", ["--tfds_dir=d", "--workdir=w", f"--seeds={2**32}"], 2, "0 to 4294967295"),
        (
            "pkg_audio",
            ["--tfds_dir=d", "--workdir=w"],
            1,
            "run python -m projects.box_model.scenes",
        ),
        ("choose_class", ["-m", "x"], 2, "--clips is needed"),
        ("choose_class", ["-m", "x", "--clips=c", "--output=o"], 1, "x "),
        ("esc10", ["--workdir=w"], 2, "--clips is needed"),
        ("esc10", ["--clips=c", "--workdir=w", "x"], 2, "x is no flag"),
        ("esc10", ["--clips=no.csv", "--workdir=w"], 1, "no.csv"),
    ],
)
def test_commands_say_in_one_line_what_is_wrong(module, arguments, code, words):
    command = [sys.executable, "-m", f"projects.box_model.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr


def test_a_clip_without_a_class_is_told(tmp_path):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    (tmp_path / "table.csv").write_text("file,labels\na.wav,Dog\nb.wav,\n")
    command = [sys.executable, "-m", "projects.box_model.choose_class", "-m", "SAT_XS_2s"]
    command += [f"--clips={tmp_path}/table.csv", f"--output={tmp_path}/out.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"b.wav in {tmp_path}/table.csv has no class" in done.stderr


@pytest.mark.parametrize("size", ["xs", "tiny", "small", "base"])
def test_every_stage_asks_for_fields_that_its_config_has(size, monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(pkg_audio, "run_stage", lambda *stage, inputs: commands.append(stage[-1]))
    monkeypatch.setattr(pkg_audio, "_SIZE", types.SimpleNamespace(value=size))
    course = pkg_audio._Course(tmp_path, tmp_path, "", ())
    course.train(0)
    assert len(commands) == 1 + 3 + 2 * 2
    for _, config, *flags in commands:
        script, _, choice = config.removeprefix("--config=configs/").partition(".py:")
        made = importlib.import_module(f"configs.{script}").get_config(choice)
        asked = [flag.split("=")[0] for flag in flags if flag.startswith("--config.")]
        assert asked
        for field in asked:
            *path, last = field.removeprefix("--config.").split(".")
            assert last in functools.reduce(operator.getitem, path, made), field


def test_stages_begin_where_others_end(monkeypatch, tmp_path):
    """Which model each begins with, and what sets models that are compared apart."""
    made = {}

    def note(work, stage, result, command, inputs):
        flags = dict(flag.split("=", 1) for flag in command if "=" in flag)
        made[str(result.relative_to(tmp_path / "seed3"))] = flags

    monkeypatch.setattr(pkg_audio, "run_stage", note)
    monkeypatch.setattr(pkg_audio, "_SIZE", types.SimpleNamespace(value="xs"))
    course = pkg_audio._Course(tmp_path, tmp_path, "", ())
    course.train(3)
    begins = {
        name: str(Path(flags["--init"]).relative_to(tmp_path / "seed3"))
        for name, flags in made.items()
        if "--init" in flags
    }
    streaming = ("SAT_XS_2s", "SAT_XS_1s", "no_memory_XS_2s", "no_memory_XS_1s")
    assert begins == {
        "sounds/model": "mae/model",
        "vit/model": "sounds/model",
        **{f"{name}/model": "vit/model" for name in ("vit_longer", *streaming)},
    }
    assert {flags["--config.seed"] for flags in made.values()} == {"3"}
    assert {flags["--valid_tfds"] for flags in made.values()} == {"pkg_audio:validation"}
    assert made["mae/model"]["--tfds"] == made["sounds/model"]["--tfds"] == "pkg_audio:sounds"
    fields = {"--config.num_steps", "--config.data.batch_size", "--config.evaluate_every"}
    vit, longer = made["vit/model"], made["vit_longer/model"]
    changed = {key for key in longer if longer[key] != vit.get(key)}
    assert changed == fields | {"--init", "--workdir"} and vit.keys() == longer.keys()
    for name in ("vit", *streaming):
        assert made[f"{name}/model"]["--tfds"] == "pkg_audio:train"
    for name in streaming:
        ours = made[f"{name}/model"]
        assert {field: ours[field] for field in fields} == {f: longer[f] for f in fields}
        assert ours["--psl"] == str(tmp_path / f"heard_{name[-2:]}.parquet")
    other = {"--config.model.cache_length": "0", "--config.silence_share": "0.0"}
    for seconds in (2, 1):
        ours, theirs = (made[f"{name}_XS_{seconds}s/model"] for name in ("SAT", "no_memory"))
        changed = {key for key in theirs if theirs[key] != ours.get(key)}
        assert changed == {*other, "--config.name", "--workdir"}
        assert other.items() <= theirs.items()

    made.clear()
    course.measure(3)
    assert set(made) == {"memory.json"} | {
        f"measured/{name}/metrics.json" for name in ("vit", "vit_longer", *streaming)
    }
    for result, flags in made.items():
        name = result.split("/")[1] if "/" in result else None
        assert flags.get("--model") == (name and str(tmp_path / "seed3" / name / "model"))
        assert flags["--tfds"] == "pkg_audio:test"
    ways = {
        result.split("/")[1]: (flags["--chunk"], flags["--mode"])
        for result, flags in made.items()
        if result != "memory.json"
    }
    assert ways == {
        **dict.fromkeys(("vit", "vit_longer"), ("2,1", "chunks,sliding,clip")),
        **{f"SAT_XS_{s}s": (f"{s}", "stream,chunks") for s in (2, 1)},
        **{f"no_memory_XS_{s}s": (f"{s}", "chunks") for s in (2, 1)},
    }


@pytest.mark.slow
def test_no_fold_is_learned_from_before_it_is_measured(checkpoint, tmp_path):
    rng = np.random.default_rng(0)
    rows = ["file,fold,class,audioset_names"]
    for fold in "123":
        for name, audioset in (("hum", "Hum;Mains hum"), ("hiss", "Hiss")):
            samples = (
                rng.normal(0, 0.1, 16_000) if name == "hiss" else np.sin(np.arange(16_000) / 9)
            )
            soundfile.write(tmp_path / f"{name}{fold}.wav", 0.3 * samples, 16_000)
            rows.append(f"{name}{fold}.wav,{fold},{name},{audioset}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    model, _ = checkpoint
    command = [
        sys.executable,
        "-m",
        "projects.box_model.esc10",
        "-m",
        model,
        f"--clips={tmp_path}/table.csv",
    ]
    command += [f"--workdir={tmp_path}/work", "--", "--config.num_steps=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "work/results.json").read_text())
    for kind in ("zero_shot", "fine_tuned"):
        by_fold = result[kind]["by_fold"]
        assert list(by_fold) == ["1", "2", "3"] and set(by_fold.values()) <= {0.0, 0.5, 1.0}
        assert result[kind]["accuracy"] == pytest.approx(np.mean(list(by_fold.values())))
    assert (tmp_path / "work/results.md").read_text() in done.stdout
    for fold, others in (("1", "2,3"), ("2", "1,3"), ("3", "1,2")):
        run = tmp_path / "work" / f"fold{fold}"
        assert f"--where=fold={others} --workdir={run} " in done.stdout
        assert f"--where=fold={fold} --output={run / 'chosen.json'}" in done.stdout
        assert load_checkpoint(run / "model").labels == ("hiss", "hum")
