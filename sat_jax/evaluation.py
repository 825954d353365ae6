"""How good a tagger is on labelled clips (floor 5)."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from tqdm import tqdm

from sat_jax.blocks import rebuffer
from sat_jax.errors import SatError
from sat_jax.framing import FramingKind
from sat_jax.metrics.ranking import check_sklearn, compute_metrics
from sat_jax.models.clip import Aggregation
from sat_jax.report.evaluation import Evaluation, MissingClip
from sat_jax.report.tags import ScoredChunk
from sat_jax.streaming import Warmup
from sat_jax.tagger import Tagger

EvaluationMode = Literal["clip", "stream", "chunks"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How a clip gets its scores.

    Attributes:
      mode: "clip" hears a whole clip at once; "stream" hears it chunk by chunk, the cache carried
        along; "chunks" hears each chunk as if it were alone.
      aggregation: how the scores of a clip's chunks (in clip mode, pieces) become one.
      warmup: stream mode only, what the cache holds at a clip's start.
    """

    mode: EvaluationMode = "stream"
    aggregation: Aggregation = "mean"
    warmup: Warmup = "silence"


def check_options(options: EvaluationOptions, framing: FramingKind) -> None:
    """Finds what could never work before a model is loaded.

    Args:
      options: how clips are to get their scores.
      framing: how the tagger's streams are to be cut.

    Raises:
      SatError: single chunks are to be framed seamlessly, or scikit-learn is missing.
    """
    if options.mode == "chunks" and framing == "seamless":
        raise SatError(
            "framing=seamless joins chunks, which mode=chunks hears alone: use framing=chunk"
        )
    check_sklearn()


def evaluate(
    tagger: Tagger,
    ids: Sequence[str],
    labels: Sequence[Sequence[int]],
    read: Callable[[int], np.ndarray],
    *,
    name: str,
    options: EvaluationOptions,
    report: Callable[[SatError], None],
) -> Evaluation:
    """Scores clips and measures the scores.

    Args:
      tagger: the model.
      ids: names of n clips.
      labels: n times the indices of the classes heard in it.
      read: from a clip's index to all of its samples, float32 [s] at the model's rate, or
        `SatError`.
      name: the model's, for people.
      options: how clips get their scores.
      report: told of each clip that can't be scored; the measures leave it out.

    Raises:
      SatError: the options can't work, a label is no class of the model, no clip could be scored,
        none has a label, or the model's scores are not finite.
    """
    check_options(options, tagger.framing.kind)
    targets = _targets(labels, len(tagger.labels))
    scores, is_scored, missing = _score_clips(tagger, ids, read, name, options, report)
    if not is_scored.any():
        raise SatError(f"none of the {len(ids)} clips could be scored: check the files")
    streams = options.mode != "clip"
    return Evaluation(
        model=name,
        weights=tagger.source,
        labels=tuple(tagger.labels),
        mode=options.mode,
        delay=tagger.framing.hop / tagger.config.frontend.sample_rate if streams else None,
        framing=tagger.framing.kind if streams else None,
        aggregation=options.aggregation,
        warmup=options.warmup if options.mode == "stream" else None,
        metrics=compute_metrics(targets[is_scored], scores[is_scored]),
        missing=tuple(missing),
    )


def score_clip(tagger: Tagger, samples: np.ndarray, options: EvaluationOptions) -> np.ndarray:
    """One answer for a whole clip: samples float32 [s] -> probabilities float32 [y].

    Raises:
      SatError: the clip is too short for an answer.
    """
    if options.mode == "clip":
        chunks = tagger.clip([samples], aggregation=options.aggregation)
    elif options.mode == "stream":
        chunks = tagger.stream([samples], warmup=options.warmup)
    else:
        chunks = _score_alone(tagger, samples)
    probs = _aggregate((chunk.probs for chunk in chunks), options.aggregation)
    if probs is None:
        raise SatError("too short for one answer, and the rest is not padded")
    return probs


def _score_clips(
    tagger: Tagger,
    ids: Sequence[str],
    read: Callable[[int], np.ndarray],
    name: str,
    options: EvaluationOptions,
    report: Callable[[SatError], None],
) -> tuple[np.ndarray, np.ndarray, list[MissingClip]]:
    """Scores float32 [n, y], bool [n] of the clips that have some, and the others."""
    scores = np.zeros((len(ids), len(tagger.labels)), np.float32)
    is_scored = np.zeros(len(ids), bool)
    missing = []
    with tqdm(ids, desc=name, unit="clip", disable=None) as bar:
        for index, clip in enumerate(bar):
            try:
                scores[index] = score_clip(tagger, read(index), options)
            except SatError as error:
                missing.append(MissingClip(clip, str(error)))
                with bar.external_write_mode(sys.stderr):
                    report(error)
                continue
            is_scored[index] = True
            if not np.isfinite(scores[index]).all():
                raise SatError(
                    f"{clip} gets scores that are not finite: the model's weights are damaged, "
                    "choose others"
                )
    return scores, is_scored, missing


def _targets(labels: Sequence[Sequence[int]], num_classes: int) -> np.ndarray:
    """Class indices of n clips as bool [n, y]."""
    targets = np.zeros((len(labels), num_classes), bool)
    for row, classes in zip(targets, labels, strict=True):
        for index in classes:
            if not 0 <= index < num_classes:
                raise SatError(
                    f"label {index} is none of the model's classes 0 to {num_classes - 1}: give "
                    "labels made for this model"
                )
            row[index] = True
    return targets


def _score_alone(tagger: Tagger, samples: np.ndarray) -> Iterator[ScoredChunk]:
    """Scores each chunk as a stream of its own; times count from the chunk's start."""
    for chunk in rebuffer([samples], tagger.framing.hop):
        yield from tagger.stream([chunk], warmup="none")


def _aggregate(probs: Iterable[np.ndarray], how: Aggregation) -> np.ndarray | None:
    """One answer from many, [y] each; None from none. Memory does not grow with their number."""
    answer, count = None, 0
    for chunk in probs:
        count += 1
        if answer is None or how == "last":
            answer = chunk.astype(np.float64)
        elif how == "max":
            answer = np.maximum(answer, chunk)
        else:
            answer = answer + chunk
    if answer is None:
        return None
    return (answer / count if how == "mean" else answer).astype(np.float32)
