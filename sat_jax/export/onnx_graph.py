"""Builds an ONNX graph op by op, with readable names."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NewType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sat_jax.export.precision import Precision

Value = NewType("Value", str)
"""The name of a value in the graph."""

_TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}


class Matrix(NamedTuple):
    """A weight matrix in a graph.

    Attributes:
      kernel: float32 [in, out].
      scale: of each output, float32 [out]; None if it is 1.
    """

    kernel: Value
    scale: Value | None


class Graph:
    """A graph that grows node by node.

    Values are named after the scope and the op that makes them, such as "blocks.3/attn/MatMul_1".

    Attributes:
      opset: version of ONNX's operators.
    """

    def __init__(self, opset: int) -> None:
        """Starts an empty graph."""
        self.opset = opset
        self._scopes: list[str] = []
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._used: dict[str, int] = {}

    @contextlib.contextmanager
    def scope(self, name: str | None) -> Iterator[None]:
        """Names inside begin with `name`, after the scopes around it; None leaves all scopes."""
        before = self._scopes
        self._scopes = [] if name is None else [*before, name]
        try:
            yield
        finally:
            self._scopes = before

    def op(self, kind: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Adds a node with one output."""
        [value] = self.ops(kind, 1, *inputs, **attributes)
        return value

    def ops(self, kind: str, outputs: int, *inputs: Value | None, **attributes: Any) -> list[Value]:
        """Adds a node with several outputs. None stands for an optional input that is left out."""
        name = self._name(kind)
        values = [Value(name if outputs == 1 else f"{name}:{i}") for i in range(outputs)]
        given = [value or "" for value in inputs]
        self._nodes.append(helper.make_node(kind, given, values, name=name, **attributes))
        return values

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> Value:
        """Adds an input of the graph; strings in a shape are free sizes."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))
        return Value(name)

    def output(self, value: Value, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Makes a value an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))

    def vector(self, name: str, array: np.ndarray) -> Value:
        """Adds a weight that keeps its precision."""
        path = self._path(name)
        self._weights[path] = numpy_helper.from_array(np.ascontiguousarray(array), path)
        return Value(path)

    def matrix(self, name: str, array: np.ndarray, precision: Precision) -> Matrix:
        """Adds a weight matrix [in, out], stored in a precision.

        Not by DequantizeLinear: onnxruntime would join it with MatMul to an operator that also
        rounds the activations to 8 bits, which is slower and less exact. Cast it computes once,
        when it loads the model. The scale has to wait: a scaled matrix would take its memory twice.
        """
        if precision == "float32":
            return Matrix(self.vector(name, array), None)
        with self.scope(name):
            if precision == "float16":
                return Matrix(self._float32("float16", array.astype(np.float16)), None)
            levels, scale = quantize(array)
            return Matrix(self._float32("levels", levels), self.vector("scale", scale))

    def constant(self, values: Any, dtype: type[np.generic] = np.int64) -> Value:
        """Returns a constant array; equal ones are stored once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._weights[name] = numpy_helper.from_array(array, name)
            self._constants[key] = Value(name)
        return self._constants[key]

    def to_model(self, name: str, doc: str) -> onnx.ModelProto:
        """Returns the model, checked and with the shapes of all values."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, list(self._weights.values()), doc
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            producer_name="sat-jax",
            ir_version=helper.find_min_ir_version_for(opsets),
        )
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)

    def _float32(self, name: str, array: np.ndarray) -> Value:
        return self.op("Cast", self.vector(name, array), to=TensorProto.FLOAT)

    def _path(self, name: str) -> str:
        return "/".join([*self._scopes, name])

    def _name(self, kind: str) -> str:
        path = self._path(kind)
        count = self._used[path] = self._used.get(path, -1) + 1
        return f"{path}_{count}" if count else path


def quantize(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a matrix [in, out] to 255 levels per output, up to its largest absolute value.

    Returns:
      Levels int8 [in, out], and the distance between levels, float32 [out].
    """
    scale = (np.maximum(np.abs(array).max(0), 1e-12) / 127.0).astype(np.float32)
    return np.rint(array / scale).astype(np.int8), scale
