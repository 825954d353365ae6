"""Runs an exported ONNX model."""

from collections.abc import Mapping

import numpy as np
import onnxruntime

from sat_jax.export.check import Run


def load_step(content: bytes, *, threads: int = 1) -> Run:
    """Returns the step of an ONNX model.

    Args:
      content: of the file.
      threads: of the runtime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return dict(zip(names, session.run(None, dict(arrays)), strict=True))

    return run
