"""Metrics, thresholds and costs of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sat_jax.errors import SatError
from sat_jax.evaluation.clip_scores import aggregate
from sat_jax.evaluation.clips import Report
from sat_jax.evaluation.results import Cost, Evaluation, StrongMetrics
from sat_jax.evaluation.run import Candidate, Run
from sat_jax.events import Rule, Watch, watched_sounds
from sat_jax.events.rules_file import write_rules
from sat_jax.metrics.event_scores import score_events
from sat_jax.metrics.psds import check_psds, psds1
from sat_jax.metrics.ranking import check_sklearn, compute_metrics
from sat_jax.metrics.rule_search import search_rules
from sat_jax.metrics.stability import Stability, measure_stability
from sat_jax.metrics.strong import (
    TimedClip,
    onset_delays,
    overlaps,
    positive_chunks,
    segment_average_precision,
)
from sat_jax.metrics.threshold_search import best_f1_thresholds, precision_thresholds
from sat_jax.plots.figures import check_plot
from sat_jax.profile.measure import profile_step
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import Checkpoint
from sat_jax.weights.thresholds_file import has_thresholds, load_thresholds, save_thresholds

_MIB = 2.0**20


def check_libraries(*, plots: bool, strong_labels: bool, report: Report) -> None:
    """Checks that libraries are installed, before hours of audio are scored.

    Args:
      plots: whether there will be plots.
      strong_labels: whether there are strong labels.
      report: prints that PSDS1 will be left out.

    Raises:
      SatError: a library of the other metrics or of the plots is missing.
    """
    check_sklearn()
    if plots:
        check_plot("plot.png")
    if strong_labels:
        try:
            check_psds()
        except SatError as error:
            report(f"{error}; left out PSDS1")


def class_rules(candidate: Candidate, watch: Watch, report: Report) -> dict[int, Rule]:
    """Returns by which rule each class becomes events, by index of the class.

    Args:
      candidate: the model.
      watch: what to watch. Groups are left out: clips are labelled with classes.
      report: prints why the model's own thresholds are not used.

    Raises:
      SatError: see `sat_jax.events.watched_sounds`.
    """
    thresholds, tagger = None, candidate.tagger
    if has_thresholds(candidate.name):
        try:
            thresholds = load_thresholds(candidate.name, _checkpoint(tagger))
        except SatError as error:  # They may be made again by this very run.
            report(f"{error}; events start at 0.5")
    sounds = watched_sounds(watch, tagger.labels, thresholds)
    return {sound.index: sound.rule for sound in sounds if sound.index is not None}


def evaluate(
    run: Run,
    *,
    threshold: float,
    rules: Mapping[int, Rule],
    cost: Cost | None,
    report: Report = lambda message: None,
) -> Evaluation:
    """Computes the metrics of a run.

    Args:
      run: from `sat_jax.evaluation.run.score_candidate`.
      threshold: probability from which a class counts as detected, for stability and onsets.
      rules: from `class_rules`.
      cost: from `measure_cost`.
      report: prints why there are no strong-label metrics.

    Raises:
      SatError: no scored clip has a label, or a library is missing.
    """
    has_chunks = run.mode.name != "clip"
    targets, scores = _targets_and_scores(run)
    return Evaluation(
        model=run.model,
        weights=run.tagger.source,
        labels=tuple(run.tagger.labels),
        mode=run.mode,
        metrics=compute_metrics(targets, scores),
        threshold=threshold,
        stability=_measure_stability(run, threshold) if has_chunks else None,
        strong=_measure_strong(run, threshold, rules, report) if has_chunks else None,
        missing=run.missing,
        cost=cost,
        clips_per_second=run.clips_per_second,
    )


def measure_cost(run: Run) -> Cost | None:
    """Counts tokens, memory and operations of one prediction; None in clip mode.

    Memory and operations are those of a streaming step on as much audio, the cache included. It is
    masked, not skipped, in modes where it starts empty with each window.

    Raises:
      SatError: the prediction does not fit in memory.
    """
    mode = run.mode
    if mode.name == "clip":  # Clips have different lengths.
        return None
    seconds = mode.buffer if mode.name == "sliding" else mode.delay
    profile = profile_step(run.model, run.tagger.config, chunk_seconds=seconds)
    tokens = profile.tokens
    if mode.name != "stream":  # Then the cache starts empty.
        tokens = dataclasses.replace(tokens, cached=0)
    return Cost(
        is_streaming=tokens.cached > 0,
        tokens=str(tokens),
        peak_memory_mib=(profile.temporary_bytes + profile.state_bytes) / _MIB,
        gflops=2e-9 * profile.multiply_adds.network,
        parameters=profile.parameters,
    )


def save_class_thresholds(run: Run, precision: float | None) -> Path:
    """Finds a threshold for each class and saves them beside the checkpoint.

    With strong labels they are found on single chunks, which is what tagging compares; without,
    on the aggregated scores of clips.

    Args:
      run: scores of labelled clips.
      precision: in (0, 1], the precision that each class must reach; None finds the best F1.

    Returns:
      The file.

    Raises:
      SatError: no scored clip has a label, or the file can't be written.
    """
    tagger = run.tagger
    clips = _timed_clips(run) if run.mode.name != "clip" else []
    if _has_events(clips):
        targets = positive_chunks(clips)
        scores = np.concatenate([clip.scores for clip in clips])
        counts = {"clips": len(clips), "chunks": len(scores)}
    else:
        targets, scores = _targets_and_scores(run)
        counts = {"clips": len(scores)}
    if precision is None:
        found = best_f1_thresholds(targets, scores)
    else:
        found = precision_thresholds(targets, scores, precision=precision)
    columns = {
        "threshold": found.values,
        "f1": found.f1,
        "precision": found.precision,
        "recall": found.recall,
        "positives": found.positives,
    }
    goal = "best F1" if precision is None else f"precision {precision:g}"
    about = {"goal": goal, "mode": run.mode.title, **counts}
    return save_thresholds(run.model, _checkpoint(tagger), columns, about=about)


def save_best_rules(run: Run, path: str | Path) -> str:
    """Finds rules with the best F1 of events, and saves them for ``sat-jax tag --rules``.

    Args:
      run: scores of clips with strong labels.
      path: the file.

    Returns:
      A line on what was found.

    Raises:
      SatError: no event overlaps its clip, or the file can't be written.
    """
    clips = _timed_clips(run)
    if not _has_events(clips):
        raise SatError("no event overlaps its clip: rules need strong labels of these clips")
    found = search_rules(clips)
    scores = score_events(clips, found)
    about = (
        f"found for {Path(run.model).name} ({run.mode.title}) on {len(clips)} clips with "
        f"{scores.labelled.sum()} events: F1 {scores.macro_f1 or 0.0:.3f}"
    )
    rules = {run.tagger.labels[index]: rule for index, rule in found.items()}
    write_rules(path, rules, about=about)
    return f"rules {about}; {path}"


def _checkpoint(tagger: Tagger) -> Checkpoint:
    return Checkpoint(
        config=tagger.config,
        variables=tagger.variables,
        labels=tagger.labels,
        source=tagger.source,
    )


def _targets_and_scores(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels bool [n, y] and aggregated scores float32 [n, y] of the scored clips."""
    targets = run.clips.targets(len(run.tagger.labels))[list(run.scores)]
    scores = [aggregate(each.probs, run.mode.aggregation) for each in run.scores.values()]
    return targets, np.stack(scores)


