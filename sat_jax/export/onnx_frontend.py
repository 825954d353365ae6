"""The front end as ONNX operators: samples to a normalised log-mel spectrogram [b, t, f]."""

import numpy as np

from sat_jax.config import FrontendConfig, ModelConfig
from sat_jax.export.onnx_graph import Graph, Value
from sat_jax.models.frontend import MIN_POWER, hann_window, mel_filterbank
from sat_jax.models.transformer import FIXED_NORMS, INPUT_NORM_EPSILON
from sat_jax.streaming.framing import Framing
from sat_jax.streaming.pieces import Variables


def spectrogram(
    graph: Graph, samples: Value, peak_db: Value | None, *, framing: Framing, config: FrontendConfig
) -> tuple[Value, Value | None]:
    """Computes `chunk_spectrogram`: [b, s] -> dB [b, t, f], and the new peak [b, 1]."""
    length = framing.window
    if framing.kind == "chunk":
        half = config.n_fft // 2
        pads = graph.constant([0, half, 0, half])
        samples = graph.op("Pad", samples, pads, mode="reflect")
        length += 2 * half
    power_db = _power_db(graph, samples, length, config)
    loudest = graph.op("ReduceMax", power_db, graph.constant([1, 2]), keepdims=1)
    if peak_db is not None:
        to_grid = graph.constant([-1, 1, 1])
        loudest = graph.op("Max", loudest, graph.op("Reshape", peak_db, to_grid))
        peak_db = graph.op("Reshape", loudest, graph.constant([-1, 1]))
    floor = graph.op("Sub", loudest, graph.constant(config.top_db, np.float32))
    return graph.op("Max", power_db, floor), peak_db


def normalize(graph: Graph, log_mel: Value, config: ModelConfig, variables: Variables) -> Value:
    """Applies the input normalisation, one factor and one offset a mel band: [b, t, f]."""
    if config.input_norm == "fixed":
        offset, scale = FIXED_NORMS[config.frontend.n_mels]
        factor = np.full(config.frontend.n_mels, 1.0 / scale)
        shift = np.full(config.frontend.n_mels, offset / scale)
    else:
        norm, stats = variables["params"]["input_norm"], variables["batch_stats"]["input_norm"]
        mean, var = (np.asarray(stats[name], np.float64) for name in ("mean", "var"))
        factor = np.asarray(norm["scale"], np.float64) / np.sqrt(var + INPUT_NORM_EPSILON)
        shift = np.asarray(norm["bias"], np.float64) - mean * factor
    with graph.scope("input_norm"):
        scaled = graph.op("Mul", log_mel, graph.vector("factor", factor.astype(np.float32)))
        return graph.op("Add", scaled, graph.vector("shift", shift.astype(np.float32)))


def _power_db(graph: Graph, samples: Value, length: int, config: FrontendConfig) -> Value:
    """Computes `framed_power_db`, time first: [b, s] -> [b, t, f].

    The Fourier transform is two matrix products. Cosines are even around the middle of a window and
    sines are odd, so samples at the same distance from it are added or subtracted first, which
    halves both.
    """
    size, hop = config.n_fft, config.hop_length
    windows = _frames(graph, samples, length, size, hop)
    pairs = (size - 1) // 2
    forward = _slice(graph, windows, 1, 1 + pairs)
    backward = graph.op(
        "Slice",
        windows,
        *(graph.constant([edge]) for edge in (size - 1, size - 1 - pairs, 2, -1)),
    )
    even = [_slice(graph, windows, 0, 1), graph.op("Add", forward, backward)]
    if size % 2 == 0:
        even.append(_slice(graph, windows, size // 2, size // 2 + 1))
    cosines, sines = _folded_fourier(size)
    real = graph.op(
        "MatMul", graph.op("Concat", *even, axis=2), graph.constant(cosines, np.float32)
    )
    odd = graph.op("Sub", forward, backward)
    imaginary = graph.op("MatMul", odd, graph.constant(sines, np.float32))
    power = graph.op("Add", graph.op("Mul", real, real), graph.op("Mul", imaginary, imaginary))
    mel = graph.op("MatMul", power, graph.constant(mel_filterbank(config), np.float32))
    mel = graph.op("Max", mel, graph.constant(MIN_POWER, np.float32))
    decibels = graph.constant(10.0 / np.log(10.0), np.float32)
    return graph.op("Mul", graph.op("Log", mel), decibels)


def _folded_fourier(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the windowed cosines [1 + pairs (+ 1), bins] and sines [pairs, bins]."""
    bins, window = np.arange(size // 2 + 1), hann_window(size).astype(np.float64)
    pairs = (size - 1) // 2
    place = np.arange(pairs + 1 + (size % 2 == 0))
    if size % 2 == 0:
        place[-1] = size // 2
    angle = 2.0 * np.pi / size * ((place[:, None] * bins) % size)
    cosines = window[place][:, None] * np.cos(angle)
    sines = window[place][:, None] * np.sin(angle)
    return cosines, sines[1 : 1 + pairs]


def _frames(graph: Graph, samples: Value, length: int, size: int, hop: int) -> Value:
    """Cuts `sat_jax.models.frontend.frames`: [b, s] -> [b, t, size]."""
    count = 1 + (length - size) // hop
    hops_per_frame = -(-size // hop)
    needed = (count - 1 + hops_per_frame) * hop
    if needed > length:
        samples = graph.op("Pad", samples, graph.constant([0, 0, 0, needed - length]))
    elif needed < length:
        samples = _slice(graph, samples, 0, needed, axis=1)
    by_hop = graph.op("Reshape", samples, graph.constant([0, -1, hop]))
    shifted = [_slice(graph, by_hop, i, i + count, axis=1) for i in range(hops_per_frame)]
    return _slice(graph, graph.op("Concat", *shifted, axis=2), 0, size)


def _slice(graph: Graph, value: Value, first: int, last: int, axis: int = 2) -> Value:
    edges = (graph.constant([edge]) for edge in (first, last, axis))
    return graph.op("Slice", value, *edges)
