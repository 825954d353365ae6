r"""Measures how well models tag labelled clips.

sat-jax evaluate -m SAT_T_2s --clips eval.csv --folder eval/ --workdir results/SAT_T_2s
sat-jax evaluate -m SAT_T_2s -m runs/mine/model -c 2,1,0.5 --mode stream,chunks,sliding,clip \
    --tfds audioset:eval --workdir results/all

eval.csv has the columns file and labels (class names, AudioSet mids or indices, joined by ;) and
optionally start and end in seconds. Clips may also come from HDF5 files or a TensorFlow dataset.
The same command resumes a run that was stopped.
"""

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from absl import flags

from data_pipeline.sources.registry import define_source_flags, source_choices, source_flags
from sat_jax.commands.stream_flags import define_stream_flags
from sat_jax.config import Aggregation, ModeName
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.weights.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from sat_jax.evaluation.clips import LabeledClips
    from sat_jax.events import Watch

_MAX_SECONDS = 3600.0
"""A window must fit in memory."""

FLAGS = flags.FlagValues()

_MODELS = flags.DEFINE_multi_string(
    "model",
    [DEFAULT_MODEL],
    "A model's name (see sat-jax models), a checkpoint folder, or a .pt or .safetensors file.",
    short_name="m",
    flag_values=FLAGS,
)
_DELAYS = flags.DEFINE_list(
    "chunk",
    [],
    "Seconds per chunk, which is the delay of a prediction; several joined by commas. "
    "Default: the model's chunk length.",
    short_name="c",
    flag_values=FLAGS,
)
_MODES = flags.DEFINE_list(
    "mode",
    ["stream"],
    "stream: chunk after chunk with the cache. chunks: each chunk alone. sliding: the last "
    "--buffer seconds after each delay. clip: the whole clip at once. Several joined by commas.",
    flag_values=FLAGS,
)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate",
    "mean",
    get_args(Aggregation),
    "How the scores of a clip's chunks or windows become one.",
    flag_values=FLAGS,
)
_WARMUP, _FRAMING = define_stream_flags(FLAGS)
_BUFFER = flags.DEFINE_float(
    "buffer",
    10.0,
    "Sliding mode: seconds of audio per prediction.",
    lower_bound=0.16,
    upper_bound=_MAX_SECONDS,
    flag_values=FLAGS,
)
_STRONG = flags.DEFINE_string(
    "strong",
    None,
    "TSV table of strong labels, in AudioSet's layout: adds segment mAP, PSDS1, onset delay and F1 "
    "of events.",
    flag_values=FLAGS,
)
_RULES = flags.DEFINE_string(
    "rules",
    None,
    "TOML file that says when a class becomes an event, for F1 of events. Default: as sat-jax tag "
    "--format events.",
    flag_values=FLAGS,
)
_THRESHOLD = flags.DEFINE_float(
    "threshold",
    0.5,
    "Probability from which a class counts as detected, for stability and onset delay.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)
_SAVE_THRESHOLDS = flags.DEFINE_string(
    "save_thresholds",
    None,
    "f1 or precision=P: find a threshold for each class on these clips and save them beside the "
    "checkpoint, for sat-jax tag --threshold auto.",
    flag_values=FLAGS,
)
_SAVE_RULES = flags.DEFINE_string(
    "save_rules",
    None,
    "File for rules with the best F1 of events on these clips, for sat-jax tag --rules.",
    flag_values=FLAGS,
)
_BATCH = flags.DEFINE_integer(
    "batch_size", 32, "Clips or windows per call of the model.", lower_bound=1, flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Threads that read clips.", lower_bound=1, flag_values=FLAGS
)
_COST = flags.DEFINE_bool(
    "cost", True, "Count tokens, memory and operations of a prediction.", flag_values=FLAGS
)
_PLOTS = flags.DEFINE_bool("plots", True, "Plot the results into plots/.", flag_values=FLAGS)
_PLOT_CLIP = flags.DEFINE_string(
    "plot_clip",
    None,
    "Clip whose scores are plotted over time. Default: the longest labelled clip of up to a "
    "minute.",
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "Folder for metrics.json, table.md, per_class/, missing_clips.csv and plots/, which are "
    "replaced, and for scores/, which are reused. Required.",
    flag_values=FLAGS,
)

define_source_flags(FLAGS)


def main(arguments: Sequence[str]) -> bool:
    """Evaluates the models; returns whether a clip could not be scored."""
    del arguments
    # Imported late, so that wrong flags and --help are answered at once.
    from sat_jax.evaluation.measure import (
        check_libraries,
        class_rules,
        evaluate,
        measure_cost,
        save_best_rules,
        save_class_thresholds,
    )
    from sat_jax.evaluation.modes import make_modes
    from sat_jax.evaluation.result_files import PLOTS, SCORES, check_results, save_evaluations
    from sat_jax.evaluation.result_tables import as_markdown
    from sat_jax.evaluation.run import open_candidate, score_candidate
    from sat_jax.runtime.program_store import cache_compiled_programs

    modes = make_modes(
        _MODES.value,
        [_seconds(delay) for delay in _DELAYS.value] or [None],
        framing=_FRAMING.value,
        warmup=_WARMUP.value,
        buffer=_BUFFER.value,
        aggregation=_AGGREGATE.value,
    )
    check_libraries(plots=_PLOTS.value, strong_labels=bool(_STRONG.value), report=PROGRAM.report)
    cache_compiled_programs(PROGRAM.report)
    workdir = Path(_WORKDIR.value)
    check_results(workdir, plots=_PLOTS.value)
    open_clips = functools.cache(_open_clips)  # Models with the same classes share the clips.
    # All models are checked before the first one runs for hours.
    candidates = [
        open_candidate(
            name,
            modes,
            lambda tagger: open_clips(tuple(tagger.labels), tagger.config.frontend.sample_rate),
        )
        for name in dict.fromkeys(_MODELS.value)
    ]
    watch = _read_watch()
    rules = {
        each.name: class_rules(each, watch, PROGRAM.report) if _STRONG.value else {}
        for each in candidates
    }
    for candidate in candidates:
        _check_candidate(candidate.name, candidate.clips)
    runs = [
        run
        for candidate in candidates
        for run in score_candidate(
            candidate, folder=workdir / SCORES, batch_size=_BATCH.value, report=PROGRAM.report
        )
    ]
    evaluations = [
        evaluate(
            run,
            threshold=_THRESHOLD.value,
            rules=rules[run.model],
            cost=measure_cost(run) if _COST.value else None,
            report=lambda message: PROGRAM.report(f"{_STRONG.value}: {message}"),
        )
        for run in runs
    ]
    save_evaluations(workdir, evaluations)
    if _SAVE_THRESHOLDS.value:
        for run in runs:
            path = save_class_thresholds(run, _precision())
            PROGRAM.report(f"thresholds of {run.model}: {path}")
    if _SAVE_RULES.value:
        for run in runs:
            PROGRAM.report(save_best_rules(run, _SAVE_RULES.value))
    if _PLOTS.value:
        from sat_jax.evaluation.result_plots import plot_evaluations

        plot_evaluations(workdir / PLOTS, runs, evaluations, clip=_PLOT_CLIP.value)
    print(as_markdown(evaluations), flush=True)
    return any(evaluation.missing for evaluation in evaluations)


def _open_clips(label_names: tuple[str, ...], sample_rate: int) -> "LabeledClips":
    from sat_jax.evaluation.clips import open_clips

    return open_clips(
        source_flags(FLAGS) or {},
        label_names,
        sample_rate=sample_rate,
        strong=_STRONG.value,
        workers=_WORKERS.value,
        report=PROGRAM.report,
    )


def _read_watch() -> "Watch":
    from sat_jax.events import Watch
    from sat_jax.events.rules_file import read_rules

    return read_rules(_RULES.value).named() if _RULES.value else Watch()


def _check_candidate(model: str, clips: "LabeledClips") -> None:
    """Checks the flags whose values depend on a model or on the clips."""
    from sat_jax.runtime.files import check_writable_file
    from sat_jax.weights.thresholds_file import thresholds_path

    if _PLOT_CLIP.value:
        clips.index_of(_PLOT_CLIP.value)
    if _SAVE_THRESHOLDS.value:
        check_writable_file(thresholds_path(model))
    if _SAVE_RULES.value:
        check_writable_file(Path(_SAVE_RULES.value))


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "list recordings in the table of --clips")
    if source_flags(FLAGS) is None:
        raise flags.Error(f"give one of {source_choices()}")
    require_flags(_WORKDIR)
    for name in _MODES.value or [""]:
        if name not in get_args(ModeName):
            raise flags.Error(f"--mode={name}: give some of {', '.join(get_args(ModeName))}")
    if FLAGS[_DELAYS.name].present and not _DELAYS.value:
        raise flags.Error("--chunk is empty: leave it out, or give seconds")
    delays = [_seconds(delay) for delay in _DELAYS.value]
    _refuse_unused_flags()
    if "sliding" in _MODES.value and max(delays, default=0.0) > _BUFFER.value:
        raise flags.Error(
            f"--chunk={max(delays):g} is longer than --buffer={_BUFFER.value:g}, which skips "
            "audio in --mode=sliding: give a longer --buffer or a shorter --chunk"
        )
    if _FRAMING.value == "seamless" and set(_MODES.value) != {"stream"}:
        raise flags.Error("--framing=seamless needs --mode=stream alone: run others separately")
    _check_strong()
    _check_thresholds()
    for name, value in (
        ("save_thresholds", _SAVE_THRESHOLDS.value),
        ("save_rules", _SAVE_RULES.value),
    ):
        if value and len(set(_MODES.value)) * max(1, len(set(delays))) > 1:
            raise flags.Error(f"--{name} needs one --mode and one --chunk")
    if _PLOT_CLIP.value and not _PLOTS.value:
        raise flags.Error(f"--plot_clip={_PLOT_CLIP.value} needs --plots")


