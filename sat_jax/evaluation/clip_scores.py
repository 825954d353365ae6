"""Scores of whole clips in each evaluation mode."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import PATCH_SIZE, Aggregation, ModelConfig
from sat_jax.evaluation.modes import Mode
from sat_jax.runtime.sharding import make_mesh
from sat_jax.streaming.model import StreamingModel
from sat_jax.streaming.pieces import Variables
from sat_jax.streaming.stream_scorer import StreamScorer
from sat_jax.streaming.window_scorer import WindowScorer

ScoreClips = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Maps clips float32 [s] to probabilities float32 [k, y], a row for each prediction."""


def make_scorer(
    config: ModelConfig,
    variables: Variables,
    mode: Mode,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> ScoreClips:
    """Builds the function that scores clips in a mode.

    Args:
      config: the model.
      variables: its weights.
      mode: the evaluation mode.
      batch_size: streams or windows per call of the model.
      mesh: devices to spread them over; None takes all of this process.

    Raises:
      SatError: the delay does not fit the model.
    """
    mesh = mesh or make_mesh(jax.local_devices())
    framing = mode.framing_for(config)
    model = StreamingModel(config, framing)
    patch = PATCH_SIZE * config.frontend.hop_length
    if mode.name == "stream":
        streams = StreamScorer(
            model,
            variables,
            warmup=mode.warmup,
            batch_size=batch_size,
            mesh=mesh,
        )
        if framing.kind == "seamless":
            return streams.score
        return lambda clips: streams.score(
            [clip[: _end_of_chunks(len(clip), framing.hop, patch)] for clip in clips]
        )
    # In chunks and sliding mode each window is a prediction of its own.
    within = mode.aggregation if mode.name == "clip" else "mean"
    windows = WindowScorer(model, variables, batch_size=batch_size, aggregation=within, mesh=mesh)
    buffer = round(mode.buffer * config.frontend.sample_rate)

    def spans(num_samples: int) -> list[tuple[int, int]]:
        """First and end sample of each window of a clip."""
        if mode.name == "clip":
            return [(0, num_samples)]
        num_samples = _end_of_chunks(num_samples, framing.hop, patch)
        length = buffer if mode.name == "sliding" else framing.hop
        ends = [*range(framing.hop, num_samples, framing.hop), num_samples]
        if mode.name == "chunks":
            return [(index * framing.hop, end) for index, end in enumerate(ends)]
        return [(max(0, end - length), end) for end in ends]

    return lambda clips: _score_windows(windows, clips, [spans(len(clip)) for clip in clips])


def _end_of_chunks(num_samples: int, hop: int, patch: int) -> int:
    """Drops a last chunk shorter than a patch, unless it is the only one.

    It would count as much as a whole chunk, and many recordings are a few milliseconds too long.
    """
    rest = num_samples % hop
    return num_samples - rest if num_samples > hop and rest < patch else num_samples


def _score_windows(
    scorer: WindowScorer,
    clips: Sequence[np.ndarray],
    spans: Sequence[Sequence[tuple[int, int]]],
) -> list[np.ndarray]:
    windows = (
        ((index, row), clips[index][first:end])
        for index, of_clip in enumerate(spans)
        for row, (first, end) in enumerate(of_clip)
    )
    scored = dict(scorer.score(windows))
    return [
        np.stack([scored[index, row] for row in range(len(of_clip))])
        for index, of_clip in enumerate(spans)
    ]


def aggregate(probs: np.ndarray, aggregation: Aggregation) -> np.ndarray:
    """Aggregates a clip's predictions float32 [k, y] to one: float32 [y]."""
    if aggregation == "last":
        return probs[-1]
    if aggregation == "max":
        return probs.max(0)
    return probs.mean(0, dtype=np.float64).astype(np.float32)


def prediction_times(
    num_predictions: int, num_samples: int, *, hop: int, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns start and end of a clip's predictions in seconds: float64 [k] each.

    A prediction covers the time since the one before, even if its window is longer. With seamless
    framing the last prediction may have length 0: its audio is scored twice.

    Args:
      num_predictions: k.
      num_samples: length of the clip.
      hop: samples from one prediction to the next.
      sample_rate: samples per second.
    """
    starts = np.minimum(np.arange(num_predictions) * hop, num_samples)
    ends = np.minimum(starts + hop, num_samples)
    return starts / sample_rate, ends / sample_rate
