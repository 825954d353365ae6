"""The definition of events, for the scores of a whole recording."""

from collections.abc import Sequence

import numpy as np

from sat_jax.events.event import Event, Reason
from sat_jax.events.rules import Rule


def find_events(
    scores: np.ndarray, times: np.ndarray, rule: Rule, *, last_end: float = -np.inf
) -> list[Event]:
    """Returns the events of one class.

    1. The class is heard in a chunk whose score is at least `on`, and in those after it, until the
       score is under `off`. With `smooth`, the median of so many chunks up to this one is compared.
    2. Chunks in which it is heard are one event if the gaps between them are under `min_off`.
    3. Events shorter than `min_on`, gaps included, are none.
    4. An event ends with the chunk that makes it `max_on` long; the rest is another one.

    Args:
      scores: float32 [k] of chunks that follow each other.
      times: float64 [k + 1], seconds: chunk i lasts from times[i] to times[i + 1].
      rule: of the class.
      last_end: end of the event before these chunks, for the cooldown.
    """
    heard = _heard(np.asarray(scores, np.float32), rule)
    events: list[Event] = []
    for run in _runs(heard, times, rule.min_off):
        if times[run[-1] + 1] - times[run[0]] < rule.min_on:
            continue
        muted = bool(times[run[0]] - last_end < rule.cooldown)
        gap = times[-1] - times[run[-1] + 1]
        followed = bool(heard[run[-1] + 1 :].any())
        is_quiet = followed or (run[-1] + 1 < len(scores) and gap >= rule.min_off)
        pieces = _pieces(run, times, rule.max_on)
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            is_full = times[piece[-1] + 1] - times[piece[0]] >= rule.max_on
            reason: Reason = "quiet" if is_quiet else "closed"
            events.append(
                _event(
                    piece,
                    np.asarray(scores, np.float32),
                    times,
                    rule,
                    muted=muted,
                    continues=number > 0,
                    reason="max" if is_full or not is_last else reason,
                )
            )
        last_end = times[run[-1] + 1]
    return events


def _heard(scores: np.ndarray, rule: Rule) -> np.ndarray:
    """Returns bool [k]: whether the class is heard in each chunk."""
    if rule.smooth > 1:
        lasts = (scores[max(0, k + 1 - rule.smooth) : k + 1] for k in range(len(scores)))
        scores = np.array([np.median(each) for each in lasts], np.float32)
    reach_on, under_off = scores >= np.float32(rule.on), scores < np.float32(rule.off_score)
    heard, before = np.zeros(len(scores), bool), False
    for k in range(len(scores)):
        before = heard[k] = bool(reach_on[k]) or (before and not under_off[k])
    return heard


def _runs(heard: np.ndarray, times: np.ndarray, min_off: float) -> list[list[int]]:
    """Returns the chunks of each run in which the class is heard, across short gaps."""
    runs: list[list[int]] = []
    for k in np.flatnonzero(heard).tolist():
        last = runs[-1][-1] if runs else -2
        if last == k - 1 or (runs and times[k] - times[last + 1] < min_off):
            runs[-1].append(k)
        else:
            runs.append([k])
    return runs


def _pieces(run: Sequence[int], times: np.ndarray, max_on: float) -> list[list[int]]:
    pieces: list[list[int]] = [[]]
    for k in run:
        if pieces[-1] and times[pieces[-1][-1] + 1] - times[pieces[-1][0]] >= max_on:
            pieces.append([])
        pieces[-1].append(k)
    return pieces


def _event(
    chunks: Sequence[int],
    scores: np.ndarray,
    times: np.ndarray,
    rule: Rule,
    *,
    muted: bool,
    continues: bool,
    reason: Reason,
) -> Event:
    start = float(times[chunks[0]])
    ends = times[np.asarray(chunks) + 1]
    needed = 0.0 if continues else rule.min_on
    own, lengths = scores[chunks], np.diff(times)[chunks]
    return Event(
        start=start,
        end=float(ends[-1]),
        announced=float(ends[ends - start >= needed][0]),
        score=float(own[-1]),
        peak=float(own.max()),
        mean=float((own * lengths).sum() / lengths.sum()),
        chunks=len(chunks),
        muted=muted,
        continues=continues,
        reason=reason,
    )
