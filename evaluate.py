"""Measures how good a model is at tagging labelled clips, whole or chunk by chunk.

python evaluate.py -m SAT_T_2s --clips eval.csv --folder eval/ --workdir results/SAT_T_2s
python evaluate.py -m SAT_T_1s -c 1.0 --mode chunks --clips eval.csv --workdir results/alone

eval.csv has the columns file and labels (class names, AudioSet mids or indices, joined by ;), and
perhaps start and end in seconds. Clips may also come from HDF5 files or a TensorFlow data set.
"""

from collections.abc import Sequence
from functools import partial

from absl import flags

from data_pipeline.open_source import define_source_flags, open_source, source_flags
from sat_jax.command_line import Program, need, refuse_arguments

_MODEL = flags.DEFINE_string(
    "model",
    "SAT_T_2s",
    "A model's name, a checkpoint folder, or a .pt or .safetensors file.",
    short_name="m",
)
_CHUNK = flags.DEFINE_float(
    "chunk",
    None,
    "Seconds the model hears at a time, at least 0.16; its own length by default.",
    short_name="c",
    lower_bound=0.16,
)
_MODE = flags.DEFINE_enum(
    "mode",
    "stream",
    ["stream", "chunks", "clip"],
    "Hear a clip chunk by chunk, each chunk as if it were alone, or all at once.",
)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate", "mean", ["mean", "max", "last"], "How the scores of chunks become a clip's."
)
_WARMUP = flags.DEFINE_enum(
    "warmup", "silence", ["silence", "none"], "Stream mode: what the model remembers at the start."
)
_FRAMING = flags.DEFINE_enum(
    "framing",
    "chunk",
    ["chunk", "seamless"],
    "A spectrogram for each chunk, as published, or one that runs on across chunks.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "Folder for metrics.json, per_class.csv and missing_clips.csv, replaced if there. Needed.",
)

define_source_flags()


def main(arguments: Sequence[str]) -> bool:
    """Measures the model on labelled clips; returns whether a clip could not be scored."""
    del arguments
    # Imported late: a wrong flag or --help should be answered at once.
    from sat_jax.cache_dir import keep_compiled_programs
    from sat_jax.evaluation import EvaluationOptions, check_options, evaluate
    from sat_jax.report.evaluation import make_folder, markdown_table, save_evaluation
    from sat_jax.tagger import Tagger

    # To the type checker absl's enums are any strings.
    options = EvaluationOptions(
        mode=_MODE.value,  # type: ignore[arg-type]
        aggregation=_AGGREGATE.value,  # type: ignore[arg-type]
        warmup=_WARMUP.value,  # type: ignore[arg-type]
    )
    check_options(options, _FRAMING.value)  # type: ignore[arg-type]
    keep_compiled_programs()
    tagger = Tagger.load(
        _MODEL.value,
        chunk_seconds=_CHUNK.value,
        framing=_FRAMING.value,  # type: ignore[arg-type]
    )
    source = open_source(tagger.labels, **(source_flags() or {}))
    make_folder(_WORKDIR.value)
    result = evaluate(
        tagger,
        source.clips.ids,
        [source.clips.labels(index).tolist() for index in range(len(source.clips.ids))],
        partial(source.read, num_samples=None, place=0.0, start=None),
        name=_MODEL.value,
        options=options,
        report=PROGRAM.report,
    )
    save_evaluation(_WORKDIR.value, result)
    print(markdown_table(result), flush=True)
    return bool(result.missing)


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments("list recordings in the table of --clips")(arguments)
    if source_flags() is None:
        raise flags.Error("give one of --clips, --hdf5_tsv and --tfds")
    need(_WORKDIR)


PROGRAM = Program(name="evaluate.py", main=main, check=_check)

if __name__ == "__main__":
    PROGRAM.run()