def _measure_stability(run: Run, threshold: float) -> Stability:
    return measure_stability(
        (
            (scores.probs, np.asarray(run.clips.labels[index], np.int64))
            for index, scores in run.scores.items()
        ),
        num_classes=len(run.tagger.labels),
        threshold=threshold,
    )


def _measure_strong(
    run: Run, threshold: float, rules: Mapping[int, Rule], report: Report
) -> StrongMetrics | None:
    """Computes strong-label metrics; None if no event falls inside a clip."""
    clips = _timed_clips(run)
    if not _has_events(clips):
        outside = [index for index in run.scores if run.clips.events.get(index)]
        if outside:
            onset = run.clips.events[outside[0]][0].onset
            report(
                f"no event overlaps its clip, the first one of {run.clips.ids[outside[0]]} starts "
                f"at {onset:g} s: left out the metrics on strong labels"
            )
        return None
    return StrongMetrics(
        num_clips=len(clips),
        segments=segment_average_precision(clips),
        onsets=onset_delays(clips, threshold),
        psds1=_psds1(clips),
        told=score_events(clips, rules),
    )


def _timed_clips(run: Run) -> list[TimedClip]:
    """Returns the scored clips that have strong labels, also those without an event."""
    return [_timed_clip(run, index) for index in run.scores if index in run.clips.events]


def _has_events(clips: Sequence[TimedClip]) -> bool:
    """Whether an event falls inside a clip."""
    return any(
        overlaps(event, clip.start, clip.end).any() for clip in clips for event in clip.events
    )


def _timed_clip(run: Run, index: int) -> TimedClip:
    start, end = run.times(index)
    # With seamless framing the last prediction may have length 0.
    count = int((end > start).sum())
    return TimedClip(
        start=start[:count],
        end=end[:count],
        scores=run.scores[index].probs[:count],
        events=run.clips.events[index],
    )


def _psds1(clips: Sequence[TimedClip]) -> float | None:
    try:
        check_psds()
    except SatError:  # `check_libraries` has reported it.
        return None
    return psds1(clips)
