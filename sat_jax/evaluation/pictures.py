"""Pictures of evaluations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sat_jax.config import FrontendConfig
from sat_jax.errors import SatError
from sat_jax.evaluation.result_files import class_picture, file_stems
from sat_jax.evaluation.results import Evaluation
from sat_jax.evaluation.run import Run
from sat_jax.plots.class_ap import plot_class_ap
from sat_jax.plots.clip_scores import Track, plot_clip_scores
from sat_jax.plots.map_by_delay import Curve, Level, plot_map_by_delay
from sat_jax.plots.spectrogram import SpectrogramPool
from sat_jax.streaming.blocks import SpectrogramStream

_CLASSES_DRAWN = 6
_TRACKS_DRAWN = 8


def draw_evaluations(
    folder: Path, runs: Sequence[Run], evaluations: Sequence[Evaluation], *, clip: str | None
) -> None:
    """Draws mAP against delay, average precision by class, and one clip's scores over time.

    Args:
      folder: for the pictures, which are replaced if there; it exists.
      runs: what was said.
      evaluations: how good each of it is.
      clip: whose scores are drawn; None chooses one, see `find_clip`.

    Raises:
      SatError: there is no such clip with scores, or a picture can't be written.
    """
    index = find_clip(runs[0], clip)
    _draw_delays(folder / "map_by_delay.png", evaluations)
    for stem, evaluation in zip(file_stems(evaluations), evaluations, strict=True):
        plot_class_ap(
            folder / class_picture(stem),
            title=evaluation.title,
            labels=evaluation.labels,
            average_precision=evaluation.metrics.average_precision,
            positives=evaluation.metrics.positives,
        )
    # Models of other classes can't share a panel.
    alike = [run for run in runs if run.tagger.labels == runs[0].tagger.labels]
    _draw_clip(folder / "clip_scores.png", alike, index)


def find_clip(run: Run, clip: str | None) -> int:
    """The place of the clip to draw.

    Args:
      run: what was said about the clips.
      clip: its name; None is the longest labelled clip of up to a minute, else the shortest.

    Raises:
      SatError: there is no such clip, or it has no scores.
    """
    scored = run.scored.clips.tolist()
    if clip is None:
        minute = 60 * run.tagger.config.frontend.sample_rate
        lengths = run.scored.num_samples.tolist()
        labeled = [(n, i) for n, i in zip(lengths, scored, strict=True) if run.clips.labels[i]]
        return max((each for each in labeled if each[0] <= minute), default=min(labeled))[1]
    place = run.clips.place_of(clip)
    if place not in scored:
        raise SatError(f"{clip} has no scores: choose another clip to draw")
    return place


def _draw_delays(path: Path, evaluations: Sequence[Evaluation]) -> None:
    curves: dict[tuple[str, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        curves.setdefault((evaluation.model, evaluation.way), []).append(evaluation)
    lines, levels = [], []
    for (model, way), points in curves.items():
        values = [point.metrics.mean_average_precision for point in points]
        delays = [point.delay for point in points if point.delay is not None]
        if delays:
            lines.append(Curve(model, way, delays, values))
        else:
            levels.append(Level(model, way, values[0]))
    plot_map_by_delay(path, lines, levels)


def _draw_clip(path: Path, runs: Sequence[Run], index: int) -> None:
    clips, tagger = runs[0].clips, runs[0].tagger
    tracks = []
    for run in _some_of(runs):
        if (place := run.scored.place_of(index)) is not None:
            start, end = run.times(place)
            label = f"{run.model}, {run.hearing.title}"
            tracks.append(Track(label, start, end, run.scored.answers_of(place)))
    peaks = np.max([track.probs.max(0) for track in tracks], axis=0)
    events = clips.events.get(index, ())
    # What is known to sound when, what else is there, then what else was heard.
    timed = [event.class_index for event in sorted(events, key=lambda event: event.onset)]
    order = [*timed, *clips.labels[index], *np.argsort(-peaks, kind="stable").tolist()]
    frontend = tagger.config.frontend
    plot_clip_scores(
        path,
        title=clips.ids[index],
        spectrogram=_spectrogram(runs[0], index, frontend),
        tracks=tracks,
        labels=tagger.labels,
        classes=list(dict.fromkeys(order))[:_CLASSES_DRAWN],
        events=events,
        mel_range=(frontend.f_min, frontend.f_max),
    )


def _some_of(runs: Sequence[Run]) -> list[Run]:
    """As many as can be told apart in one panel: if need be, each model and mode but once."""
    if len(runs) <= _TRACKS_DRAWN:
        return list(runs)
    first = {(run.model, run.hearing.mode): run for run in reversed(runs)}
    return [run for run in runs if run in first.values()][:_TRACKS_DRAWN]


def _spectrogram(run: Run, index: int, frontend: FrontendConfig) -> SpectrogramPool:
    [(_, samples)] = run.clips.read([index])
    if isinstance(samples, SatError):
        raise samples
    picture = SpectrogramPool(frontend.hop_length / frontend.sample_rate)
    stream = SpectrogramStream(frontend)
    for block in [*stream.push(samples), *stream.finish()]:
        picture.add(block)
    return picture
