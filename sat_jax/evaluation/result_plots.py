"""Plots of evaluations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sat_jax.config import FrontendConfig
from sat_jax.errors import SatError
from sat_jax.evaluation.result_files import class_plot_name, file_stems
from sat_jax.evaluation.results import Evaluation
from sat_jax.evaluation.run import Run
from sat_jax.plots.class_ap import plot_class_ap
from sat_jax.plots.clip_timeline import Track, plot_clip_scores
from sat_jax.plots.map_by_delay import Curve, Level, plot_map_by_delay
from sat_jax.plots.spectrogram import SpectrogramPool
from sat_jax.runtime.program_store import open_store
from sat_jax.streaming.incremental import SpectrogramStream

_MAX_CLASSES = 6
_MAX_TRACKS = 8


def plot_evaluations(
    folder: Path, runs: Sequence[Run], evaluations: Sequence[Evaluation], *, clip: str | None
) -> None:
    """Plots mAP by delay, average precision by class, and one clip's scores over time.

    Args:
      folder: existing folder; plots of the same names are replaced.
      runs: the runs, at least one.
      evaluations: their results.
      clip: name of the clip; None chooses one, see `find_clip`.

    Raises:
      SatError: the clip has no scores, or a plot can't be written.
    """
    index = find_clip(runs[0], clip)
    _plot_delays(folder / "map_by_delay.png", evaluations)
    for stem, evaluation in zip(file_stems(evaluations), evaluations, strict=True):
        plot_class_ap(
            folder / class_plot_name(stem),
            title=evaluation.title,
            labels=evaluation.labels,
            average_precision=evaluation.metrics.average_precision,
            positives=evaluation.metrics.positives,
        )
    # Models with other classes can't share a panel.
    comparable = [run for run in runs if run.tagger.labels == runs[0].tagger.labels]
    _plot_clip(folder / "clip_scores.png", comparable, index)


def find_clip(run: Run, name: str | None) -> int:
    """Returns the index of the clip to plot.

    Args:
      run: the scored clips.
      name: the clip's name; None chooses the longest labelled clip of up to a minute, or else the
        shortest.

    Raises:
      SatError: there is no such clip, or it has no scores.
    """
    if name is not None:
        index = run.clips.index_of(name)
        if index not in run.scores:
            raise SatError(f"{name} has no scores: choose another clip to plot")
        return index
    minute = 60 * run.tagger.config.frontend.sample_rate
    labelled = [(s.num_samples, i) for i, s in run.scores.items() if run.clips.labels[i]]
    return max((each for each in labelled if each[0] <= minute), default=min(labelled))[1]


def _plot_delays(path: Path, evaluations: Sequence[Evaluation]) -> None:
    curves: dict[tuple[str, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        curves.setdefault((evaluation.model, evaluation.mode.label), []).append(evaluation)
    lines, levels = [], []
    for (model, mode), points in curves.items():
        values = [point.metrics.mean_average_precision for point in points]
        delays = [point.mode.delay for point in points if point.mode.delay is not None]
        if delays:
            lines.append(Curve(model, mode, delays, values))
        else:
            levels.append(Level(model, mode, values[0]))
    plot_map_by_delay(path, lines, levels)


def _plot_clip(path: Path, runs: Sequence[Run], index: int) -> None:
    clips, tagger = runs[0].clips, runs[0].tagger
    tracks = [
        Track(f"{run.model}, {run.mode.title}", *run.times(index), run.scores[index].probs)
        for run in _select(runs)
        if index in run.scores
    ]
    peaks = np.max([track.probs.max(0) for track in tracks], axis=0)
    events = clips.events.get(index, ())
    # Classes with events come first, then other labels, then those with the highest scores.
    timed = [event.class_index for event in sorted(events, key=lambda event: event.onset)]
    order = [*timed, *clips.labels[index], *np.argsort(-peaks, kind="stable").tolist()]
    frontend = tagger.config.frontend
    plot_clip_scores(
        path,
        title=clips.ids[index],
        spectrogram=_spectrogram(runs[0], index, frontend),
        tracks=tracks,
        labels=tagger.labels,
        classes=list(dict.fromkeys(order))[:_MAX_CLASSES],
        events=events,
        mel_range=(frontend.f_min, frontend.f_max),
    )


def _select(runs: Sequence[Run]) -> list[Run]:
    """Returns as many runs as a panel can show; of too many, one for each model and mode."""
    if len(runs) <= _MAX_TRACKS:
        return list(runs)
    first = {(run.model, run.mode.name): run for run in reversed(runs)}
    return [run for run in runs if run in first.values()][:_MAX_TRACKS]


def _spectrogram(run: Run, index: int, frontend: FrontendConfig) -> SpectrogramPool:
    [(_, samples)] = run.clips.read([index])
    if isinstance(samples, SatError):
        raise samples
    spectrogram = SpectrogramPool(frontend.hop_length / frontend.sample_rate)
    stream = SpectrogramStream(frontend, open_store(None))
    for block in [*stream.push(samples), *stream.finish()]:
        spectrogram.add(block)
    return spectrogram
