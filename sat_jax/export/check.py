"""Compares an exported step with the model that it was made from."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sat_jax.export.signature import NEW, PROBS, SAMPLES, Arrays, from_arrays, host_arrays
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""An exported step: arrays by name in, arrays by name out."""

CHUNKS = 10


class Difference(NamedTuple):
    """How far an exported step is from the model.

    Attributes:
      probs: the largest difference of a probability; NaN if one is not a number.
      same_top: share of chunks with the same most probable class.
    """

    probs: float
    same_top: float


def compare(
    model: StreamingModel, variables: Variables, run: Run, *, batch_sizes: tuple[int, ...] = (1, 3)
) -> Difference:
    """Runs both on ten chunks of several sounds, each with its own state carried along.

    States begin empty and after silence, and in a batch of several streams some of both. Sounds are
    noises, tones, clicks and silence at several levels.

    Args:
      model: the model.
      variables: its weights.
      run: the exported step.
      batch_sizes: numbers of streams.
    """
    rng = np.random.default_rng(0)
    differences, same = list[float](), list[bool]()
    for batch_size in batch_sizes:
        for begin in _beginnings(model, variables, batch_size):
            ours, theirs = begin, begin
            for _ in range(CHUNKS):
                window = _windows(rng, batch_size, model.framing.window)
                probs, state = model.step(variables, window, from_arrays(model, ours, batch_size))
                ours = host_arrays(model, state)
                outputs = run({SAMPLES: window, **theirs})
                theirs = {name: outputs[NEW + name] for name in theirs}
                expected, found = np.asarray(probs), outputs[PROBS]
                differences.append(float(np.abs(expected - found).max()))
                same += (expected.argmax(1) == found.argmax(1)).tolist()
    return Difference(float(np.max(differences)), float(np.mean(same)))


def _beginnings(model: StreamingModel, variables: Variables, batch_size: int) -> Iterator[Arrays]:
    silent, empty = (
        host_arrays(model, model.init(variables, batch_size, warmup=warmup))
        for warmup in ("silence", "none")
    )
    yield silent
    if model.config.is_streaming:
        yield empty
        if batch_size > 1:
            odd = np.arange(batch_size) % 2 == 1
            yield {
                name: np.where(odd.reshape(-1, *[1] * (array.ndim - 1)), array, empty[name])
                for name, array in silent.items()
            }


def _windows(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Draws sounds, float32 [count, size]."""
    time = np.arange(size) / 16_000

    def tone() -> Any:
        frequency = rng.uniform(80, 4_000) * (1 + rng.uniform(0, 1) * time)
        return np.sin(2 * np.pi * frequency * time)

    def rumble() -> Any:
        walk = np.cumsum(rng.standard_normal(size))
        return walk / np.abs(walk).max()

    def clicks() -> Any:
        return rng.standard_normal(size) * (rng.random(size) < 0.001)

    def hiss() -> Any:
        return rng.standard_normal(size)

    kinds = (tone, rumble, clicks, hiss, lambda: np.zeros(size))

    def sound() -> Any:
        # Without any noise, rounding would decide what the weak frequencies of a tone hold.
        clean = kinds[rng.integers(len(kinds))]()
        return (clean + 1e-3 * hiss() * clean.any()) * 10 ** rng.uniform(-4, 0)

    return np.clip(np.stack([sound() for _ in range(count)]), -1.0, 1.0).astype(np.float32)
