"""Chooses the window of each row of each batch, and reads a window.

A plan depends on the seed and the step alone, so that a run can resume at any step.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from data_pipeline.batches.sampling import ClipOrder, Sampler, balanced_weights
from data_pipeline.batches.shards import ShardOrder
from data_pipeline.sources.source import Blocks, ClipTable, Source
from sat_jax.errors import SatError

Fill = Literal["wrap", "zeros"]
ReadOrder = Literal["random", "shards"]

_MIN_SECONDS, _MAX_SECONDS = 0.16, 3600
"""Limits of a window's length. A batch of longer windows would not fit into memory."""


class Window(NamedTuple):
    """One window: the clip's index, and `place` and `start` as in `Source.read`."""

    clip: int
    place: float
    start: float | None


class WindowTargets(Protocol):
    """Targets of windows, such as pseudo strong labels."""

    @property
    def clips(self) -> np.ndarray:
        """int64 [m], the clips that have targets, ascending."""
        ...

    def choose(
        self, clip: np.ndarray, place: np.ndarray, num_classes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chooses a window of each clip.

        Args:
          clip: int64 [b], some of `clips`.
          place: float32 [b] in [0, 1): 0 is a clip's first window, towards 1 its last.
          num_classes: the model's.

        Returns:
          Where the windows start, float32 [b] seconds, and their targets, float32 [b, y] or
          [b, k, y].
        """
        ...


class Plan(NamedTuple):
    """The windows and targets of one process's rows of a batch.

    Attributes:
      clip: int64 [b], indices of clips in their source.
      place: float32 [b] in [0, 1), see `Source.read`.
      start: float32 [b], seconds from the clip's start; NaN if `place` decides.
      target: float32 [b, y], or [b, k, y] with a target per chunk.
    """

    clip: np.ndarray
    place: np.ndarray
    start: np.ndarray
    target: np.ndarray

    def windows(self) -> Iterator[Window]:
        """Yields the window of each row."""
        rows = zip(self.clip.tolist(), self.place.tolist(), self.start.tolist(), strict=True)
        for clip, place, start in rows:
            yield Window(clip, place, None if math.isnan(start) else start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Settings of batches; flags name them data.NAME.

    Attributes:
      batch_size: windows in the global batch, of all processes.
      window_seconds: length of a window.
      num_classes: the model's classes.
      seed: of the order of clips and the places of windows.
      fill: how a shorter clip fills a window: "wrap" repeats it, "zeros" appends silence.
      sampler: "shuffle" uses every clip once per epoch; "balanced" draws clips of rare classes more
        often, see `data_pipeline.batches.sampling.balanced_weights`.
      draws_per_epoch: windows in an epoch of the balanced sampler.
      read_order: "random" reads each window on its own; "shards" reads the files in large blocks
        and shuffles in memory, see `data_pipeline.batches.shards`.
      buffer_mb: memory for these blocks in each process, in units of 2**20 bytes.
      psl_share: weight of pseudo strong labels in targets: 0 uses the clip's labels alone, 1 the
        window's pseudo strong labels alone.
      chunks: targets per window: 1, or the window's number of chunks for a loss per chunk. The
        windows of pseudo strong labels must then have a chunk's length.
      sample_rate: Hz.

    Raises:
      SatError: a value is out of range.
    """

    batch_size: int
    window_seconds: float
    num_classes: int
    seed: int = 0
    fill: Fill = "wrap"
    sampler: Sampler = "shuffle"
    draws_per_epoch: int = 200_000
    read_order: ReadOrder = "random"
    buffer_mb: int = 2048
    psl_share: float = 0.0
    chunks: int = 1
    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        """Raises SatError for values out of range."""
        for name in ("batch_size", "draws_per_epoch", "buffer_mb", "chunks"):
            if getattr(self, name) < 1:
                raise SatError(f"data.{name}={getattr(self, name)} is under 1")
        if not _MIN_SECONDS <= self.window_seconds <= _MAX_SECONDS:
            raise SatError(
                f"data.window_seconds={self.window_seconds:g} is not between {_MIN_SECONDS} and "
                f"{_MAX_SECONDS}"
            )
        for name, allowed in (("fill", Fill), ("sampler", Sampler), ("read_order", ReadOrder)):
            if getattr(self, name) not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise SatError(f"data.{name}={getattr(self, name)!r} is not one of {choices}")
        if not 0.0 <= self.psl_share <= 1.0:
            raise SatError(f"data.psl_share={self.psl_share} is not in [0, 1]")

    @property
    def buffer_bytes(self) -> int:
        """`buffer_mb` in bytes."""
        return self.buffer_mb << 20

    @property
    def num_samples(self) -> int:
        """Samples in a window."""
        return round(self.window_seconds * self.sample_rate)


class Planner:
    """Makes the plan of any step, for one of several processes.

    Attributes:
      num_rows: rows of this process.
      order: of the clips.
      epoch_size: windows in an epoch, of all processes.
    """

    order: ClipOrder | ShardOrder

    def __init__(
        self,
        clips: ClipTable,
        config: WindowConfig,
        *,
        psl: WindowTargets | None = None,
        blocks: Blocks | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Prepares plans.

        Args:
          clips: the source's clips.
          config: of batches.
          psl: the clips' pseudo strong labels; needed if ``psl_share`` is above 0.
          blocks: of the source, to use its clips in the order of shards.
          process_index: this process.
          process_count: processes that share a batch.

        Raises:
          SatError: the processes can't share the batch evenly, or labels are missing.
        """
        if config.batch_size % process_count:
            raise SatError(
                f"data.batch_size={config.batch_size} is not a multiple of the {process_count} "
                "processes"
            )
        if config.psl_share and psl is None:
            raise SatError(
                f"data.psl_share={config.psl_share} needs pseudo strong labels: give --psl, or "
                "use the clips' labels by --config.data.psl_share=0.0"
            )
        self._clips, self._config = clips, config
        self._psl = psl if config.psl_share else None
        self.num_rows = config.batch_size // process_count
        self._rows = process_index * self.num_rows + np.arange(self.num_rows)
        eligible, weights = _clips_to_use(clips, config, self._psl)
        draws = config.draws_per_epoch
        if blocks is None:
            self.order = ClipOrder(eligible, seed=config.seed, weights=weights, draws=draws)
        else:
            self.order = ShardOrder(
                eligible,
                blocks,
                seed=config.seed,
                memory=config.buffer_bytes,
                weights=weights,
                draws=draws,
                process_index=process_index,
                process_count=process_count,
            )
        self.epoch_size = self.order.epoch_size

    def __call__(self, step: int) -> Plan:
        """Returns this process's plan of a step, counted from 0."""
        config = self._config
        if isinstance(self.order, ShardOrder):
            positions = step * self.num_rows + np.arange(self.num_rows)
        else:
            positions = step * config.batch_size + self._rows
        clip = self.order.clips(positions)
        places = np.random.default_rng([config.seed, 1, step]).random(config.batch_size)
        place = places[self._rows].astype(np.float32)
        # Rounding to float32 may give 1, which is outside [0, 1).
        place = np.minimum(place, np.nextafter(np.float32(1), np.float32(0)))
        hard = self._clips.targets(clip, config.num_classes)
        if self._psl is None:
            return Plan(clip, place, np.full(len(clip), np.nan, np.float32), hard)
        start, soft = self._psl.choose(clip, place, config.num_classes)
        share = np.float32(config.psl_share)
        if soft.ndim == 3:
            hard = hard[:, None]
        return Plan(clip, place, start, (1 - share) * hard + share * soft)


def _clips_to_use(
    clips: ClipTable, config: WindowConfig, psl: WindowTargets | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the clips to use, ascending, and their weights in balanced sampling."""
    eligible = np.arange(len(clips.ids)) if psl is None else psl.clips
    if not len(eligible):
        raise SatError("the source has no clips for batches: check the source and its labels")
    if config.sampler == "shuffle":
        return eligible, None
    weights = balanced_weights(clips)[eligible]
    if not weights.any():
        raise SatError("data.sampler='balanced' needs labels, but no clip has any: use 'shuffle'")
    return eligible, weights


def read_window(source: Source, config: WindowConfig, window: Window, *, out: np.ndarray) -> None:
    """Reads a window into `out`, float32 [s]; a shorter one is filled as `config` says.

    Raises:
      SatError: the clip can't be read.
    """
    samples = source.read(window.clip, num_samples=len(out), place=window.place, start=window.start)
    fill_window(samples, config.fill, out=out)


def fill_window(samples: np.ndarray, fill: Fill, *, out: np.ndarray) -> None:
    """Fills `out`, float32 [s], from at most as many samples."""
    size = len(samples)
    out[:size] = samples
    if size < len(out):
        out[size:] = np.resize(samples, len(out) - size) if fill == "wrap" else 0.0
