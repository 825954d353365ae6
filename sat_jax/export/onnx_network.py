"""The network as ONNX operators: normalised spectrogram and cache to scores and the next cache."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from sat_jax.config import HEAD_WIDTH, PATCH_SIZE, ModelConfig
from sat_jax.export.onnx_graph import Graph, Matrix, Value
from sat_jax.export.precision import Precision, precision_of
from sat_jax.models.layers import BLOCK_EPSILON, HEAD_EPSILON
from sat_jax.streaming.pieces import Variables

ATTENTION_OPSET, GELU_OPSET = 23, 20
"""Operator sets from which on ONNX has these operators."""


@dataclasses.dataclass
class Past:
    """A streaming model's cache in the graph.

    Attributes:
      tokens: layer 0's past, [b, m, d].
      kv: past keys and values of the other layers, [b, m, 2 d] each.
      num_real: int32 [b, 1].
    """

    tokens: Value
    kv: list[Value]
    num_real: Value


class Network:
    """Writes `sat_jax.models.transformer.AudioTransformer` into a graph."""

    def __init__(
        self, graph: Graph, config: ModelConfig, variables: Variables, precision: Precision
    ) -> None:
        """Prepares weights; those of each piece are the same values in the graph."""
        self._graph, self.config, self._precision = graph, config, precision
        self._params: Mapping[str, Any] = variables["params"]
        self._weights: dict[tuple[str, ...], Value] = {}
        self._matrices: dict[tuple[str, ...], Matrix] = {}

    def piece(self, log_mel: Value, frames: int, past: Past | None) -> tuple[Value, Past | None]:
        """Scores a piece.

        Args:
          log_mel: normalised, [b, t, f], t = `frames`.
          frames: at least a patch.
          past: of the pieces before; None for a clip model.

        Returns:
          Scores [b, y], logits with "logit" pooling, else probabilities; and the new past.
        """
        columns = min(frames // PATCH_SIZE, self.config.time_positions)
        features, past = self._encode(self._embed(log_mel, columns), columns, past)
        return self._scores(features, columns), past

    def _embed(self, log_mel: Value, columns: int) -> Value:
        """Cuts patches and adds positions: [b, t, f] -> [b, n, d], frequency-major."""
        graph, config = self._graph, self.config
        rows = config.freq_patches
        with graph.scope("patch_embed"):
            used = self._rows(log_mel, 0, columns * PATCH_SIZE)
            grid = graph.constant([0, columns, PATCH_SIZE, rows, PATCH_SIZE])
            grid_value = graph.op("Reshape", used, grid)
            by_patch = graph.op("Transpose", grid_value, perm=[0, 3, 1, 4, 2])
            flat = graph.constant([0, rows * columns, PATCH_SIZE**2])
            tokens = self._linear(graph.op("Reshape", by_patch, flat), "patch_embed")
            time, frequency = (
                np.asarray(self._params[name]) for name in ("time_pos_embed", "freq_pos_embed")
            )
            positions = (frequency[:, None] + time[:columns]).reshape(-1, config.width)
            tokens = graph.op("Add", tokens, graph.constant(positions, np.float32))
        if config.pooling != "token":
            return tokens
        with graph.scope("cls_token"):
            cls = np.asarray(self._params["cls_token"]) + np.asarray(
                self._params["token_pos_embed"]
            )
            batch = graph.op("Shape", tokens, start=0, end=1)
            shape = graph.op("Concat", batch, graph.constant([1, config.width]), axis=0)
            repeated = graph.op("Expand", graph.constant(cls[None, None], np.float32), shape)
            return graph.op("Concat", repeated, tokens, axis=1)

    def _encode(self, x: Value, columns: int, past: Past | None) -> tuple[Value, Past | None]:
        graph, config = self._graph, self.config
        has_cls = config.pooling == "token"
        num_new = config.freq_patches * columns + has_cls
        mask, kept = None, None
        if past is not None:
            with graph.scope("past"):
                past = dataclasses.replace(past, tokens=self._add_past_positions(past))
                mask = self._mask(past.num_real, num_new)
                total = graph.op("Add", past.num_real, graph.constant(num_new, np.int32))
                num_real = graph.op("Min", total, graph.constant(config.cache_tokens, np.int32))
            kept = Past(past.tokens, list(past.kv), num_real)
        for layer in range(config.depth):
            num_out = 1 if has_cls and layer == config.depth - 1 else None
            with graph.scope(f"blocks.{layer}"):
                x = self._block(x, layer, past, kept, mask, num_new, num_out)
        return self._layer_norm(x, BLOCK_EPSILON, "norm"), kept

    def _block(
        self,
        x: Value,
        layer: int,
        past: Past | None,
        kept: Past | None,
        mask: Value | None,
        num_new: int,
        num_out: int | None,
    ) -> Value:
        """Runs a block, and puts its new past into `kept`."""
        graph, config, own = self._graph, self.config, f"blocks_{layer}"
        width = config.width
        qkv = self._linear(self._layer_norm(x, BLOCK_EPSILON, own, "norm1"), own, "attn", "qkv")
        query, kv = graph.ops("Split", 2, qkv, graph.constant([width, 2 * width]), axis=2)
        if past is not None and kept is not None:
            if layer:
                earlier = past.kv[layer - 1]
                kept.kv[layer - 1] = self._append(earlier, kv, num_new)
            else:
                kept.tokens = self._append(past.tokens, x, num_new)
                normed = self._layer_norm(past.tokens, BLOCK_EPSILON, own, "norm1")
                earlier = self._linear(normed, own, "attn", "qkv", skip=width)
            kv = graph.op("Concat", earlier, kv, axis=1)
        if num_out is not None:
            x, query = self._rows(x, 0, num_out), self._rows(query, 0, num_out)
        key, value = graph.ops("Split", 2, kv, graph.constant([width, width]), axis=2)
        mixed = self._linear(self._attention(query, key, value, mask), own, "attn", "proj")
        x = graph.op("Add", x, self._scaled(mixed, own, "ls1"))
        hidden = self._linear(self._layer_norm(x, BLOCK_EPSILON, own, "norm2"), own, "mlp", "fc1")
        mixed = self._linear(self._gelu(hidden), own, "mlp", "fc2")
        return graph.op("Add", x, self._scaled(mixed, own, "ls2"))

    def _attention(self, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
        """Attends: [b, n, d], [b, m, d], [b, m, d] -> [b, n, d]."""
        graph = self._graph
        heads = self.config.width // HEAD_WIDTH
        if graph.opset >= ATTENTION_OPSET:
            if mask is not None:
                # Runtimes expect all rows.
                size = graph.op("Shape", query, start=1, end=2)
                ones = graph.constant([1, 1])
                rows = graph.op("Concat", ones, size, graph.constant([1]), axis=0)
                mask = graph.op("Expand", mask, rows)
            return graph.op(
                "Attention", query, key, value, mask, q_num_heads=heads, kv_num_heads=heads
            )
        by_head = graph.constant([0, -1, heads, HEAD_WIDTH])
        q, k, v = (graph.op("Reshape", each, by_head) for each in (query, key, value))
        q, v = (graph.op("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
        scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 2, 3, 1]))
        scores = graph.op("Mul", scores, graph.constant(HEAD_WIDTH**-0.5, np.float32))
        if mask is not None:
            scores = graph.op("Where", mask, scores, graph.constant(-np.inf, np.float32))
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
        mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
        return graph.op("Reshape", mixed, graph.constant([0, -1, self.config.width]))

    def _mask(self, num_real: Value, num_new: int) -> Value:
        """Computes `visible_keys`: int32 [b, 1] -> bool [b, 1, 1, m + n]."""
        graph, room = self._graph, self.config.cache_tokens
        # The last `num_real` of the cache's slots, and all new tokens.
        left = np.concatenate([np.arange(room, 0, -1), np.zeros(num_new)])
        counts = graph.op("Reshape", num_real, graph.constant([-1, 1, 1, 1]))
        return graph.op("LessOrEqual", graph.constant(left, np.int32), counts)

    def _add_past_positions(self, past: Past) -> Value:
        """Computes `past_positions` and adds them to layer 0's past, [b, m, d]."""
        graph, config = self._graph, self.config
        slots, rows = config.cache_tokens, config.freq_patches

        def number(value: int) -> Value:
            return graph.constant(value, np.int32)

        steps = graph.op("Div", past.num_real, number(rows))
        token = graph.op("Add", graph.constant(np.arange(slots) - slots, np.int32), past.num_real)
        safe = graph.op("Max", steps, number(1))
        # Slots that are not real get any position, and lose it below.
        real_token = graph.op("Max", token, number(0))
        row = graph.op("Min", graph.op("Div", real_token, safe), number(rows - 1))
        column = graph.op("Sub", number(config.time_positions), steps)
        column = graph.op("Add", column, graph.op("Mod", real_token, safe))
        column = graph.op("Min", column, number(config.time_positions - 1))
        positions = graph.op(
            "Add",
            graph.op("Gather", self._weight("time_pos_embed"), column),
            graph.op("Gather", self._weight("freq_pos_embed"), row),
        )
        is_real = graph.op("GreaterOrEqual", token, number(0))
        is_real = graph.op("Unsqueeze", is_real, graph.constant([2]))
        positions = graph.op("Where", is_real, positions, graph.constant(0.0, np.float32))
        return graph.op("Add", past.tokens, positions)

    def _append(self, past: Value, new: Value, num_new: int) -> Value:
        """Computes `append_past`: the newest m tokens."""
        both = self._graph.op("Concat", past, new, axis=1)
        return self._rows(both, num_new, num_new + self.config.cache_tokens)

    def _scores(self, features: Value, columns: int) -> Value:
        graph, config = self._graph, self.config
        with graph.scope("head"):
            if config.pooling == "dm":
                grid = graph.constant([0, config.freq_patches, columns, config.width])
                by_row = graph.op("Reshape", features, grid)
                by_time = graph.op("ReduceMean", by_row, graph.constant([1]), keepdims=0)
                probs = graph.op("Sigmoid", self._logits(by_time))
                return graph.op("ReduceMean", probs, graph.constant([1]), keepdims=0)
            # With "token" pooling the only token is the cls token.
            pooled = graph.op("ReduceMean", features, graph.constant([1]), keepdims=0)
            logits = self._logits(pooled)
            return logits if config.pooling == "logit" else graph.op("Sigmoid", logits)

    def _logits(self, features: Value) -> Value:
        return self._linear(self._layer_norm(features, HEAD_EPSILON, "head_norm"), "head")

    def _scaled(self, x: Value, *path: str) -> Value:
        if self.config.layer_scale is None:
            return x
        return self._graph.op("Mul", x, self._weight(*path, "gamma"))

    def _gelu(self, x: Value) -> Value:
        graph = self._graph
        if graph.opset >= GELU_OPSET:
            return graph.op("Gelu", x)
        half, root = (graph.constant(value, np.float32) for value in (0.5, 0.5**0.5))
        erf = graph.op("Erf", graph.op("Mul", x, root))
        shifted = graph.op("Add", erf, graph.constant(1.0, np.float32))
        return graph.op("Mul", graph.op("Mul", x, half), shifted)

    def _layer_norm(self, x: Value, epsilon: float, *path: str) -> Value:
        scale, bias = (self._weight(*path, name) for name in ("scale", "bias"))
        return self._graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def _linear(self, x: Value, *path: str, skip: int = 0) -> Value:
        """Computes x·kernelᵀ + bias, without the first `skip` outputs."""
        graph = self._graph
        (kernel, scale), bias = self._matrix(*path, "kernel"), self._weight(*path, "bias")
        if skip:
            first, end, last = (graph.constant([each]) for each in (skip, 2**31 - 1, -1))
            kernel, bias = (graph.op("Slice", each, first, end, last) for each in (kernel, bias))
            scale = scale and graph.op("Slice", scale, first, end, last)
        product = graph.op("MatMul", x, kernel)
        return graph.op("Add", graph.op("Mul", product, scale) if scale else product, bias)

    def _weight(self, *path: str) -> Value:
        """Returns a weight, which is put into the graph once."""
        if path not in self._weights:
            with self._graph.scope(None):
                self._weights[path] = self._graph.vector(*self._named(path))
        return self._weights[path]

    def _matrix(self, *path: str) -> Matrix:
        """Returns a weight matrix, which is put into the graph once."""
        if path not in self._matrices:
            name, kernel = self._named(path)
            precision = precision_of(path, self._precision)
            with self._graph.scope(None):
                self._matrices[path] = self._graph.matrix(name, kernel.T, precision)
        return self._matrices[path]

    def _named(self, path: tuple[str, ...]) -> tuple[str, np.ndarray]:
        """Returns a parameter's name in the graph and its values."""
        array: Any = self._params
        for key in path:
            array = array[key]
        name = "/".join(part.replace("blocks_", "blocks.") for part in path)
        return name, np.asarray(array, np.float32)

    def _rows(self, value: Value, first: int, last: int) -> Value:
        edges = (self._graph.constant([edge]) for edge in (first, last, 1))
        return self._graph.op("Slice", value, *edges)
