"""A folder of --format triton, run as Triton runs it: from config.pbtxt and the files it names."""

import concurrent.futures
import contextlib
import dataclasses
import re
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest

from sat_jax.commands import export
from sat_jax.export.folder import write_folder
from sat_jax.export.formats import FORMATS
from sat_jax.export.onnx_runtime import load_step
from sat_jax.export.runner import run
from sat_jax.export.triton import repository_files
from sat_jax.weights.checkpoint import Checkpoint
from tests.export.test_onnx import TINY, fresh, model_of
from tests.support.programs import run_program

TYPES = {"TYPE_FP32": np.dtype("<f4"), "TYPE_INT32": np.dtype("<i4")}
TOKEN = re.compile(r'#.*|"([^"]*)"|([\w.]+|[\[\]{}:,])')


def parse(text):
    """Protobuf's text format as far as the file uses it; every field is a list of its values."""
    tokens = [quoted or plain for quoted, plain in TOKEN.findall(text) if quoted or plain]

    def value(at):
        return message(at + 1) if tokens[at] == "{" else (tokens[at], at + 1)

    def message(at):
        fields = {}
        while at < len(tokens) and tokens[at] != "}":
            values = fields.setdefault(tokens[at], [])
            at += 2 if tokens[at + 1] == ":" else 1
            if tokens[at] != "[":
                each, at = value(at)
                values.append(each)
                continue
            at += 1
            while tokens[at] != "]":
                each, at = value(at)
                values.append(each)
                at += tokens[at] == ","
            at += 1
        return fields, at + 1

    return message(0)[0]


class Triton:
    """What Triton does with such a folder: it keeps a state for each sequence."""

    def __init__(self, folder):
        self.config = parse((folder / "config.pbtxt").read_text(encoding="utf-8"))
        assert self.config["backend"] == ["onnxruntime"]
        self._run = load_step((folder / "1" / "model.onnx").read_bytes())
        [batching] = self.config.get("sequence_batching", [{}])
        self._pairs, self._initial, self._sequences = [], {}, {}
        for state in batching.get("state", []):
            [name], [initial] = state["input_name"], state["initial_state"]
            for key in ("data_type", "dims"):
                assert initial[key] == state[key]
            dims = [int(size) for size in state["dims"]]
            data = (folder / "initial_state" / initial["data_file"][0]).read_bytes()
            dtype = TYPES[state["data_type"][0]]
            assert dims and len(data) == dtype.itemsize * np.prod(dims)
            self._initial[name] = np.frombuffer(data, dtype).reshape(1, *dims)
            self._pairs.append((name, state["output_name"][0]))
        # Triton 26.08 pairs them by their order in two sorted maps.
        inputs, outputs = zip(*self._pairs, strict=True) if self._pairs else ((), ())
        assert list(zip(sorted(inputs), sorted(outputs), strict=True)) == sorted(self._pairs)

    def infer(self, requests):
        """Runs (sequence id, start, samples [1, window]) as a batch; returns probs of each."""
        assert len(requests) <= int(self.config["max_batch_size"][0])
        for sequence, start, _ in requests:
            if start:
                self._sequences[sequence] = self._initial
        states = [self._sequences[sequence] for sequence, _, _ in requests]
        batch = {name: np.concatenate([each[name] for each in states]) for name, _ in self._pairs}
        samples = np.concatenate([each for _, _, each in requests])
        [described] = self.config["input"]
        assert described["dims"] == [str(samples.shape[1])]
        found = self._run({described["name"][0]: samples, **batch})
        for row, (sequence, _, _) in enumerate(requests):
            self._sequences[sequence] = {
                name: found[new][row : row + 1] for name, new in self._pairs
            }
        [described] = self.config["output"]
        probs = found[described["name"][0]]
        assert described["dims"] == [str(probs.shape[1])]
        return probs


def write(folder, config, **how):
    model, variables = model_of(config, **how), fresh(config)
    kind = FORMATS["triton"]
    exported = kind.export(model, variables, "float32", None)
    labels = tuple(f"Class {i}" for i in range(config.num_classes))
    write_folder(
        folder,
        model,
        Checkpoint(config=config, variables=variables, labels=labels, source="a test"),
        model_file=kind.file,
        content=exported.content,
        about=exported.about,
        thresholds=None,
        warmup=how.get("warmup", "silence"),
        files=exported.files,
    )
    return model, variables


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {}),
        ({"depth": 1}, {}),
        ({"pooling": "token"}, {"kind": "seamless"}),
        ({"cache_length": 0}, {"kind": "seamless", "seconds": 0.32}),
        ({"cache_length": 0}, {}),  # No state.
    ],
)
def test_sequences_in_batches_are_streams(tmp_path, changes, how):
    """Sequences begin, rest and begin again at different times."""
    config = dataclasses.replace(TINY, **changes)
    model, variables = write(tmp_path / "repository" / "listener", config, **how)
    triton = Triton(tmp_path / "repository" / "listener")
    rng, states = np.random.default_rng(0), {}
    for step in range(8):
        requests = []
        for sequence in range(4):
            if sequence in states and rng.random() < 0.3:
                continue  # Its next request comes later.
            start = sequence not in states or (sequence, step) == (2, 5)
            samples = rng.uniform(-0.5, 0.5, (1, model.framing.window)).astype(np.float32)
            requests.append((sequence, start, samples))
        found = triton.infer(requests)
        for probs, (sequence, start, samples) in zip(found, requests, strict=True):
            state = model.init(variables, 1) if start else states[sequence]
            expected, states[sequence] = model.step(variables, samples, state)
            np.testing.assert_allclose(probs, expected[0], atol=2e-5)


