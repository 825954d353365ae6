"""Tags sounds with the exported model in this file's folder, chunk by chunk.

    python run.py sound.wav
    arecord -q -f S16_LE -r 16000 | python run.py -

needs Python 3.9, numpy, and what runs the model: onnxruntime for .onnx, ai-edge-litert for .tflite,
jax for .stablehlo. "-" is standard input: mono 16-bit PCM at the model's rate.
WAV files are read by the standard library, others by soundfile if that is installed. In a program:

    stream = Stream()
    for samples in microphone:  # float32 in [-1, 1], any number at a time
        for start, end, probs in stream.push(samples):
            print(start, end, stream.top(probs, 3))

The file belongs to sat-jax and has its licence, Apache-2.0.
"""

import argparse
import itertools
import json
import math
import os
import sys
import wave
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BLOCK = 8192
"""Samples that are read from a file at a time."""


def load_onnx(path, threads):
    """Returns the model as a function from a dict of arrays to a dict of arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin would take the other programs' time while they wait.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda arrays: dict(zip(names, session.run(None, arrays)))  # noqa: B905 - Python 3.9


def load_litert(path, threads):
    """Returns the model as a function from a dict of arrays to a dict of arrays."""
    from ai_edge_litert.interpreter import Interpreter

    step = Interpreter(model_path=path, num_threads=threads).get_signature_runner()
    return lambda arrays: step(**arrays)


def load_stablehlo(path, threads):
    """Returns the model as a function from a dict of arrays to a dict of arrays."""
    import jax
    from jax import export

    call = jax.jit(export.deserialize(bytearray(Path(path).read_bytes())).call)
    return lambda arrays: {name: np.asarray(array) for name, array in call(arrays).items()}


ENGINES = {"onnx": load_onnx, "litert": load_litert, "stablehlo": load_stablehlo}


class Step:
    """The exported step: samples and state in, probabilities and the next state out."""

    def __init__(self, folder=HERE, threads=1):
        """Loads the model.

        Args:
          folder: with export.json and the model.
          threads: of the runtime.
        """
        self.about = json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))
        self._run = ENGINES[self.about["kind"]](
            str(Path(folder) / self.about["model_file"]), threads
        )
        self._initial = {}
        with open(Path(folder) / self.about["state_file"], "rb") as file:
            for each in self.about["state"]:
                dtype = np.dtype(each["dtype"]).newbyteorder("<")
                values = np.fromfile(file, dtype, math.prod(each["shape"]))
                self._initial[each["name"]] = values.reshape(1, *each["shape"])
            if file.read(1):
                raise ValueError(f"{file.name} belongs to another model")

    def new_state(self, streams=1):
        """Returns the state of new streams: arrays whose first axis is the stream."""
        return {name: np.repeat(array, streams, axis=0) for name, array in self._initial.items()}

    def __call__(self, samples, state):
        """Scores the next window of each stream.

        Args:
          samples: float32 [streams, window] in [-1, 1].
          state: from `new_state` or the call before.

        Returns:
          Probabilities float32 [streams, classes], and the next state.
        """
        found = self._run({"samples": samples, **state})
        return found["probs"], {name: found["new_" + name] for name in state}


class Stream:
    """One stream: takes any number of samples, and gives the chunks that they complete."""

    def __init__(self, step=None):
        """Starts a stream at time 0."""
        self.step = step or Step()
        self.about = self.step.about
        self.labels = [each["name"] for each in self.about["labels"]]
        self._state = self.step.new_state()
        # The window begins `margin` samples before its chunk.
        self._samples = np.zeros(self.about["margin"], np.float32)
        self._started = self.about["margin"] == 0
        self._chunks = 0

    def push(self, samples):
        """Takes float32 samples [n]; returns (start, end, probabilities) of each new chunk."""
        self._samples = np.concatenate([self._samples, np.asarray(samples, np.float32)])
        if not self._started and len(self._samples) > 2 * self.about["margin"]:
            self._mirror_begin()
        chunks = []
        while self._started and len(self._samples) >= self.about["window"]:
            window = self._samples[None, : self.about["window"]]
            probs, self._state = self.step(window, self._state)
            self._samples = self._samples[self.about["hop"] :]
            start = self._chunks * self.about["hop"] / self.about["sample_rate"]
            self._chunks += 1
            end = self._chunks * self.about["hop"] / self.about["sample_rate"]
            chunks.append((start, end, probs[0]))
        return chunks

    def finish(self):
        """Ends the stream: fills the last chunk up with silence, and returns it as `push` does."""
        left = len(self._samples) - self.about["margin"]
        if left <= 0:
            return []
        begin = self._chunks * self.about["hop"]
        silence = np.zeros(self.about["window"], np.float32)
        chunks = self.push(silence)[:1]
        self._samples = self._samples[:0]
        end = (begin + left) / self.about["sample_rate"]
        return [(start, min(end, whole), probs) for start, whole, probs in chunks]

    def top(self, probs, count):
        """Returns the (label, probability) of the most probable classes."""
        order = np.argsort(-probs, kind="stable")[:count]
        return [(self.labels[i], float(probs[i])) for i in order]

    def _mirror_begin(self):
        """The spectrogram of the first chunk begins with the mirror image of its samples."""
        margin = self.about["margin"]
        self._samples[:margin] = self._samples[margin + 1 : 2 * margin + 1][::-1]
        self._started = True


def read_blocks(path, rate):
    """Yields a sound as float32 blocks, mono at a rate; "-" is PCM from standard input."""
    if path == "-":
        while block := sys.stdin.buffer.read(rate // 5 * 2):
            yield np.frombuffer(block[: len(block) // 2 * 2], "<i2").astype(np.float32) / 32768
        return
    try:
        found, blocks = open_sound(path)
        if not 1000 <= found <= 768_000 or found * rate // math.gcd(found, rate) ** 2 > 2_000_000:
            raise ValueError(f"{found} samples a second")
        for block in resample((block.mean(1) for block in blocks), found, rate):
            if not np.isfinite(block).all():
                raise ValueError("a sample is NaN or Inf")
            yield block
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        todo = f"try ffmpeg -i {path} -ar {rate} sound.wav"
        sys.exit(f"run.py: {path} cannot be read ({error}): {todo}")


def open_sound(path):
    """Returns the sample rate of a file, and its blocks, float32 [n, channels]."""
    try:
        file = wave.Wave_read(path)
        if file.getsampwidth() != 2:
            raise wave.Error("not 16 bits")
        return file.getframerate(), wav_blocks(file)
    except (wave.Error, EOFError, RuntimeError) as error:
        try:
            import soundfile
        except ModuleNotFoundError:
            reason = str(error) or "its header is cut or wrong"
            sys.exit(f"run.py: {path} is not a WAV of 16 bits ({reason}): pip install soundfile")
    file = soundfile.SoundFile(path)
    file.seekable = lambda: False  # It would seek after each read, and MP3 is wrong after that.
    return file.samplerate, file_blocks(file)


def file_blocks(file):
    """Yields the blocks of an open file of soundfile."""
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        yield block


def wav_blocks(file):
    """Yields the blocks of an open WAV file of 16 bits; a cut last sample is dropped."""
    channels = file.getnchannels()
    while data := file.readframes(BLOCK):
        whole = len(data) // (2 * channels) * 2 * channels
        block = np.frombuffer(data[:whole], "<i2").reshape(-1, channels)
        yield block.astype(np.float32) / 32768


def resample(blocks, rate, new_rate, zeros=96):
    """Resamples a sound by a windowed sinc.

    Args:
      blocks: float32 [n] each, of any length.
      rate: of the blocks, an integer like `new_rate`.
      new_rate: of what it yields, float32 [n].
      zeros: of the sinc on each side; with fewer, the filter is less steep.
    """
    if rate == new_rate:
        yield from blocks
        return
    common = math.gcd(rate, new_rate)
    taken, given = rate // common, new_rate // common  # So many samples become so many.
    cutoff = 0.956 * min(1.0, new_rate / rate)
    half = math.ceil(zeros / cutoff)
    distance = np.arange(-half, taken + half + 1)[:, None] - np.arange(given) * (taken / given)
    place = np.pi * np.minimum(np.abs(distance) / (half + 1), 1.0)
    blackman_harris = (0.35875, 0.48829, 0.14128, 0.01168)
    window = sum(factor * np.cos(i * place) for i, factor in enumerate(blackman_harris))
    filters = (cutoff * np.sinc(cutoff * distance) * window).astype(np.float32)
    arrived, made, kept = 0, 0, np.zeros(half, np.float32)
    for block in itertools.chain(blocks, [None]):
        if block is None:  # The end: silence gets the last samples out.
            block = np.zeros(len(filters) + taken, np.float32)
        else:
            arrived += len(block)
        kept = np.concatenate([kept, block])
        if len(kept) < len(filters):
            continue
        pieces = np.lib.stride_tricks.sliding_window_view(kept, len(filters))[::taken]
        kept = kept[len(pieces) * taken :]
        sound = (np.ascontiguousarray(pieces) @ filters).ravel()
        yield sound[: arrived * given // taken - made]
        made += len(sound)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Tags sounds chunk by chunk.")
    parser.add_argument("sounds", nargs="+", help="files; - is 16-bit PCM from standard input")
    parser.add_argument("-k", "--k", type=int, default=5, help="tags of each chunk")
    parser.add_argument("--threads", type=int, default=1, help="of the runtime")
    arguments = parser.parse_args()
    if arguments.k < 1 or not 1 <= arguments.threads <= 256:
        parser.error("-k takes 1 and more, --threads 1 to 256")
    sys.stdout.reconfigure(errors="replace")  # Not every terminal has the letters of every label.
    try:
        step = Step(threads=arguments.threads)
    except ModuleNotFoundError as error:
        package = error.name.replace("_", "-")
        sys.exit(f"run.py: {error.name} is not installed: pip install {package}")
    except Exception as error:  # Each runtime has its own.
        reason = " ".join(str(error).split())
        todo = "export it again, for an older onnxruntime with a lower --opset"
        sys.exit(f"run.py: {HERE} cannot be loaded ({reason}): {todo}")
    for path in arguments.sounds:
        if path != "-" and not Path(path).is_file():
            sys.exit(f"run.py: {path} is not a file")
        print(f"===== {path} =====")
        stream = Stream(step)
        for block in read_blocks(path, step.about["sample_rate"]):
            show(stream, stream.push(block), arguments.k)
        show(stream, stream.finish(), arguments.k)


def show(stream, chunks, count):
    """Prints the most probable classes of each chunk."""
    for start, end, probs in chunks:
        for rank, (label, prob) in enumerate(stream.top(probs, count), 1):
            span = f"[{round(start, 3)}s]-[{round(end, 3)}s]"
            print(f"{span} Topk-{rank} {label:<30} {prob:.4f}")
        print(flush=True)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(130)  # Without a last try to print.
    except OSError as error:
        print(f"run.py: cannot print ({error.strerror})", file=sys.stderr)
        os._exit(1)
