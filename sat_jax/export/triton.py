"""The files of the format "triton": how NVIDIA's Triton Inference Server runs the step.

A stream is a sequence of requests, one for each window. Triton keeps its state ("implicit state"):
it begins a sequence with the files in initial_state/, and gives each ``new_…`` array back as the
input of that name. It joins requests of several sequences into a batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sat_jax.export.folder import little_endian
from sat_jax.export.signature import NEW, PROBS, SAMPLES, Arrays

DEFAULT_OPSET = 22
"""On GPUs, onnxruntime 1.24 and older leave opset 23's Attention to the CPU."""

LABELS_FILE, STATE_FOLDER = "labels.txt", "initial_state"
"""Triton looks for initial states in a folder of this name."""

_TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32"}

# Without a name, the model has that of its folder.
_CONFIG = """\
backend: "onnxruntime"
max_batch_size: 32
input [ {{ name: "{samples}" data_type: TYPE_FP32 dims: [ {window} ] }} ]
output [
  {{ name: "{probs}" data_type: TYPE_FP32 dims: [ {classes} ] label_filename: "{labels}" }}
]
{batching}
"""

# "direct" would also run idle streams, with any bytes as their state: a wrong count of tokens there
# ends the whole batch.
_SEQUENCES = """\
sequence_batching {{
  # A sequence without a request for so long ends. Triton's default, 1 s, is shorter than a chunk.
  max_sequence_idle_microseconds: 60000000
  oldest {{ max_candidate_sequences: 1024 }}  # Streams at a time.
{states}
}}"""

# Triton pairs the inputs with the outputs by their alphabetical order: the prefix keeps it.
_STATE = """\
  state {{
    input_name: "{name}" output_name: "{new}" data_type: {type} dims: [ {dims} ]
    initial_state {{ name: "{name}" data_type: {type} dims: [ {dims} ] data_file: "{name}" }}
  }}"""


def repository_files(about: Mapping[str, Any], initial: Arrays) -> dict[str, bytes]:
    """Returns config.pbtxt, the labels and the state of a new stream, by path in the folder.

    Args:
      about: the content of export.json.
      initial: the arrays of the state.
    """
    config = _CONFIG.format(
        samples=SAMPLES,
        window=about["window"],
        probs=PROBS,
        classes=len(about["labels"]),
        labels=LABELS_FILE,
        batching=_batching(about["state"]),
    )
    # One line for each, whatever is in a name.
    labels = "".join(f"{' '.join(label['name'].split())}\n" for label in about["labels"])
    return {
        "config.pbtxt": config.encode(),
        LABELS_FILE: labels.encode(),
        **{f"{STATE_FOLDER}/{name}": little_endian(array) for name, array in initial.items()},
    }


def _batching(state: Sequence[Mapping[str, Any]]) -> str:
    if not state:
        return "dynamic_batching { }"
    states = (
        _STATE.format(
            name=each["name"],
            new=NEW + each["name"],
            type=_TYPES[each["dtype"]],
            dims=", ".join(map(str, each["shape"])),
        )
        for each in state
    )
    return _SEQUENCES.format(states="\n".join(states))
