"""Clips with chunks, scores and events for tests."""

import numpy as np

from sat_jax.labels import Event
from sat_jax.metrics.strong import TimedClip, overlaps


def timed(borders, events, scores=None, classes=2):
    """A clip with chunks between borders; its scores are zeros by default."""
    borders = np.asarray(borders, np.float64)
    scores = np.zeros((len(borders) - 1, classes)) if scores is None else scores
    return TimedClip(start=borders[:-1], end=borders[1:], scores=scores, events=events)


def segment_targets(events, start, end, classes):
    """Which chunks overlap an event of each class: bool [k, y]."""
    targets = np.zeros((len(start), classes), bool)
    for event in events:
        targets[:, event.class_index] |= overlaps(event, start, end)
    return targets


def random_clips(seed, *, clips=20, classes=5, levels=8):
    """Clips of whole seconds; class 0 has no event, class 1 some that overlap each other."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(clips):
        borders = np.cumsum([0, *rng.integers(10, 40, rng.integers(2, 9))]).tolist()
        events = [Event(1, 0, 5), Event(1, 3, 9), Event(1, 9, 12)] if index == 0 else []
        for label in rng.integers(1, classes, rng.integers(0, 4)).tolist():
            first, last = sorted(rng.choice(len(borders), 2, replace=False).tolist())
            onset, offset = borders[first] + rng.integers(0, 5), borders[last] + rng.integers(-5, 5)
            events.append(Event(label, int(onset), int(offset)))
        times = np.asarray(borders, np.float64)
        targets = segment_targets(events, times[:-1], times[1:], classes)
        # Mostly right, so that metrics are not trivial; few levels, so that there are ties.
        scores = 0.45 * targets + 0.55 * rng.random(targets.shape)
        scores = (np.ceil(scores * levels) / levels).astype(np.float32)
        made.append(timed(borders, events, scores))
    return made
