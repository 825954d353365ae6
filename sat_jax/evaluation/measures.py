"""From stored answers to measures."""

from collections.abc import Sequence

import numpy as np

from sat_jax.errors import SatError
from sat_jax.evaluation.answers import aggregate_clips
from sat_jax.evaluation.results import Cost, Evaluation, StrongMeasures
from sat_jax.evaluation.run import Run
from sat_jax.evaluation.scoring import Report
from sat_jax.metrics.psds import check_psds, psds1
from sat_jax.metrics.ranking import compute_metrics
from sat_jax.metrics.rows import ChosenRows, Scores
from sat_jax.metrics.stability import Stability, measure_stability
from sat_jax.metrics.strong import (
    TimedClip,
    onset_delays,
    overlapped,
    segment_average_precision,
)


def evaluate(
    run: Run, *, threshold: float, cost: Cost | None, report: Report = lambda problem: None
) -> Evaluation:
    """Measures what a model said.

    Args:
      run: from `sat_jax.evaluation.run.score_with`.
      threshold: from which probability on a class counts as heard, for stability and onsets.
      cost: of an answer, if it is known.
      report: told why strong labels could not be measured, if so.

    Raises:
      SatError: no clip that was scored has a label, or a library is missing.
    """
    hearing, tagger, clips, scored = run.hearing, run.tagger, run.clips, run.scored
    targets = clips.targets(len(tagger.labels))[scored.clips]
    has_times = hearing.mode != "clip"
    return Evaluation(
        model=run.model,
        weights=tagger.source,
        labels=tuple(tagger.labels),
        mode=hearing.mode,
        delay=hearing.delay,
        framing=hearing.framing if hearing.mode == "stream" else None,
        warmup=hearing.warmup if hearing.mode == "stream" else None,
        buffer=hearing.buffer if hearing.mode == "sliding" else None,
        aggregation=hearing.aggregation,
        metrics=compute_metrics(targets, aggregate_clips(scored, hearing.aggregation)),
        threshold=threshold,
        stability=_measure_stability(run, threshold) if has_times else None,
        strong=_measure_strong(run, threshold, report) if has_times and clips.events else None,
        missing=run.scoring.missing,
        cost=cost,
        clips_per_second=run.scoring.clips_per_second,
    )


def _measure_stability(run: Run, threshold: float) -> Stability:
    labels = (np.asarray(run.clips.labels[index], np.int64) for index in run.scored.clips)
    return measure_stability(
        zip(run.scored.answers(), labels, strict=True),
        num_classes=len(run.tagger.labels),
        threshold=threshold,
    )


def _measure_strong(run: Run, threshold: float, report: Report) -> StrongMeasures | None:
    """Measures the clips of which is known what is heard when; None if nothing is in them."""
    places = [place for place, clip in enumerate(run.scored.clips) if int(clip) in run.clips.events]
    # In the order of rows: so they are read but once.
    places.sort(key=lambda place: run.scored.first[place])
    timed, rows = [], []
    for place in places:
        start, end = run.times(place)
        lasts = end > start  # Seamless framing may hear the very end twice.
        events = run.clips.events[int(run.scored.clips[place])]
        timed.append(TimedClip(start=start[lasts], end=end[lasts], events=events))
        rows.append(run.scored.first[place] + np.flatnonzero(lasts))
    beyond = [place for place, clip in zip(places, timed, strict=True) if clip.events]
    if not any(_is_heard(clip) for clip in timed):
        if beyond:
            index = int(run.scored.clips[beyond[0]])
            report(
                f"no event lies within its clip, the first one of {run.clips.ids[index]} begins at "
                f"{run.clips.events[index][0].onset:g} s: nothing is measured by them"
            )
        return None
    scores = ChosenRows(run.scored.rows, np.concatenate(rows))
    return StrongMeasures(
        num_clips=len(timed),
        segments=segment_average_precision(timed, scores),
        onsets=onset_delays(timed, scores, threshold),
        psds1=_psds1(timed, scores),
    )


def _is_heard(clip: TimedClip) -> bool:
    return any(overlapped(event, clip.start, clip.end).any() for event in clip.events)


def _psds1(clips: Sequence[TimedClip], scores: Scores) -> float | None:
    try:
        check_psds()
    except SatError:  # Whoever started it was told.
        return None
    return psds1(clips, scores).value
