"""Measures how good a model is at tagging labelled clips, whole or chunk by chunk.

python evaluate.py -m SAT_T_2s --clips eval.csv --folder eval/ --workdir results/SAT_T_2s
python evaluate.py -m SAT_T_1s -c 1.0 --mode chunks --clips eval.csv --workdir results/alone

eval.csv has the columns file and labels (class names, AudioSet mids or indices, joined by ;).
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging

from sat_jax.errors import SatError

FAILED, WRONG_FLAGS = 1, 2

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


def main(argv: Sequence[str]) -> None:
    """Measures the model on the table of clips."""
    del argv
    # JAX tells at this level which accelerators it did not find.
    logging.set_verbosity(logging.WARNING)
    try:
        failed = _run()
    except SatError as error:
        _report(error)
        failed = True
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(FAILED if failed else 0)


def _run() -> bool:
    """Returns whether a clip could not be scored."""
    # Imported late: a wrong flag or --help should be answered at once.
    from data_pipeline.clips import read_clips
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
        report=_report,
    )
    save_evaluation(_WORKDIR.value, result)
    print(markdown_table(result), flush=True)
    return bool(result.missing)


def _report(error: SatError) -> None:
    print(f"evaluate.py: {error}", file=sys.stderr, flush=True)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"{rest[1]} is no flag: list recordings in the table of --clips")
        for flag in (_CLIPS, _WORKDIR):
            if not flag.value:
                raise flags.Error(f"--{flag.name} is needed")
        return rest
    except flags.Error as error:
        print(f"evaluate.py: {error}; see evaluate.py --help", file=sys.stderr)
        sys.exit(WRONG_FLAGS)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
