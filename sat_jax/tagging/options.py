"""What a tagging run does: recordings and settings.

The command line checks its flags with this module, so it imports no numpy or JAX.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from sat_jax.config import Aggregation, Mode, Warmup

if TYPE_CHECKING:
    import numpy as np

    from sat_jax.events import Watch
    from sat_jax.tagging.start_time import StartTime

STDIN = "-"
"""The name of standard input among recordings."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A recording to tag.

    Attributes:
      name: its path, or "-" for standard input; it stands beside the tags.
      place: its path inside the folder in which it was found. Files of results mirror it.
      is_live: whether reading it may wait, as for standard input and named pipes.
    """

    name: str
    place: str
    is_live: bool = False

    @classmethod
    def named(cls, name: str, *, is_live: bool = False) -> Self:
        """Returns a recording that the user named."""
        if name == STDIN:
            return cls(name, "stdin", is_live=True)
        return cls(name, os.path.basename(name), is_live)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggingOptions:
    """Settings of a tagging run.

    Attributes:
      mode: "stream" tags chunk by chunk, "clip" tags each recording once, as a whole.
      aggregation: how clip mode combines the scores of a recording's windows.
      warmup: how stream mode fills the cache before the first chunk.
      k: the most tags per chunk; without effect on events.
      threshold: the least probability of a tag, one for all classes or [y] per class; None for no
        threshold. An event starts with it; None is 0.5.
      only: the only classes that may be tags; empty for all, see `sat_jax.labels.select_classes`.
      without: classes that are never tags.
      watch: which sounds become events, and when; `threshold`, `only` and `without` go before it.
      start_time: how recordings get the time of their first sample; None to show no clock times.
      format_name: a key of `sat_jax.tagging.formats.FORMATS`.
      output: the file for the tags; None or "-" for standard output.
      output_dir: the folder for the tags, a file per recording; None for `output`.
      skip_existing: whether to leave out recordings whose file in `output_dir` exists.
      jobs: recordings tagged at once; None for as many as there are cores.
      scores_out: the folder for all scores, a ``.npz`` file per recording; None to save none.
      plot: the picture's path; None to draw none. With several recordings, each picture's name
        gets the recording's name appended. All files for a recording mirror its `place`.
      channel: the channel to tag, counted from 0; None for the mean of all channels.
      full_scale: the number that all samples are divided by.
      stdin_rate: sample rate of PCM on standard input, Hz; None is 16000.
      stdin_channels: number of interleaved channels of PCM on standard input; None is 1.
      model: the path of the model, which no output may overwrite.
    """

    mode: Mode = "stream"
    aggregation: Aggregation = "mean"
    warmup: Warmup = "silence"
    k: int = 3
    threshold: "float | np.ndarray | None" = None
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    watch: "Watch | None" = None
    start_time: "StartTime | None" = None
    format_name: str = "text"
    output: str | None = None
    output_dir: str | None = None
    skip_existing: bool = False
    jobs: int | None = None
    scores_out: str | None = None
    plot: str | None = None
    channel: int | None = None
    full_scale: float = 1.0
    stdin_rate: int | None = None
    stdin_channels: int | None = None
    model: str | None = None
