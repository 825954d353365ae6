"""Which window of which clip stands in each row of each batch.

Everything random about the input is decided here, before anything is read: a plan is a function of
the seed and the step alone, so a run is taken up again at any step from that number.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import numpy as np

from data_pipeline.batches.sampling import ClipOrder, Sampler, balanced_weights
from data_pipeline.psl.windows import PslWindows
from data_pipeline.sources.source import ClipTable
from sat_jax.errors import SatError

Fill = Literal["wrap", "zeros"]

_LONGEST = 3600
"""Seconds in a window: a batch of longer ones is no batch for any memory."""


class Plan(NamedTuple):
    """What is to be read for one process's rows of a batch.

    Attributes:
      clip: int64 [b], indices of clips in their source.
      place: float32 [b] in [0, 1), where in its clip a window lies; see `Source.read`.
      start: float32 [b], seconds from the clip's start where that is fixed, else NaN.
      target: float32 [b, y], or [b, k, y] where chunks have targets of their own.
    """

    clip: np.ndarray
    place: np.ndarray
    start: np.ndarray
    target: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How batches are made of clips.

    Attributes:
      batch_size: windows in a batch, of all processes together.
      window_seconds: length of a window.
      num_classes: classes of the model.
      seed: of all that is random.
      fill: how a shorter clip becomes a window: "wrap" repeats it, "zeros" appends silence.
      sampler: "shuffle" sees every clip once an epoch; "balanced" draws clips of rare classes
        more often, see `data_pipeline.batches.sampling.balanced_weights`.
      draws_per_epoch: length of a balanced epoch.
      psl_share: how targets are mixed: 0 are the clip's own labels, 1 the pseudo strong labels of
        the window.
      chunks: targets in a window: 1, or as many as it has chunks, for a loss per chunk; the
        pseudo strong labels must have windows of a chunk's length then.
      sample_rate: samples per second.

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
    psl_share: float = 0.0
    chunks: int = 1
    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        for name in ("batch_size", "draws_per_epoch", "chunks"):
            if getattr(self, name) < 1:
                raise SatError(f"data.{name}={getattr(self, name)} is under 1")
        if not 0.16 <= self.window_seconds <= _LONGEST:
            raise SatError(
                f"data.window_seconds={self.window_seconds:g} is not between 0.16 and {_LONGEST}"
            )
        for name, allowed in (("fill", Fill), ("sampler", Sampler)):
            if getattr(self, name) not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise SatError(f"data.{name}={getattr(self, name)!r} is none of {choices}")
        if not 0.0 <= self.psl_share <= 1.0:
            raise SatError(f"data.psl_share={self.psl_share} is not in [0, 1]")

    @property
    def num_samples(self) -> int:
        """Samples in a window."""
        return round(self.window_seconds * self.sample_rate)


class Planner:
    """Makes the plan of any step, for one of several processes."""

    def __init__(
        self,
        clips: ClipTable,
        config: WindowConfig,
        *,
        psl: PslWindows | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Prepares plans.

        Args:
          clips: the source's clips.
          config: how batches are made.
          psl: the clips' pseudo strong labels, if ``psl_share`` is above 0.
          process_index: which rows are this process's.
          process_count: processes that share a batch evenly.

        Raises:
          SatError: the batch can't be shared evenly, labels are missing or do not fit.
        """
        if config.batch_size % process_count:
            raise SatError(
                f"data.batch_size={config.batch_size} can't be shared evenly by {process_count} "
                "processes"
            )
        if config.psl_share and psl is None:
            raise SatError(
                f"data.psl_share={config.psl_share} needs pseudo strong labels: name them with "
                "--psl, or learn from the clips' own labels (--config.data.psl_share=0.0)"
            )
        self._clips, self._config = clips, config
        self._psl = psl if config.psl_share else None
        rows = config.batch_size // process_count
        self._rows = np.arange(process_index * rows, (process_index + 1) * rows)
        self._order = _make_order(clips, config, self._psl)

    @property
    def epoch_size(self) -> int:
        """Windows in an epoch."""
        return self._order.epoch_size

    def __call__(self, step: int) -> Plan:
        """This process's rows of the batch of a step, counted from 0."""
        config = self._config
        positions = step * config.batch_size + self._rows
        clip = self._order.clips(positions)
        places = np.random.default_rng([config.seed, 1, step]).random(config.batch_size)
        place = places[self._rows].astype(np.float32)
        # Rounding to float32 may reach 1, which is no place.
        place = np.minimum(place, np.nextafter(np.float32(1), np.float32(0)))
        hard = self._clips.targets(clip, config.num_classes)
        if self._psl is None:
            return Plan(clip, place, np.full(len(clip), np.nan, np.float32), hard)
        start, soft = self._psl.choose(clip, place, config.num_classes)
        share = np.float32(config.psl_share)
        if soft.ndim == 3:
            hard = hard[:, None]
        return Plan(clip, place, start, (1 - share) * hard + share * soft)


def _make_order(clips: ClipTable, config: WindowConfig, psl: PslWindows | None) -> ClipOrder:
    eligible = np.arange(len(clips.ids)) if psl is None else psl.clips
    if not len(eligible):
        raise SatError("there are no clips to make batches of: check the source and its labels")
    if config.sampler == "shuffle":
        return ClipOrder(eligible, seed=config.seed)
    weights = balanced_weights(clips)[eligible]
    if not weights.any():
        raise SatError("data.sampler='balanced' needs labels, but no clip has any: use 'shuffle'")
    return ClipOrder(eligible, seed=config.seed, weights=weights, draws=config.draws_per_epoch)