def _seconds(text: str) -> float:
    try:
        # float() also takes digits of other scripts, and underscores.
        seconds = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        seconds = math.nan
    if not 0.16 <= seconds <= _MAX_SECONDS:
        raise flags.Error(f"--chunk={text}: give seconds from 0.16 to {_MAX_SECONDS:g}")
    return seconds


def _refuse_unused_flags() -> None:
    """Refuses flags that were given but are unused in all modes."""
    with_chunks = ("stream", "chunks", "sliding")
    used_in: dict[str, tuple[str, ...]] = {
        "warmup": ("stream",),
        "framing": ("stream",),
        "buffer": ("sliding",),
    }
    used_in |= dict.fromkeys(("chunk", "strong", "threshold"), with_chunks)
    for name, modes in used_in.items():
        if FLAGS[name].present and not set(modes) & set(_MODES.value):
            raise flags.Error(
                f"--{name} is unused with --mode={','.join(_MODES.value)}: leave it out, or add "
                f"--mode={' or '.join(modes)}"
            )


def _check_strong() -> None:
    for name in ("rules", "save_rules"):
        if FLAGS[name].value and not _STRONG.value:
            raise flags.Error(f"--{name} has no effect without --strong: give strong labels")
    if _SAVE_RULES.value and len(set(_MODELS.value)) > 1:
        raise flags.Error("--save_rules needs one --model: its rules fit no other")


def _check_thresholds() -> None:
    if _SAVE_THRESHOLDS.value is None:
        return
    if _SAVE_THRESHOLDS.value != "f1" and not 0.0 < (_precision() or 0.0) <= 1.0:
        raise flags.Error(
            f"--save_thresholds={_SAVE_THRESHOLDS.value}: give f1, or precision=P with P above 0 "
            "and at most 1"
        )


def _precision() -> float | None:
    """Returns P of --save_thresholds=precision=P; None for f1."""
    match = re.fullmatch(r"precision=([0-9]*\.?[0-9]+)", _SAVE_THRESHOLDS.value or "")
    return float(match[1]) if match else None


PROGRAM = Program(
    main=main,
    check=_check,
    on_interrupt="stopped; run the same command to resume",
    flag_values=FLAGS,
    doc=__doc__,
)
