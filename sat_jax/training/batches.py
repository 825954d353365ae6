"""Batches as the training loop takes them, and their checks."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NotRequired, TypedDict

import jax
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import MaeConfig
from sat_jax.errors import SatError
from sat_jax.runtime.sharding import check_batch_size
from sat_jax.training.config import TrainConfig


class Batch(TypedDict):
    """Windows of sound: this process's rows of a global batch.

    Attributes:
      waveform: float32 [b, s] in [-1, 1] at the model's sample rate.
      target: float32 [b, y] or, chunk by chunk, [b, k, y], in [0, 1]; not used by an autoencoder.
      clips: names of the b clips, shown if the loss is not finite.
    """

    waveform: np.ndarray
    target: NotRequired[np.ndarray]
    clips: NotRequired[Sequence[str]]


BatchSource = Callable[[int], Iterator[Batch]]
"""From the number of steps made so far to the batches of the following steps."""


def check_batches(
    batches: Iterator[Batch], config: TrainConfig, mesh: Mesh
) -> Generator[Batch, None, None]:
    """Yields batches that suit model and devices; closes their source when it is closed."""
    try:
        for batch in batches:
            waveform = batch["waveform"].shape
            if len(waveform) != 2:
                raise SatError(f"a batch has waveforms {list(waveform)}: give [b, samples]")
            check_batch_size(mesh, waveform[0] * jax.process_count())
            if not isinstance(config.model, MaeConfig):
                _check_target(batch, config.model.num_classes)
            yield batch
    finally:
        if hasattr(batches, "close"):
            batches.close()
    raise SatError("the batches ended before the run did: their iterator must not end")


def _check_target(batch: Batch, num_classes: int) -> None:
    waveform, target = batch["waveform"].shape, batch["target"].shape
    if len(target) not in (2, 3) or (target[0], target[-1]) != (waveform[0], num_classes):
        raise SatError(
            f"a batch has waveforms {list(waveform)} and targets {list(target)}, the model has "
            f"{num_classes} classes: give [b, samples] and [b, classes] or [b, chunks, classes]"
        )
