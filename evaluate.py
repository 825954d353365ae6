"""Measures how good a model is at tagging labelled clips, whole or chunk by chunk.

python evaluate.py -m SAT_T_2s --clips eval.csv --folder eval/ --workdir results/SAT_T_2s
python evaluate.py -m SAT_T_1s -c 1.0 --mode chunks --clips eval.csv --workdir results/alone

eval.csv has the columns file and labels (class names, AudioSet mids or indices, joined by ;).
"""

from collections.abc import Sequence

from absl import flags

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
_CLIPS = flags.DEFINE_string("clips", "", "CSV table of clips: file,labels. Needed.")
_FOLDER = flags.DEFINE_string(
    "folder", None, "Folder that the table's files are in; the table's own by default."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "Folder for metrics.json, per_class.csv and missing_clips.csv, replaced if there. Needed.",
)


def main(arguments: Sequence[str]) -> bool:
    """Measures the model on the table of clips; returns whether a clip could not be scored."""
    del arguments
    # Imported late: a wrong flag or --help should be answered at once.
    from data_pipeline.sources.clips import read_clips
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
    clips = read_clips(_CLIPS.value, tagger.labels, folder=_FOLDER.value)
    make_folder(_WORKDIR.value)
    result = evaluate(
        tagger,
        [clip.path for clip in clips],
        [clip.labels for clip in clips],
        name=_MODEL.value,
        options=options,
        report=PROGRAM.report,
    )
    save_evaluation(_WORKDIR.value, result)
    print(markdown_table(result), flush=True)
    return bool(result.missing)


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments("list recordings in the table of --clips")(arguments)
    need(_CLIPS, _WORKDIR)


PROGRAM = Program(name="evaluate.py", main=main, check=_check)

if __name__ == "__main__":
    PROGRAM.run()
