"""Exports a model's streaming step, so that devices run it without this package.

sat-jax export listener
sat-jax export -m SAT_T_2s --format litert --precision int8 listener
python listener/run.py sound.wav

The folder has the model, export.json (labels, thresholds, sample rate, shapes of the state), the
state of a new stream (state.bin), and a program that needs numpy and the runtime alone (run.py).

onnx: for onnxruntime, any number of streams at a time.
litert: for LiteRT (TensorFlow Lite), one stream at a time.
stablehlo: for JAX on CPUs, NVIDIA GPUs and TPUs, any number of streams.
web: onnx with a page that tags the microphone and files in a browser; needs npm for the export.
triton: onnx as a model of NVIDIA's Triton Inference Server, which keeps the state of each stream.

Weights are stored as --precision says; all arithmetic is float32. float16 halves the file and
changes probabilities by less than 0.002; int8 halves it again.

Each export is compared with the model on ten chunks of several sounds, unless --nocheck is given.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from absl import flags

from sat_jax.commands.stream_flags import define_stream_flags
from sat_jax.runtime.command_line import Program
from sat_jax.weights.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from sat_jax.export.formats import Export
    from sat_jax.export.precision import Precision
    from sat_jax.streaming.model import StreamingModel
    from sat_jax.streaming.pieces import Variables

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string(
    "model",
    DEFAULT_MODEL,
    "A model's name (see sat-jax models), a checkpoint folder, or a .pt or .safetensors file.",
    short_name="m",
    flag_values=FLAGS,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "onnx",
    ["onnx", "litert", "stablehlo", "web", "triton"],
    "Format of the model.",
    flag_values=FLAGS,
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ["float32", "float16", "int8"],
    "How weights are stored. Default: float16; of stablehlo float32, its only one.",
    flag_values=FLAGS,
)
_OPSET = flags.DEFINE_integer(
    "opset",
    None,
    "Version of ONNX's operators, 18 to 23. Older runtimes need an older one, which has more "
    "nodes. Default: 23. For triton it is 22, because GPUs run all its operators.",
    18,
    23,
    flag_values=FLAGS,
)
_CHUNK = flags.DEFINE_float(
    "chunk",
    None,
    "Seconds per chunk, which is the delay of a prediction. Default: the model's chunk length.",
    short_name="c",
    lower_bound=0.16,
    upper_bound=3600.0,
    flag_values=FLAGS,
)
_WARMUP, _FRAMING = define_stream_flags(FLAGS)
_CHECK = flags.DEFINE_bool("check", True, "Compare the export with the model.", flag_values=FLAGS)

TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "int8": 0.1}
"""The largest difference of a probability that passes."""
SAME_TOP = 0.9
"""The least share of chunks with the same most probable class."""


def main(arguments: Sequence[str]) -> bool:
    """Exports the model into a folder."""
    from sat_jax.errors import SatError
    from sat_jax.export.folder import write_folder
    from sat_jax.export.formats import FORMATS
    from sat_jax.runtime.files import check_writable_folder
    from sat_jax.tagger import Tagger
    from sat_jax.weights.checkpoint import Checkpoint
    from sat_jax.weights.thresholds_file import has_thresholds, load_thresholds

    folder, kind = Path(arguments[0]), FORMATS[_FORMAT.value]
    if folder.exists():
        raise SatError(f"{folder} exists: choose another folder, or delete it first")
    check_writable_folder(folder.parent)
    tagger = Tagger.load(
        _MODEL.value, framing=_FRAMING.value, chunk_seconds=_CHUNK.value, dtype="float32"
    )
    checkpoint = Checkpoint(
        config=tagger.config,
        variables=tagger.variables,
        labels=tagger.labels,
        source=tagger.source,
    )
    has = has_thresholds(_MODEL.value)
    thresholds = load_thresholds(_MODEL.value, checkpoint).tolist() if has else None
    precision = cast("Precision", _PRECISION.value or kind.precisions[0])
    try:
        exported = kind.export(tagger.streams, checkpoint.variables, precision, _OPSET.value)
    except ModuleNotFoundError as error:
        raise SatError(
            f"{error.name} is not installed: pip install 'sat-jax[{kind.extra}]'"
        ) from error
    if _CHECK.value:
        print(f"checked: {_compare(tagger.streams, checkpoint.variables, exported, precision)}")
    about = {"model": Path(_MODEL.value).name, "precision": precision}
    write_folder(
        folder,
        tagger.streams,
        checkpoint,
        model_file=kind.file,
        content=exported.content,
        about=about | exported.about,
        thresholds=thresholds,
        warmup=_WARMUP.value,
        files=exported.files,
    )
    size = len(exported.content) / 1e6
    print(f"{folder}: {size:.1f} MB; {kind.hint.format(folder=folder)}")
    return False


def _compare(
    model: "StreamingModel", variables: "Variables", exported: "Export", precision: "Precision"
) -> str:
    """Compares the export with the model, and describes the difference.

    Raises:
      SatError: it is too large.
    """
    from sat_jax.errors import SatError
    from sat_jax.export.check import compare

    found = compare(model, variables, exported.run, batch_sizes=exported.batch_sizes)
    text = (
        f"probabilities differ by at most {found.probs:.1e}, the most probable class is the same "
        f"in {found.same_top:.3f} of the chunks"
    )
    # Also false if one of them is not a number.
    if found.probs <= TOLERANCE[precision] and found.same_top >= SAME_TOP:
        return text
    raise SatError(f"the export is not the model: {text}; choose another --precision")


def _check(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise flags.Error("name one folder to write to")
    if _OPSET.value and _FORMAT.value not in ("onnx", "web", "triton"):
        raise flags.Error(f"--opset={_OPSET.value}: --format {_FORMAT.value} has no operator sets")
    if _PRECISION.value not in (None, "float32") and _FORMAT.value == "stablehlo":
        raise flags.Error(f"--precision={_PRECISION.value}: --format stablehlo stores float32")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__, arguments="FOLDER")
