"""Scoring labelled clips with a model in several modes, from where an earlier run stopped."""

import dataclasses
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from sat_jax.errors import SatError
from sat_jax.evaluation.clip_scores import ScoreClips, make_scorer, prediction_times
from sat_jax.evaluation.clips import LabeledClips, Report
from sat_jax.evaluation.modes import Mode
from sat_jax.evaluation.results import MissingClip
from sat_jax.evaluation.score_store import FORMAT, ClipScores, ScoreStore
from sat_jax.runtime.sharding import make_mesh
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import fingerprint

_BATCHES_PER_PART = 4
_LONG_CLIP = 20 * 16_000
"""Samples. A part has fewer clips if they are longer, so that memory stays about the same."""
_SECONDS_PER_LINE = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A model to evaluate, checked and ready to run.

    Attributes:
      name: the model's name.
      tagger: the model.
      modes: resolved modes, each once.
      clips: all clips, labelled with classes of the model.
    """

    name: str
    tagger: Tagger
    modes: Sequence[Mode]
    clips: LabeledClips


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One model in one mode, and its scores of the clips.

    Attributes:
      model: the model's name.
      tagger: the model.
      mode: the resolved mode.
      clips: all clips.
      scores: of the clips that could be read, by index, ascending.
      missing: clips that could not be read.
      clips_per_second: speed of this run; None if all scores existed before.
    """

    model: str
    tagger: Tagger
    mode: Mode
    clips: LabeledClips
    scores: dict[int, ClipScores]
    missing: tuple[MissingClip, ...]
    clips_per_second: float | None

    def times(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns start and end of a clip's predictions, see `prediction_times`."""
        scores, config = self.scores[index], self.tagger.config
        is_clip_mode = self.mode.name == "clip"
        return prediction_times(
            len(scores.probs),
            scores.num_samples,
            hop=scores.num_samples if is_clip_mode else self.mode.framing_for(config).hop,
            sample_rate=config.frontend.sample_rate,
        )


def open_candidate(
    name: str, modes: Sequence[Mode], open_clips: Callable[[Tagger], LabeledClips]
) -> Candidate:
    """Loads a model and checks it, its modes and the clips before any clip is scored.

    Args:
      name: name of a model, checkpoint folder or weights file.
      modes: modes to evaluate; modes that are equal for this model are evaluated once.
      open_clips: opens the clips for this model's classes.

    Raises:
      SatError: the model can't be loaded, a delay does not fit it, or no clip has a label.
    """
    tagger = Tagger.load(name)
    clips = open_clips(tagger)
    clips.targets(len(tagger.labels))  # Refuses labels that are not classes.
    if not any(clips.labels):
        raise SatError(f"none of the {len(clips.ids)} clips has a label: give labelled clips")
    resolved = list(dict.fromkeys(mode.resolve(tagger.config) for mode in modes))
    return Candidate(name=name, tagger=tagger, modes=resolved, clips=clips)


def score_candidate(
    candidate: Candidate, *, folder: Path, batch_size: int, report: Report
) -> list[Run]:
    """Scores the clips in each mode; scores that exist are reused.

    Args:
      candidate: the model, its modes and the clips.
      folder: for scores, a sub-folder for each model, mode and list of clips.
      batch_size: clips or windows per call of the model.
      report: prints clips that can't be read, and progress where there is no terminal.

    Raises:
      SatError: scores are not finite, no clip can be scored, or the folder can't be written.
    """
    name, tagger, clips = candidate.name, candidate.tagger, candidate.clips
    weights = fingerprint(tagger.config, tagger.variables)
    runs = []
    for mode in candidate.modes:
        # Only in clip mode do stored scores depend on the aggregation.
        stored = mode if mode.name == "clip" else dataclasses.replace(mode, aggregation="mean")
        about = {
            "weights": weights,
            "mode": dataclasses.asdict(stored),
            "clips": dict(clips.description),
            "format": FORMAT,
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        words = re.sub(r"[^\w.-]+", "_", f"{Path(name).name}_{stored.title}").strip("_.")
        path = folder / f"{words[:80]}-{key}"
        with ScoreStore(path, about | {"model": name}, len(tagger.labels), clips.versions) as store:
            missing, rate = _score_remaining(candidate, mode, store, batch_size, report)
            scores = store.scores
        if not scores:
            raise SatError(f"none of the {len(clips.ids)} clips could be scored: check the files")
        runs.append(
            Run(
                model=name,
                tagger=tagger,
                mode=mode,
                clips=clips,
                scores=scores,
                missing=tuple(missing),
                clips_per_second=rate,
            )
        )
    return runs


def _score_remaining(
    candidate: Candidate, mode: Mode, store: ScoreStore, batch_size: int, report: Report
) -> tuple[list[MissingClip], float | None]:
    """Scores the clips without scores; returns those that can't be read, and clips per second."""
    tagger, clips, title = candidate.tagger, candidate.clips, f"{candidate.name}, {mode.title}"
    mesh = make_mesh(jax.local_devices())
    score = make_scorer(tagger.config, tagger.variables, mode, batch_size=batch_size, mesh=mesh)
    rows = -(-batch_size // mesh.size) * mesh.size
    done, total = store.scores, len(clips.ids)
    todo = [index for index in range(total) if index not in done]
    if done:
        report(f"{title}: reused the scores of {len(done)} of {total} clips in {store.folder}")
    if store.changed:
        report(f"{title}: {len(store.changed)} clips changed and are scored again")
    missing = []
    with _Progress(title, total, len(done), report) as progress:
        for part in _parts(clips.read(todo), _BATCHES_PER_PART * rows):
            sounds = {}
            for index, samples in part:
                if isinstance(samples, SatError):
                    missing.append(MissingClip(clips.ids[index], str(samples)))
                    progress.report(samples)
                else:
                    sounds[index] = samples
            if sounds:
                store.add(_score(score, sounds, title))
            progress.advance(len(part), scored=len(sounds))
        return missing, progress.rate


def _score(score: ScoreClips, sounds: dict[int, np.ndarray], title: str) -> list[ClipScores]:
    try:
        scored = score(list(sounds.values()))
    except SatError as error:
        raise SatError(f"{title}: {error}") from error
    return [
        ClipScores(index, len(samples), probs)
        for (index, samples), probs in zip(sounds.items(), scored, strict=True)
    ]


def _parts(
    clips: Iterable[tuple[int, np.ndarray | SatError]], size: int
) -> Iterator[list[tuple[int, np.ndarray | SatError]]]:
    """Groups clips into lists of `size`, or of fewer long ones."""
    part, num_samples = [], 0
    for index, samples in clips:
        part.append((index, samples))
        num_samples += 0 if isinstance(samples, SatError) else len(samples)
        if len(part) == size or num_samples >= size * _LONG_CLIP:
            yield part
            part, num_samples = [], 0
    if part:
        yield part


class _Progress:
    """A progress bar on a terminal, elsewhere a line each minute."""

    def __init__(self, title: str, total: int, done: int, report: Report) -> None:
        self._title, self._total, self._done, self._scored = title, total, done, 0
        self._report = report
        self._start = self._last_line = time.perf_counter()
        self._bar = tqdm(desc=title, total=total, initial=done, unit="clip", disable=None)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def rate(self) -> float | None:
        """Clips scored per second; None before the first."""
        return self._scored / (time.perf_counter() - self._start) if self._scored else None

    def report(self, problem: object) -> None:
        """Reports a problem above the bar."""
        with self._bar.external_write_mode(sys.stderr):
            self._report(problem)

    def advance(self, count: int, *, scored: int) -> None:
        """Counts clips that were read, and those of them that were scored."""
        self._done, self._scored = self._done + count, self._scored + scored
        self._bar.update(count)
        now = time.perf_counter()
        if self._bar.disable and self.rate and now - self._last_line > _SECONDS_PER_LINE:
            self._last_line = now
            self._report(f"{self._title}: {progress_line(self._done, self._total, self.rate)}")


def progress_line(done: int, total: int, rate: float) -> str:
    """Returns a line such as "4096 of 20123 clips, 11.2 clips/s, 23 min left".

    Args:
      done: clips read.
      total: all clips.
      rate: clips per second, above 0.
    """
    seconds = round((total - done) / rate)
    if seconds >= 3600:
        left = f"{seconds / 3600:.1f} h"
    elif seconds >= 60:
        left = f"{seconds // 60} min"
    else:
        left = f"{seconds} s"
    return f"{done} of {total} clips, {rate:.3g} clips/s, {left} left"
