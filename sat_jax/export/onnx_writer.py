"""Writes the streaming step as an ONNX model, on the package onnx alone."""

import onnx

from sat_jax.errors import SatError
from sat_jax.export.onnx_frontend import normalize, spectrogram
from sat_jax.export.onnx_graph import Graph, Value
from sat_jax.export.onnx_network import Network, Past
from sat_jax.export.precision import Precision
from sat_jax.export.signature import NEW, PROBS, SAMPLES, StateArray, state_arrays
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables, plan_pieces

OPSETS = (18, 23)
"""The oldest operator set, and the newest that is written: with its Attention, fewer nodes."""


def write_onnx(
    model: StreamingModel,
    variables: Variables,
    *,
    precision: Precision = "float16",
    opset: int = OPSETS[1],
    doc: str = "",
) -> onnx.ModelProto:
    """Returns the model of one step, for any batch size; see `sat_jax.export.signature`.

    All arithmetic is float32, whatever the model's dtype.

    Args:
      model: without embeddings.
      variables: its weights.
      precision: of the stored matrices; "int8" has 255 levels per output of a matrix, and 16 bits
        in the head.
      opset: version of ONNX's operators.
      doc: text for the people who open the file.

    Raises:
      SatError: the operator set is too old or too new.
    """
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise SatError(f"opset {opset}: use {OPSETS[0]} to {OPSETS[1]}")
    config, framing = model.config, model.framing
    graph = Graph(opset)
    samples = graph.input(SAMPLES, "float32", ["batch", framing.window])
    state = {each.name: _input(graph, each) for each in state_arrays(model)}
    with graph.scope("frontend"):
        log_mel, peak_db = spectrogram(
            graph, samples, state.get("peak_db"), framing=framing, config=config.frontend
        )
        log_mel = normalize(graph, log_mel, config, variables)
    past = _past(graph, state, config.depth)
    frames = config.frontend.num_frames(framing.hop)
    if framing.kind == "seamless":
        frames = framing.hop // config.frontend.hop_length
    network = Network(graph, config, variables, precision)
    scores, past = _run_pieces(graph, network, log_mel, frames, past)
    if config.pooling == "logit":
        scores = graph.op("Sigmoid", scores)
    graph.output(scores, PROBS, "float32", ["batch", config.num_classes])
    for each in state_arrays(model):
        new = peak_db if each.name == "peak_db" else _new(graph, past, each)
        assert new is not None
        graph.output(new, NEW + each.name, each.dtype, ["batch", *each.shape])
    return graph.to_model("streaming_step", doc)


def _input(graph: Graph, array: StateArray) -> Value:
    return graph.input(array.name, array.dtype, ["batch", *array.shape])


def _past(graph: Graph, state: dict[str, Value], depth: int) -> Past | None:
    if "tokens" not in state:
        return None
    layers: list[Value] = []
    if "kv" in state:
        axis = graph.constant([1])
        parts = graph.ops(
            "Split", depth - 1, state["kv"], graph.constant([1] * (depth - 1)), axis=1
        )
        layers = [graph.op("Squeeze", part, axis) for part in parts]
    return Past(state["tokens"], layers, state["num_real"])


def _new(graph: Graph, past: Past | None, array: StateArray) -> Value:
    assert past is not None
    if array.name != "kv":
        return Value(getattr(past, array.name))
    axis = graph.constant([1])
    return graph.op("Concat", *(graph.op("Unsqueeze", kv, axis) for kv in past.kv), axis=1)


def _run_pieces(
    graph: Graph, network: Network, log_mel: Value, frames: int, past: Past | None
) -> tuple[Value, Past | None]:
    """Computes `run_pieces` and the mean over pieces: [b, t, f] -> [b, y]."""
    plan = plan_pieces(network.config, frames)
    outputs, first = [], 0
    for index, (length, padded) in enumerate(plan.lengths):
        with graph.scope(f"pieces.{index}") if len(plan.lengths) > 1 else graph.scope(None):
            edges = (graph.constant([edge]) for edge in (first, first + length, 1))
            piece = graph.op("Slice", log_mel, *edges)
            if padded > length:
                piece = graph.op("Pad", piece, graph.constant([0, 0, 0, 0, padded - length, 0]))
            scores, past = network.piece(piece, padded, past)
        outputs.append(scores)
        first += length
    if len(outputs) == 1:
        return outputs[0], past
    axis = graph.constant([0])
    stacked = graph.op("Concat", *(graph.op("Unsqueeze", each, axis) for each in outputs), axis=0)
    return graph.op("ReduceMean", stacked, axis, keepdims=0), past
