"""Models that hear clips in some ways; what they say is kept on disk."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from sat_jax.errors import SatError
from sat_jax.evaluation.answers import answer_times
from sat_jax.evaluation.clips import LabeledClips
from sat_jax.evaluation.hearing import Hearing
from sat_jax.evaluation.scorer import make_scorer
from sat_jax.evaluation.scoring import Report, Scoring, score_clips
from sat_jax.evaluation.store import FORMAT, ScoredClips, ScoreStore
from sat_jax.runtime.sharding import make_mesh
from sat_jax.tagger import Tagger
from sat_jax.weights.checkpoint import fingerprint

BATCHES_PER_PART = 4
"""Batches scored before their scores are stored."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Listener:
    """A model that is to hear clips, and can.

    Attributes:
      model: its name, for people.
      tagger: the model.
      hearings: the ways in which it will hear them, from `Hearing.for_model`, none twice.
      clips: all clips, with labels that are classes of the model.
    """

    model: str
    tagger: Tagger
    hearings: Sequence[Hearing]
    clips: LabeledClips


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One model that hears clips in one way, and what it said.

    Attributes:
      model: its name, for people.
      tagger: the model.
      hearing: from `Hearing.for_model`.
      clips: all clips.
      scored: the answers.
      scoring: how scoring went.
    """

    model: str
    tagger: Tagger
    hearing: Hearing
    clips: LabeledClips
    scored: ScoredClips
    scoring: Scoring

    def times(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """When the answers about a clip begin and end, seconds: [k] each, see `answer_times`."""
        num_samples = int(self.scored.num_samples[place])
        config = self.tagger.config
        is_whole = self.hearing.mode == "clip"
        return answer_times(
            int(self.scored.counts[place]),
            num_samples,
            hop=num_samples if is_whole else self.hearing.framing_of(config).hop,
            rate=config.frontend.sample_rate,
        )


def open_listener(
    name: str, hearings: Sequence[Hearing], open_clips: Callable[[Tagger], LabeledClips]
) -> Listener:
    """Finds out what is wrong with a model or the clips for it before any clip is scored.

    Args:
      name: of a model, a checkpoint folder or a file.
      hearings: the ways in which it is to hear; those that are one for this model become one.
      open_clips: gives the clips, with labels that are classes of the model.

    Raises:
      SatError: the model can't be used, a delay does not suit it, or no clip has a label.
    """
    tagger = Tagger.load(name)
    clips = open_clips(tagger)
    clips.targets(len(tagger.labels))  # Labels that are no classes are found out at once.
    if not any(clips.labels):
        raise SatError(
            f"none of the {len(clips.ids)} clips has a label: there is nothing to measure"
        )
    exact = list(dict.fromkeys(hearing.for_model(tagger.config) for hearing in hearings))
    return Listener(model=name, tagger=tagger, hearings=exact, clips=clips)


def score_with(listener: Listener, *, folder: Path, batch_size: int, report: Report) -> list[Run]:
    """Scores clips with a model in several ways, as far as that was not done before.

    Args:
      listener: the model, its ways of hearing and the clips.
      folder: for scores; those of other models, clips and ways stay untouched in it.
      batch_size: what the model hears side by side.
      report: tells of clips that can't be read, and of progress where there is no bar.

    Raises:
      SatError: scores are not finite, none of the clips can be scored, or the folder can't be
        written.
    """
    name, tagger, clips = listener.model, listener.tagger, listener.clips
    weights = fingerprint(tagger.config, tagger.variables)
    runs = []
    for hearing in listener.hearings:
        title = f"{name}, {hearing.title}"
        kept = _what_counts(hearing)
        about = {
            "weights": weights,
            "hearing": dataclasses.asdict(kept),
            "clips": dict(clips.description),
            "format": FORMAT,
        }
        path = folder / _key(f"{Path(name).name}_{kept.title}", about)
        about |= {"model": name}
        with ScoreStore(path, about, len(tagger.labels), clips.versions) as store:
            scoring = _score(tagger, hearing, clips, store, batch_size, title, report)
            scored = store.scores()
        if not len(scored.clips):
            raise SatError(f"none of the {len(clips.ids)} clips could be scored: check the files")
        runs.append(
            Run(
                model=name,
                tagger=tagger,
                hearing=hearing,
                clips=clips,
                scored=scored,
                scoring=scoring,
            )
        )
    return runs


def _score(
    tagger: Tagger,
    hearing: Hearing,
    clips: LabeledClips,
    store: ScoreStore,
    batch_size: int,
    title: str,
    report: Report,
) -> Scoring:
    mesh = make_mesh(jax.local_devices())
    scorer = make_scorer(tagger.config, tagger.variables, hearing, batch_size=batch_size, mesh=mesh)
    side_by_side = -(-batch_size // mesh.size) * mesh.size
    try:
        return score_clips(
            clips.ids,
            clips.read,
            scorer,
            store,
            clips_per_part=BATCHES_PER_PART * side_by_side,
            title=title,
            report=report,
        )
    except SatError as error:
        raise SatError(f"{title}: {error}") from error


def _what_counts(hearing: Hearing) -> Hearing:
    """The same without what changes no stored answer: how those of windows become one."""
    return hearing if hearing.mode == "clip" else dataclasses.replace(hearing, aggregation="mean")


def _key(title: str, about: Mapping[str, object]) -> str:
    """A folder's name, for people and unlike that of other scores."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    words = re.sub(r"[^\w.-]+", "_", title).strip("_.")
    return f"{words[:80]}-{digest}"
