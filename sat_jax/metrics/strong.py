"""Metrics of chunk scores against strong labels: events with onset and offset."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.metrics.ranking import check_sklearn

TIME_TOLERANCE = 1e-6
"""Seconds. Chunk borders are sums of floats, so smaller differences are rounding."""
_BLOCK_VALUES = 2**25
"""Scores in memory at once: 128 MiB of float32."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TimedClip:
    """One clip: its chunks, their scores, and its events.

    Attributes:
      start: float [k], each chunk's start in seconds from the clip's start; k >= 1.
      end: float [k], each chunk's end, when its scores are known.
      scores: float [k, y], finite. A memory-mapped array is read block by block.
      events: the clip's events in any order; events of one class may overlap.

    Raises:
      SatError: there is no chunk, shapes differ, a chunk does not end after its start, or an
        event's class is not one of y.
    """

    start: np.ndarray
    end: np.ndarray
    scores: np.ndarray
    events: Sequence[Event]

    def __post_init__(self) -> None:
        """Checks shapes, times and classes."""
        lengths = (len(self.start), len(self.end), len(self.scores))
        if len(set(lengths)) > 1 or not lengths[0]:
            raise SatError(
                f"{lengths[0]} starts, {lengths[1]} ends and {lengths[2]} rows of scores do not "
                "describe the same chunks: give one of each per chunk"
            )
        wrong = np.flatnonzero(~(self.end > self.start))  # Also finds NaN.
        if len(wrong):
            index = wrong[0]
            raise SatError(
                f"chunk {index} starts at {self.start[index]:g} s and ends at "
                f"{self.end[index]:g} s: its end must come later"
            )
        num_classes = self.scores.shape[1]
        for event in self.events:
            if not 0 <= event.class_index < num_classes:
                raise SatError(f"{event}: class_index is not in 0..{num_classes - 1}")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SegmentPrecision:
    """Average precision over chunks.

    Attributes:
      num_segments: number of chunks.
      positives: int64 [y], chunks that overlap an event of each class.
      average_precision: float64 [y] in [0, 1]; NaN for a class without positive chunks.
    """

    num_segments: int
    positives: np.ndarray
    average_precision: np.ndarray

    @property
    def classes_without_positives(self) -> int:
        """Number of classes that `mean_average_precision` leaves out."""
        return int((self.positives == 0).sum())

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes that have positive chunks, in [0, 1]."""
        return float(np.nanmean(self.average_precision))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnsetDelays:
    """Time from an event's onset to its detection.

    Attributes:
      events: number of events.
      detected: number of detected events.
      median: seconds, over detected events; None if none was detected.
      mean: seconds, over detected events; None if none was detected.
    """

    events: int
    detected: int
    median: float | None
    mean: float | None

    @property
    def share_detected(self) -> float | None:
        """Detected events divided by all events; None without events."""
        return self.detected / self.events if self.events else None


def overlaps(event: Event, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns which of k chunks overlap an event by more than `TIME_TOLERANCE`: bool [k]."""
    return np.minimum(end, event.offset) - np.maximum(start, event.onset) > TIME_TOLERANCE


def segment_average_precision(clips: Sequence[TimedClip]) -> SegmentPrecision:
    """Computes average precision per class over the chunks of all clips.

    A chunk is positive for a class if an event of that class overlaps it.

    Args:
      clips: at least one.

    Raises:
      SatError: no event overlaps a chunk, or scikit-learn is missing.
    """
    check_sklearn()
    from sklearn.metrics import average_precision_score

    rows, classes = _positive_chunks(clips)
    num_segments, num_classes = sum(len(clip.scores) for clip in clips), clips[0].scores.shape[1]
    average_precision = np.full(num_classes, np.nan)
    positives = np.zeros(num_classes, np.int64)
    for index, scores in class_columns(clips, np.unique(classes)):
        truth = np.zeros(num_segments, bool)
        truth[rows[classes == index]] = True
        positives[index] = truth.sum()
        average_precision[index] = average_precision_score(truth, scores)
    return SegmentPrecision(
        num_segments=num_segments, positives=positives, average_precision=average_precision
    )


def positive_chunks(clips: Sequence[TimedClip]) -> np.ndarray:
    """Returns which chunks overlap an event of each class: bool [n, y], over all clips in order.

    Args:
      clips: at least one.

    Raises:
      SatError: no event overlaps a chunk.
    """
    positive = np.zeros(
        (sum(len(clip.scores) for clip in clips), clips[0].scores.shape[1]), np.bool_
    )
    positive[_positive_chunks(clips)] = True
    return positive


def onset_delays(clips: Sequence[TimedClip], threshold: float | np.ndarray = 0.5) -> OnsetDelays:
    """Measures how long after its onset an event is detected.

    The first chunk that overlaps the event and whose score reaches the threshold detects it. The
    delay is that chunk's end, when its scores are known, minus the onset.

    Args:
      clips: at least one.
      threshold: in [0, 1], one number or [y]; compared as float32, as in tagging.

    Raises:
      SatError: there are not y thresholds.
    """
    thresholds = broadcast_threshold(threshold, clips[0].scores.shape[1])
    delays = []
    for clip in clips:
        detected = np.asarray(clip.scores, np.float32) >= thresholds  # [k, y]
        for event in clip.events:
            found = detected[:, event.class_index] & overlaps(event, clip.start, clip.end)
            if found.any():
                delays.append(float(clip.end[found].min()) - event.onset)
    return OnsetDelays(
        events=sum(len(clip.events) for clip in clips),
        detected=len(delays),
        median=float(np.median(delays)) if delays else None,
        mean=float(np.mean(delays)) if delays else None,
    )


def broadcast_threshold(threshold: float | np.ndarray, num_classes: int) -> np.ndarray:
    """Returns one threshold per class: float32 [y].

    Raises:
      SatError: there are neither one nor y thresholds.
    """
    thresholds = np.asarray(threshold, np.float32)
    if thresholds.shape not in ((), (num_classes,)):
        raise SatError(
            f"thresholds of shape {list(thresholds.shape)} do not fit {num_classes} classes: "
            "give one number, or one per class"
        )
    return np.broadcast_to(thresholds, num_classes)


def class_columns(
    clips: Sequence[TimedClip], classes: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each class of int [c] with its scores [n] in all chunks, few classes in memory."""
    num_chunks = sum(len(clip.scores) for clip in clips)
    for block in class_blocks(classes, num_chunks, _BLOCK_VALUES):
        columns = np.concatenate([clip.scores[:, block] for clip in clips])
        yield from zip(block.tolist(), columns.T, strict=True)


def class_blocks(classes: np.ndarray, num_chunks: int, max_values: int) -> Iterator[np.ndarray]:
    """Splits int [c] into blocks of at most `max_values` scores, but at least one class each."""
    size = max(1, max_values // max(1, num_chunks))
    return (classes[first : first + size] for first in range(0, len(classes), size))


def _positive_chunks(clips: Sequence[TimedClip]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the chunk and the class of each positive, int [p] each; some occur twice."""
    rows, classes = [], []
    firsts = itertools.accumulate((len(clip.scores) for clip in clips), initial=0)
    for clip, first in zip(clips, firsts, strict=False):
        for event in clip.events:
            found = first + np.flatnonzero(overlaps(event, clip.start, clip.end))
            rows.append(found)
            classes.append(np.full(len(found), event.class_index))
    if not sum(map(len, rows)):
        raise SatError(f"no event overlaps a chunk of the {len(clips)} clips: check their times")
    return np.concatenate(rows), np.concatenate(classes)
