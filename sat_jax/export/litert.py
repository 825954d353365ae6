"""Writes the streaming step for LiteRT (TensorFlow Lite), with built-in operators only."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sat_jax.errors import SatError
from sat_jax.export.check import Run
from sat_jax.export.precision import Precision, precision_of
from sat_jax.export.signature import NEW, PROBS, SAMPLES, from_arrays, state_arrays, to_arrays
from sat_jax.models.portable import portable
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables


def write_litert(model: StreamingModel, variables: Variables, *, precision: Precision) -> bytes:
    """Returns the step of one stream: the batch is 1. All arithmetic is float32.

    Args:
      model: without embeddings.
      variables: its weights.
      precision: of the stored matrices; "int8" has 256 levels per output of a matrix, and 16 bits
        in the head.

    Raises:
      SatError: the size of the model's Fourier transform is not a power of two.
    """
    size = model.config.frontend.n_fft
    if size & (size - 1):
        raise SatError(
            f"LiteRT has no spectrogram of {size} samples, only of powers of two: use --format onnx"
        )
    with _quiet(), tempfile.TemporaryDirectory() as temporary:
        content = _convert(model, variables, Path(temporary))
        return content if precision == "float32" else _shrink(content, precision, Path(temporary))


def load_step(content: bytes, *, threads: int = 1) -> Run:
    """Returns the step of a file.

    Args:
      content: of the file.
      threads: of the runtime.
    """
    from ai_edge_litert.interpreter import Interpreter

    with _quiet():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()  # Prints, too.
        runner = interpreter.get_signature_runner()

    def run(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        outputs: Mapping[str, np.ndarray] = runner(**arrays)
        return outputs

    return run


def _convert(model: StreamingModel, variables: Variables, folder: Path) -> bytes:
    """Converts the step by way of a TensorFlow function with named inputs and outputs."""
    import tensorflow as tf
    from jax.experimental import jax2tf

    names = [SAMPLES, *(each.name for each in state_arrays(model))]
    shapes = [tf.TensorSpec([1, model.framing.window], tf.float32, SAMPLES)]
    shapes += [tf.TensorSpec([1, *s.shape], s.dtype, s.name) for s in state_arrays(model)]

    def step(weights: Variables, values: Sequence[Any]) -> dict[str, Any]:
        arrays = dict(zip(names, values, strict=True))
        state = from_arrays(model, arrays, 1)
        probs, state = model.step(weights, arrays[SAMPLES], state)
        return {PROBS: probs} | {NEW + name: new for name, new in to_arrays(model, state).items()}

    converted = jax2tf.convert(step, with_gradient=False)
    module = tf.Module()
    # As constants, the weights would be in the graph several times: 24 GB of memory for SAT_B.
    module.weights = jax.tree.map(lambda each: tf.Variable(np.asarray(each)), variables)
    with portable(True):
        module.step = tf.function(
            lambda *values: converted(module.weights, values),
            autograph=False,
            input_signature=shapes,
        )
        signature = module.step.get_concrete_function()
    tf.saved_model.save(module, folder, signatures=signature)
    return bytes(tf.lite.TFLiteConverter.from_saved_model(os.fspath(folder)).convert())


def _shrink(content: bytes, precision: Precision, folder: Path) -> bytes:
    """Stores the matrices in fewer bits.

    Not by TensorFlow's converter: it would also round the least power of the spectrogram to 0, and
    multiply in 8 bits.
    """
    from ai_edge_quantizer import qtyping, quantizer

    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    levels = qtyping.TensorQuantizationConfig(
        num_bits=8, symmetric=False, granularity=qtyping.QuantGranularity.CHANNELWISE
    )
    stored = {
        "float16": ("float_casting", half),
        "int8": ("min_max_uniform_quantize", levels),
    }
    path = folder / "model.tflite"
    path.write_bytes(content)
    rewriter = quantizer.Quantizer(os.fspath(path))
    # The last rule that matches an operator counts.
    for names, part in ((".*", "blocks_0"), (".*/head/.*", "head")):
        algorithm, weights = stored[precision_of([part], precision)]
        rewriter.update_quantization_recipe(
            regex=names,
            operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
            algorithm_key=algorithm,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=weights,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
        )
    return bytes(rewriter.quantize().quantized_model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what these libraries print about their work, also from C++."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
