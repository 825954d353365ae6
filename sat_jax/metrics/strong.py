"""How well chunk scores say when a class is heard, against events with onset and offset.

Scores of all chunks of all clips are one table [n, y], clip after clip, which may be memory-mapped:
it is read by blocks.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.metrics.ranking import check_sklearn
from sat_jax.metrics.rows import Scores

# Times are sums of chunk lengths and decimals of a table: closer than this, seconds, is the same.
TIME_TOLERANCE = 1e-6
_BLOCK_VALUES = 2**25  # Scores read at once: 128 MiB of float32.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TimedClip:
    """Where the chunks of a clip lie, and what is heard in it.

    Attributes:
      start: float [k], where each chunk begins, seconds from the clip's start; k >= 1.
      end: float [k], where it ends: its scores are known then.
      events: in any order; those of one class may overlap.

    Raises:
      SatError: there are no chunks, or one does not end after its start.
    """

    start: np.ndarray
    end: np.ndarray
    events: Sequence[Event]

    def __post_init__(self) -> None:
        """Refuses times that are none."""
        if not len(self.start) or self.start.shape != self.end.shape:
            raise SatError(
                f"{len(self.start)} starts and {len(self.end)} ends do not make one chunk or more"
            )
        if not np.all(self.end > self.start):
            raise SatError("a chunk does not end after its start: give both in seconds")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SegmentPrecision:
    """Average precision over single chunks.

    Attributes:
      num_segments: chunks measured.
      positives: [y] int64, chunks that each class is heard in.
      average_precision: [y] float64 in [0, 1]; NaN where a class has no positive chunk.
    """

    num_segments: int
    positives: np.ndarray
    average_precision: np.ndarray

    @property
    def classes_without_positives(self) -> int:
        """Classes left out of `mean_average_precision`."""
        return int((self.positives == 0).sum())

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes that have positive chunks."""
        return float(np.nanmean(self.average_precision))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnsetDelays:
    """How long after an event's onset its class is tagged.

    Attributes:
      events: events measured.
      detected: those of them whose class reaches its threshold in a chunk that they overlap.
      median: seconds, over detected events; None if there is none.
      mean: likewise.
    """

    events: int
    detected: int
    median: float | None
    mean: float | None

    @property
    def share_detected(self) -> float | None:
        """Detected events among all; None if there is no event."""
        return self.detected / self.events if self.events else None


def overlapped(event: Event, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Which of k chunks an event overlaps by more than `TIME_TOLERANCE`: bool [k]."""
    return np.minimum(end, event.offset) - np.maximum(start, event.onset) > TIME_TOLERANCE


def segment_average_precision(clips: Sequence[TimedClip], scores: Scores) -> SegmentPrecision:
    """Measures how well scores rank all chunks of all clips within a class.

    Args:
      clips: which chunks there are, and what is heard in them.
      scores: float [n, y], finite, chunk after chunk of clip after clip.

    Raises:
      SatError: there are not n chunks, an event is of none of y classes, there is no event in any
        chunk, or scikit-learn is missing.
    """
    check_sklearn()
    from sklearn.metrics import average_precision_score

    num_segments, num_classes = scores.shape
    rows, classes = _active(clips, scores)
    average_precision = np.full(num_classes, np.nan)
    positives = np.zeros(num_classes, np.int64)
    for block in column_blocks(np.unique(classes), num_segments, _BLOCK_VALUES):
        columns = scores[:, block]
        for column, index in zip(columns.T, block, strict=True):
            truth = np.zeros(num_segments, bool)
            truth[rows[classes == index]] = True
            positives[index] = truth.sum()
            average_precision[index] = average_precision_score(truth, column)
    return SegmentPrecision(
        num_segments=num_segments, positives=positives, average_precision=average_precision
    )


def onset_delays(
    clips: Sequence[TimedClip], scores: Scores, threshold: float | np.ndarray = 0.5
) -> OnsetDelays:
    """Measures how soon after its onset an event is tagged.

    An event is detected by the first chunk that overlaps it in time and whose score of its class is
    the threshold or more; its delay is that chunk's end, when the score is known, minus its onset.
    An event behind the last chunk is not detected.

    Args:
      clips: which chunks there are, and what is heard in them.
      scores: float [n, y], chunk after chunk of clip after clip.
      threshold: one for all, or [y]; compared as float32, as tags are.

    Raises:
      SatError: there are not n chunks, not y thresholds, or an event is of none of y classes.
    """
    num_classes = scores.shape[1]
    least = np.asarray(threshold, np.float32)
    if least.shape not in ((), (num_classes,)):
        raise SatError(
            f"thresholds of shape {list(least.shape)} do not fit {num_classes} classes: "
            "give one for all, or one per class"
        )
    least = np.broadcast_to(least, num_classes)
    delays = []
    for clip, rows in clip_rows(clips, scores):
        tagged = np.asarray(scores[rows], np.float32) >= least  # [k, y]
        for event in clip.events:
            found = tagged[:, event.class_index] & overlapped(event, clip.start, clip.end)
            if found.any():
                delays.append(float(clip.end[found].min()) - event.onset)
    return OnsetDelays(
        events=sum(len(clip.events) for clip in clips),
        detected=len(delays),
        median=float(np.median(delays)) if delays else None,
        mean=float(np.mean(delays)) if delays else None,
    )


def clip_rows(clips: Sequence[TimedClip], scores: Scores) -> Iterator[tuple[TimedClip, slice]]:
    """Each clip with its rows in the table of scores [n, y].

    Raises:
      SatError: there are not n chunks, or an event is of none of y classes.
    """
    total = sum(len(clip.start) for clip in clips)
    if total != len(scores):
        raise SatError(f"{len(scores)} rows of scores do not fit {total} chunks of the clips")
    first = 0
    for clip in clips:
        for event in clip.events:
            if not 0 <= event.class_index < scores.shape[1]:
                raise SatError(f"{event} is of none of {scores.shape[1]} classes, counted from 0")
        yield clip, slice(first, first + len(clip.start))
        first += len(clip.start)


def column_blocks(classes: np.ndarray, num_rows: int, values: int) -> Iterator[np.ndarray]:
    """Cuts int [c] into blocks with at most so many scores of all rows, but at least one class."""
    size = max(1, values // max(1, num_rows))
    for first in range(0, len(classes), size):
        yield classes[first : first + size]


def _active(clips: Sequence[TimedClip], scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Rows and classes int [p] of the table in which an event is, perhaps some twice."""
    rows, classes = [], []
    for clip, of_clip in clip_rows(clips, scores):
        for event in clip.events:
            found = of_clip.start + np.flatnonzero(overlapped(event, clip.start, clip.end))
            rows.append(found)
            classes.append(np.full(len(found), event.class_index))
    if not sum(map(len, rows)):
        raise SatError(f"no event lies in the {len(scores)} chunks: there is nothing to measure")
    return np.concatenate(rows), np.concatenate(classes)