class RemoteStep:
    """The step on a server, for run.py's Stream: the server keeps the state."""

    def __init__(self, about, infer):
        self.about, self._infer, self._start = about, infer, True

    def new_state(self):
        return {}

    def __call__(self, samples, state):
        probs = self._infer(samples, self._start)
        self._start = False
        return probs, state


@pytest.fixture(scope="module", params=["chunk", "seamless"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("repository") / "listener"
    flags = (f"--framing={request.param}", "--chunk=1.92", "--precision=float32", "--nocheck")
    assert run_program(export.PROGRAM, "export", "--format=triton", *flags, str(path)) == 0
    return path


def noise(seed):
    return np.random.default_rng(seed).uniform(-0.1, 0.1, 100_000).astype(np.float32)


def assert_same(ours, theirs, **how):
    assert len(ours) == len(theirs) > 3
    for (*times, probs), (*expected_times, expected) in zip(ours, theirs, strict=True):
        assert times == expected_times
        np.testing.assert_allclose(probs, expected, **how)


def chunks_of(sound, step):
    stream = run.Stream(step)
    return stream.push(sound) + stream.finish()


def test_a_client_sends_windows_only(folder):
    local, triton = run.Step(folder), Triton(folder)
    remote = RemoteStep(local.about, lambda samples, start: triton.infer([(7, start, samples)]))
    assert_same(chunks_of(noise(0), remote), chunks_of(noise(0), local), rtol=0)
    labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == [each["name"] for each in local.about["labels"]]
    assert triton.config["output"][0]["label_filename"] == ["labels.txt"]


def test_each_label_is_one_line():
    about = {"window": 16_000, "state": [], "labels": [{"name": "a\nb"}, {"name": "c"}]}
    assert repository_files(about, {})["labels.txt"] == b"a b\nc\n"


def tritonclient():
    try:
        import tritonclient.grpc
    except (ImportError, RuntimeError):  # The second without its extra, grpc.
        pytest.skip("tritonclient[grpc] is missing")
    return tritonclient.grpc


@pytest.fixture
def server(folder):
    """A real server with the folder; returns a client."""
    grpc = tritonclient()
    if shutil.which("tritonserver") is None:
        pytest.skip("tritonserver is missing")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ("--allow-http=false", "--allow-metrics=false", "--exit-timeout-secs=1")
    command = ["tritonserver", f"--model-repository={folder.parent}", f"--grpc-port={port}", *flags]
    with subprocess.Popen(command) as process:
        client = grpc.InferenceServerClient(f"127.0.0.1:{port}")
        for _ in range(600):
            with contextlib.suppress(grpc.InferenceServerException):
                if client.is_model_ready("listener"):
                    break
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        yield client
        client.close()
        process.terminate()


@pytest.mark.slow
def test_sequences_on_a_real_server(folder, server):
    """Several at a time; one of them is slower than Triton's own limit of a second."""
    grpc, local = tritonclient(), run.Step(folder)

    def chunks(sequence):
        def infer(samples, start):
            sent = grpc.InferInput("samples", samples.shape, "FP32")
            sent.set_data_from_numpy(samples)
            found = server.infer("listener", [sent], sequence_id=sequence, sequence_start=start)
            time.sleep(1.5 * (sequence == 1))
            return found.as_numpy("probs")

        return chunks_of(noise(sequence), RemoteStep(local.about, infer))

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for sequence, found in enumerate(threads.map(chunks, range(1, 9)), 1):
            assert_same(found, chunks_of(noise(sequence), local), atol=2e-5)
    assert_same(chunks(2), chunks_of(noise(2), local), atol=2e-5)  # A number may come again.


@pytest.mark.parametrize("changes", [{}, {"cache_length": 0}])
def test_the_schema_of_triton(tmp_path, changes):
    """Its own protobuf, from tritonclient[grpc], reads what our parser reads."""
    schema = tritonclient().model_config_pb2
    from google.protobuf import text_format

    write(
        tmp_path / "listener", dataclasses.replace(TINY, **changes), kind="seamless", seconds=0.32
    )
    text = (tmp_path / "listener" / "config.pbtxt").read_text(encoding="utf-8")
    read, ours = text_format.Parse(text, schema.ModelConfig()), parse(text)
    assert (read.backend, read.max_batch_size) == ("onnxruntime", 32)
    assert read.sequence_batching.WhichOneof("strategy_choice") == "oldest"
    assert not read.sequence_batching.control_input
    states = ours["sequence_batching"][0]["state"]
    for state, expected in zip(read.sequence_batching.state, states, strict=True):
        [initial] = state.initial_state
        assert initial.WhichOneof("state_data") == "data_file"
        assert [state.input_name, initial.data_file] == expected["input_name"] * 2
        assert list(state.dims) == list(initial.dims) == [int(n) for n in expected["dims"]]
        assert schema.DataType.Name(state.data_type) == expected["data_type"][0]
        assert state.data_type == initial.data_type and initial.name
