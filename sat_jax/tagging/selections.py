"""What a tagging run writes: the tags of chunks, or the events of watched sounds."""

import dataclasses
import os
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from sat_jax.errors import SatError
from sat_jax.events import EventTracker, Watch, WatchedSound, watched_sounds
from sat_jax.streaming.framing import half_patch_seconds
from sat_jax.tagger import Tagger
from sat_jax.tagging.formats import FORMATS
from sat_jax.tagging.options import STDIN, TaggingOptions
from sat_jax.tags import TagSelection


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EventSelection:
    """Chooses the events of a recording.

    Attributes:
      sounds: what to follow.
      sample_rate: of the model, Hz.
      shortest: seconds, see `EventTracker`.
    """

    sounds: Sequence[WatchedSound]
    sample_rate: int
    shortest: float = 0.0

    @property
    def classes(self) -> np.ndarray:
        """Indices of the classes that are followed, ascending."""
        return np.array(sorted({index for sound in self.sounds for index in sound.classes}), int)

    def track(self, name: str, began: datetime | None) -> EventTracker:
        """Returns the tracker of a recording.

        Args:
          name: of the recording; its last part begins the ids of events.
          began: the time of its first sample, if known.
        """
        return EventTracker(
            self.sounds,
            session="stdin" if name == STDIN else os.path.basename(name),
            sample_rate=self.sample_rate,
            clock=lambda time: began and began + timedelta(seconds=round(time, 3)),
            shortest=self.shortest,
        )


def make_selection(tagger: Tagger, options: TaggingOptions) -> TagSelection | EventSelection:
    """Returns what to write of a recording.

    Raises:
      SatError: a class is unknown, or a value is out of range.
    """
    if not FORMATS[options.format_name].tells_events:
        return TagSelection(
            labels=tagger.labels,
            k=options.k,
            threshold=options.threshold,
            only=options.only,
            without=options.without,
        )
    watch, thresholds, frontend = options.watch or Watch(), None, tagger.config.frontend
    if isinstance(options.threshold, np.ndarray):
        thresholds = options.threshold
    elif options.threshold is not None:
        watch = dataclasses.replace(watch, rule={**watch.rule, "on": options.threshold})
    watch = dataclasses.replace(
        watch,
        watch=options.only or watch.watch,
        without=[*watch.without, *options.without],
    )
    selection = EventSelection(
        sounds=watched_sounds(watch, tagger.labels, thresholds),
        sample_rate=frontend.sample_rate,
        shortest=half_patch_seconds(tagger.config),
    )
    if options.plot and not selection.classes.size:
        raise SatError("nothing to plot: only the level is watched; leave out plot")
    return selection
