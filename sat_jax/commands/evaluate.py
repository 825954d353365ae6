r"""Measures how good models are at tagging labelled clips: whole, streamed, or in pieces.

python evaluate.py -m SAT_T_2s --clips eval.csv --folder eval/ --workdir results/SAT_T_2s
python evaluate.py -m SAT_T_2s -m runs/mine/model -c 2,1,0.5 --mode stream,chunks,sliding,clip \
    --tfds audioset:eval --workdir results/all

eval.csv has the columns file and labels (class names, AudioSet mids or indices, joined by ;), and
perhaps start and end in seconds. Clips may also come from HDF5 files or a TensorFlow data set. A
run that was stopped goes on by the same command.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from data_pipeline.sources.flags import define_source_flags, open_source, resolved, source_flags
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.weights.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from sat_jax.evaluation.clips import LabeledClips
    from sat_jax.evaluation.run import Listener
    from sat_jax.labels import Event
    from sat_jax.tagger import Tagger

_MODES = ("stream", "chunks", "sliding", "clip")
_LONGEST = 3600.0
"""Seconds; what is heard at once must fit into memory."""

FLAGS = flags.FlagValues()

_MODELS = flags.DEFINE_multi_string(
    "model",
    [DEFAULT_MODEL],
    "A model's name, a checkpoint folder, or a .pt or .safetensors file; may be repeated.",
    short_name="m",
    flag_values=FLAGS,
)
_DELAYS = flags.DEFINE_list(
    "chunk",
    [],
    "Seconds from one answer to the next, at least 0.16, several joined by commas; the model's own "
    "chunk by default.",
    short_name="c",
    flag_values=FLAGS,
)
_MODES_FLAG = flags.DEFINE_list(
    "mode",
    ["stream"],
    "Hear a clip chunk by chunk with a memory of what came before (stream), each chunk as if it "
    "were alone (chunks), the last --buffer seconds each time (sliding), or all at once (clip); "
    "several joined by commas.",
    flag_values=FLAGS,
)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate",
    "mean",
    ["mean", "max", "last"],
    "How a clip's answers become one.",
    flag_values=FLAGS,
)
_WARMUP = flags.DEFINE_enum(
    "warmup",
    "silence",
    ["silence", "none"],
    "Stream mode: what the model remembers at the start.",
    flag_values=FLAGS,
)
_FRAMING = flags.DEFINE_enum(
    "framing",
    "chunk",
    ["chunk", "seamless"],
    "Stream mode: a spectrogram for each chunk, as published, or one that runs on across chunks.",
    flag_values=FLAGS,
)
_BUFFER = flags.DEFINE_float(
    "buffer",
    10.0,
    "Sliding mode: seconds heard for an answer.",
    lower_bound=0.16,
    upper_bound=_LONGEST,
    flag_values=FLAGS,
)
_STRONG = flags.DEFINE_string(
    "strong",
    None,
    "A TSV table of what is heard when, as AudioSet-strong's: measures segments and onsets too.",
    flag_values=FLAGS,
)
_THRESHOLD = flags.DEFINE_float(
    "threshold",
    0.5,
    "From which probability on a class counts as heard, for stability and onset delay.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)
_SAVE_THRESHOLDS = flags.DEFINE_string(
    "save_thresholds",
    None,
    "f1 or precision=P: find each class's threshold on these clips and save them beside the "
    "checkpoint, for infer.py --threshold auto.",
    flag_values=FLAGS,
)
_BATCH = flags.DEFINE_integer(
    "batch_size", 32, "Clips or windows heard at a time.", lower_bound=1, flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Threads that read clips.", lower_bound=1, flag_values=FLAGS
)
_COST = flags.DEFINE_bool(
    "cost", True, "Count tokens, memory and operations of an answer.", flag_values=FLAGS
)
_PLOTS = flags.DEFINE_bool("plots", True, "Draw the results, into plots/.", flag_values=FLAGS)
_PLOT_CLIP = flags.DEFINE_string(
    "plot_clip",
    None,
    "Whose scores over time are drawn; by default the longest labelled clip of up to a minute.",
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "Folder for metrics.json, table.md, per_class/, missing_clips.csv and plots/, replaced if "
    "there, and for scores/, gone on with. Needed.",
    flag_values=FLAGS,
)

define_source_flags(FLAGS)


def main(arguments: Sequence[str]) -> bool:
    """Measures the models on labelled clips; returns whether a clip could not be scored."""
    del arguments
    # Imported late: a wrong flag or --help should be answered at once.
    from sat_jax.evaluation.class_thresholds import save_class_thresholds
    from sat_jax.evaluation.cost import measure_cost
    from sat_jax.evaluation.hearing import make_hearings
    from sat_jax.evaluation.measures import evaluate
    from sat_jax.evaluation.result_files import PLOTS, SCORES, check_results, save_evaluations
    from sat_jax.evaluation.result_tables import as_markdown
    from sat_jax.evaluation.run import open_listener, score_with
    from sat_jax.metrics.ranking import check_sklearn
    from sat_jax.plots.figures import check_plot
    from sat_jax.runtime.program_store import cache_compiled_programs

    hearings = make_hearings(
        _MODES_FLAG.value,
        [_seconds(delay) for delay in _DELAYS.value] or [None],
        framing=_FRAMING.value,
        warmup=_WARMUP.value,
        buffer=_BUFFER.value,
        aggregation=_AGGREGATE.value,
    )
    check_sklearn()
    if _PLOTS.value:
        check_plot("plot.png")
    if _STRONG.value:
        _tell_of_psds()
    cache_compiled_programs()
    workdir = Path(_WORKDIR.value)
    check_results(workdir, plots=_PLOTS.value)
    # All models are opened before one is heard: what can't be used should be known at once.
    listeners = [
        open_listener(name, hearings, _open_clips) for name in dict.fromkeys(_MODELS.value)
    ]
    _check_with(listeners)
    runs = [
        run
        for listener in listeners
        for run in score_with(
            listener,
            folder=workdir / SCORES,
            batch_size=_BATCH.value,
            report=PROGRAM.report,
        )
    ]
    costs = [measure_cost(run) if _COST.value else None for run in runs]
    evaluations = [
        evaluate(run, threshold=_THRESHOLD.value, cost=cost, report=_tell_of_strong)
        for run, cost in zip(runs, costs, strict=True)
    ]
    save_evaluations(workdir, evaluations)
    if _SAVE_THRESHOLDS.value:
        for run in runs:
            path = save_class_thresholds(run, _precision())
            PROGRAM.report(f"thresholds of {run.model}: {path}")
    if _PLOTS.value:
        from sat_jax.evaluation.pictures import draw_evaluations

        draw_evaluations(workdir / PLOTS, runs, evaluations, clip=_PLOT_CLIP.value)
    print(as_markdown(evaluations), flush=True)
    return any(evaluation.missing for evaluation in evaluations)


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "list recordings in the table of --clips")
    values = source_flags(FLAGS)
    if values is None:
        raise flags.Error("give one of --clips, --hdf5_tsv and --tfds")
    require_flags(_WORKDIR)
    for mode in _MODES_FLAG.value:
        if mode not in _MODES:
            raise flags.Error(f"--mode={mode} is none of {', '.join(_MODES)}")
    if not _MODES_FLAG.value:
        raise flags.Error(f"--mode is empty: give some of {', '.join(_MODES)}")
    if FLAGS[_DELAYS.name].present and not _DELAYS.value:
        raise flags.Error("--chunk is empty: leave it out, or give seconds")
    delays = [_seconds(delay) for delay in _DELAYS.value]
    _refuse_idle_flags()
    if "sliding" in _MODES_FLAG.value and max(delays, default=0.0) > _BUFFER.value:
        raise flags.Error(
            f"--chunk={max(delays):g} with --mode=sliding would miss what lies between buffers of "
            f"{_BUFFER.value:g} s: give a longer --buffer or a shorter delay"
        )
    if _FRAMING.value == "seamless" and set(_MODES_FLAG.value) != {"stream"}:
        raise flags.Error("--framing=seamless is for --mode=stream alone: run the others apart")
    _check_thresholds()
    if _PLOT_CLIP.value and not _PLOTS.value:
        raise flags.Error("--plot_clip is drawn only with --plots")


def _seconds(text: str) -> float:
    try:
        # Python takes digits of all scripts, and underscores between them.
        seconds = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        seconds = math.nan
    if not 0.16 <= seconds <= _LONGEST:
        raise flags.Error(
            f"--chunk={text} is not a number of seconds from 0.16 to {_LONGEST:g}: mend it"
        )
    return seconds


def _refuse_idle_flags() -> None:
    """Refuses flags that were given and mean nothing in the modes that were."""
    in_time = {"stream", "chunks", "sliding"}  # Those with several answers to a clip.
    meant_for = {"warmup": {"stream"}, "framing": {"stream"}, "buffer": {"sliding"}}
    meant_for |= dict.fromkeys(("chunk", "strong", "threshold"), in_time)
    for name, modes in meant_for.items():
        if FLAGS[name].present and not modes & set(_MODES_FLAG.value):
            raise flags.Error(
                f"--{name} has no meaning with --mode={','.join(_MODES_FLAG.value)}, only with "
                f"{' and '.join(mode for mode in _MODES if mode in modes)}"
            )


def _check_thresholds() -> None:
    if _SAVE_THRESHOLDS.value is None:
        return
    precision = _precision()
    if _SAVE_THRESHOLDS.value != "f1" and not 0.0 < (precision or 0.0) <= 1.0:
        raise flags.Error(
            f"--save_thresholds={_SAVE_THRESHOLDS.value} is neither f1 nor precision=P with P "
            "above 0 and at most 1"
        )
    ways = len(set(_MODES_FLAG.value)) * max(1, len(set(_DELAYS.value)))
    if ways > 1:
        raise flags.Error("--save_thresholds needs one --mode and one --chunk, else which?")


def _precision() -> float | None:
    """What --save_thresholds asks for; None is the best F1."""
    match = re.fullmatch(r"precision=([0-9]*\.?[0-9]+)", _SAVE_THRESHOLDS.value or "")
    return float(match[1]) if match else None


def _check_with(listeners: "Sequence[Listener]") -> None:
    """Finds out what is wrong with flags that only the models and clips tell."""
    from sat_jax.runtime.files import check_writable_file
    from sat_jax.weights.thresholds_file import thresholds_path

    for listener in listeners:
        if _PLOT_CLIP.value:
            listener.clips.place_of(_PLOT_CLIP.value)
        if _SAVE_THRESHOLDS.value:
            check_writable_file(thresholds_path(listener.model))


def _open_clips(tagger: "Tagger") -> "LabeledClips":
    """The clips of the flags, their labels as classes of a model."""
    return _clips_with(tuple(tagger.labels), tagger.config.frontend.sample_rate)


@cache  # For models of the same classes the clips are the same.
def _clips_with(labels: tuple[str, ...], rate: int) -> "LabeledClips":
    from data_pipeline.batches.reader import read_whole_clips
    from data_pipeline.sources.bounds import check_rate
    from data_pipeline.sources.versions import clip_versions
    from sat_jax.evaluation.clips import LabeledClips

    check_rate(rate)
    values = source_flags(FLAGS) or {}
    source = open_source(labels, **values)
    ids = source.clips.ids
    names = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    return LabeledClips(
        ids=ids,
        labels=[source.clips.labels(index).tolist() for index in range(len(ids))],
        read=partial(read_whole_clips, source, workers=_WORKERS.value),
        description=resolved(values) | {"names": names},
        versions=clip_versions(source),
        events=_events(ids, labels),
    )


def _tell_of_psds() -> None:
    from sat_jax.errors import SatError
    from sat_jax.metrics.psds import check_psds

    try:
        check_psds()
    except SatError as error:  # The other measures need no more than what is there.
        PROGRAM.report(f"{error}; it is left out")


def _tell_of_strong(problem: object) -> None:
    PROGRAM.report(f"{_STRONG.value}: {problem}")


def _events(ids: Sequence[str], labels: Sequence[str]) -> "dict[int, tuple[Event, ...]]":
    """What --strong says of the clips, by their place."""
    if not _STRONG.value:
        return {}
    from data_pipeline.sources.strong_labels import match_clips, read_strong_labels

    strong = read_strong_labels(_STRONG.value, labels)
    if strong.unknown:
        PROGRAM.report(
            f"{_STRONG.value}: {sum(strong.unknown.values())} events are of {len(strong.unknown)} "
            f"classes that the model lacks, such as {next(iter(strong.unknown))}: left out"
        )
    names = match_clips(ids, strong.events)
    return {place: strong.events[name] for place, name in enumerate(names) if name is not None}


PROGRAM = Program(
    main=main,
    check=_check,
    on_interrupt="stopped; the same command goes on from here",
    flag_values=FLAGS,
    doc=__doc__,
)
