"""What a tagging run shows beside the tags: a progress bar, and a summary at the end."""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tqdm import tqdm

from sat_jax.audio import duration_seconds
from sat_jax.tagging.options import STDIN, Recording, TaggingOptions

_LONG_SECONDS = 60.0
"""Only of longer recordings the bar shows which part is done: to look up a length takes time."""


def writes_files(options: TaggingOptions) -> bool:
    """Returns whether the tags go to files, not to standard output."""
    return bool(options.output_dir) or options.output not in (None, STDIN)


class ProgressBar:
    """A progress bar over recordings, on a terminal only.

    There is none if the tags appear on the terminal meanwhile.
    """

    def __init__(
        self, recordings: Sequence[Recording], options: TaggingOptions, *, sample_rate: int
    ) -> None:
        """Draws the bar.

        Args:
          recordings: all of them.
          options: the settings.
          sample_rate: of the samples of `track`, Hz.
        """
        shows_tags = sys.stdout.isatty() and not writes_files(options)
        # Clip mode has read a recording before it shows its tags.
        shows_tags = shows_tags and (options.mode == "stream" or len(recordings) > 1)
        is_live = [recording.name for recording in recordings] == [STDIN]
        count = "" if len(recordings) == 1 else " {n:.1f}/{total} recordings"
        self._rate = sample_rate
        self._lock = threading.Lock()
        self._bar = tqdm(
            total=len(recordings),
            desc=Path(recordings[0].name).name if len(recordings) == 1 else None,
            disable=shows_tags or is_live or not sys.stderr.isatty(),
            bar_format=f"{{desc}}{{percentage:3.0f}}% |{{bar}}|{count} [{{elapsed}}<{{remaining}}]",
            leave=False,
        )

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Removes the bar."""
        self._bar.close()

    def track(self, blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
        """Yields the same blocks, and moves the bar on by one recording, bit by bit."""
        seconds, whole, shown = 0.0, 0.0, 0.0
        try:
            for block in blocks:
                yield block
                seconds += len(block) / self._rate
                if self._bar.disable or seconds < _LONG_SECONDS:
                    continue
                whole = whole or duration_seconds(name) or float("inf")
                part = min(seconds / whole, 1.0)
                self._move(part - shown)
                shown = part
        finally:
            self._move(1.0 - shown)

    def skip(self) -> None:
        """Moves the bar on by one recording."""
        self._move(1.0)

    def _move(self, recordings: float) -> None:
        with self._lock:
            self._bar.update(recordings)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Removes the bar while the body prints."""
        if self._bar.disable:
            yield
            return
        with tqdm.external_write_mode(file=sys.stderr):
            yield


@dataclasses.dataclass
class Summary:
    """What a tagging run did.

    Attributes:
      tagged: recordings tagged to their ends.
      skipped: recordings left out, because their results exist.
      failed: recordings that could not be tagged, or not to their ends.
      sound_seconds: sound that was tagged.
      started: `time.perf_counter` at the start.
    """

    tagged: int = 0
    skipped: int = 0
    failed: int = 0
    sound_seconds: float = 0.0
    started: float = dataclasses.field(default_factory=time.perf_counter)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def add(
        self, *, tagged: int = 0, skipped: int = 0, failed: int = 0, sound_seconds: float = 0.0
    ) -> None:
        """Counts on, from any thread."""
        with self._lock:
            self.tagged += tagged
            self.skipped += skipped
            self.failed += failed
            self.sound_seconds += sound_seconds

    def __str__(self) -> str:
        """Returns one line, such as ``98 tagged, 2 failed; 0.136 h of sound in 3 s``."""
        counts = [f"{self.tagged} tagged"]
        counts += [f"{self.skipped} skipped"] if self.skipped else []
        counts += [f"{self.failed} failed"] if self.failed else []
        seconds = time.perf_counter() - self.started
        return (
            f"{', '.join(counts)}; {self.sound_seconds / 3600:.3g} h of sound in {seconds:.3g} s, "
            f"{self.sound_seconds / max(seconds, 1e-9):.3g} times real time"
        )
