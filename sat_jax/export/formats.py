"""The formats of an exported step. A new one is a row of `FORMATS`.

Each exporter is imported when it is used, because it needs packages of its own.
"""

from collections.abc import Callable
from typing import NamedTuple

from sat_jax.export.check import Run
from sat_jax.export.folder import Files
from sat_jax.export.precision import Precision
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables


class Export(NamedTuple):
    """An exported step.

    Attributes:
      content: of the file.
      about: facts for export.json.
      run: runs it here, to compare it with the model.
      batch_sizes: numbers of streams to compare.
      files: makes more files of the folder.
    """

    content: bytes
    about: dict[str, object]
    run: Run
    batch_sizes: tuple[int, ...] = (1, 3)
    files: Files = lambda about, initial: {}


class Format(NamedTuple):
    """A format.

    Attributes:
      file: name of the exported file.
      extra: of the package, with what the exporter needs.
      export: exports a model; its arguments are those of `export_onnx`.
      precisions: that it can store, the default first.
      hint: what to do with the folder.
    """

    file: str
    extra: str
    export: Callable[[StreamingModel, Variables, Precision, int | None], Export]
    precisions: tuple[Precision, ...]
    hint: str = "run: python {folder}/run.py SOUND"


def export_onnx(
    model: StreamingModel, variables: Variables, precision: Precision, opset: int | None
) -> Export:
    """Exports to ONNX.

    Args:
      model: without embeddings.
      variables: its weights.
      precision: of the stored matrices.
      opset: version of ONNX's operators; None is the newest.
    """
    from sat_jax.export.onnx_runtime import load_step
    from sat_jax.export.onnx_writer import OPSETS, write_onnx

    opset = opset or OPSETS[1]
    content = write_onnx(model, variables, precision=precision, opset=opset).SerializeToString()
    return Export(content, {"kind": "onnx", "opset": opset}, load_step(content))


def export_litert(
    model: StreamingModel, variables: Variables, precision: Precision, opset: int | None
) -> Export:
    """Exports to LiteRT."""
    from sat_jax.export.litert import load_step, write_litert

    del opset
    content = write_litert(model, variables, precision=precision)
    return Export(content, {"kind": "litert", "batch": 1}, load_step(content), batch_sizes=(1,))


def export_stablehlo(
    model: StreamingModel, variables: Variables, precision: Precision, opset: int | None
) -> Export:
    """Exports to StableHLO."""
    from sat_jax.export.stablehlo import PLATFORMS, load_step, write_stablehlo

    del precision, opset
    content = write_stablehlo(model, variables)
    return Export(content, {"kind": "stablehlo", "platforms": PLATFORMS}, load_step(content))


def export_web(
    model: StreamingModel, variables: Variables, precision: Precision, opset: int | None
) -> Export:
    """Exports to ONNX, with a page that runs it in a browser."""
    from sat_jax.export.web_page import page_files

    page = page_files()  # Before the longer work.
    exported = export_onnx(model, variables, precision, opset)
    return exported._replace(files=lambda about, initial: page)


def export_triton(
    model: StreamingModel, variables: Variables, precision: Precision, opset: int | None
) -> Export:
    """Exports to ONNX, as a model in a repository of NVIDIA's Triton Inference Server."""
    from sat_jax.export.triton import DEFAULT_OPSET, repository_files

    exported = export_onnx(model, variables, precision, opset or DEFAULT_OPSET)
    return exported._replace(files=repository_files)


FORMATS = {
    "onnx": Format("model.onnx", "onnx", export_onnx, ("float16", "float32", "int8")),
    "litert": Format("model.tflite", "litert", export_litert, ("float16", "float32", "int8")),
    "web": Format(
        "model.onnx",
        "onnx",
        export_web,
        ("float16", "float32", "int8"),
        "run: python -m http.server -d {folder}, then open http://localhost:8000",
    ),
    "triton": Format(
        "1/model.onnx",
        "onnx",
        export_triton,
        ("float16", "float32", "int8"),
        "run: tritonserver --model-repository={folder.parent}",
    ),
    "stablehlo": Format("model.stablehlo", "", export_stablehlo, ("float32",)),
}
