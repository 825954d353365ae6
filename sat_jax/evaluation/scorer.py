"""From whole clips to the answers that a way of hearing gives."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import PATCH_SIZE, ModelConfig
from sat_jax.evaluation.hearing import Hearing
from sat_jax.runtime.sharding import make_mesh
from sat_jax.streaming.pieces import Variables
from sat_jax.streaming.stream_scorer import StreamScorer
from sat_jax.streaming.window_scorer import WindowScorer

ClipScorer = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""From clips float32 [s] to their answers, probabilities float32 [k, y] each, in order."""

Cut = Callable[[int], list[tuple[int, int]]]
"""From a clip's samples to first samples and ends of what is heard of it, answer by answer."""


def make_scorer(
    config: ModelConfig,
    variables: Variables,
    hearing: Hearing,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> ClipScorer:
    """Readies a model to hear clips.

    Args:
      config: the model.
      variables: its weights.
      hearing: how it hears them.
      batch_size: what it hears side by side: streams or windows.
      mesh: devices to spread them over; None is all of this process.

    Raises:
      SatError: the delay does not suit the model.
    """
    mesh = mesh or make_mesh(jax.local_devices())
    framing = hearing.framing_of(config)
    patch = PATCH_SIZE * config.frontend.hop_length
    if hearing.mode == "stream":
        streams = StreamScorer(
            config,
            variables,
            framing=framing,
            warmup=hearing.warmup,
            batch_size=batch_size,
            mesh=mesh,
        )
        if framing.kind == "seamless":  # There frames go on as in the whole clip.
            return streams.score
        return lambda clips: streams.score(
            [clip[: _without_scrap(len(clip), framing.hop, patch)] for clip in clips]
        )
    # Only clip mode's pieces are aggregated on the way: windows are answers of their own.
    within = hearing.aggregation if hearing.mode == "clip" else "mean"
    windows = WindowScorer(config, variables, batch_size=batch_size, aggregation=within, mesh=mesh)
    buffer = round(hearing.buffer * config.frontend.sample_rate)
    cut = make_cut(hearing, hop=framing.hop, buffer=buffer, patch=patch)
    return lambda clips: _score_cut(windows, clips, cut, config.num_classes)


def make_cut(hearing: Hearing, *, hop: int, buffer: int, patch: int) -> Cut:
    """How clips are cut where every answer is one of clip mode.

    An end that is shorter than a patch gets no answer if the clip has another: it would count as
    much as a whole chunk, and many recordings are a few milliseconds longer than they should be.

    Args:
      hearing: any mode but "stream".
      hop: samples from one answer to the next.
      buffer: samples that sliding mode hears at most.
      patch: samples in a patch.
    """

    def cut(num_samples: int) -> list[tuple[int, int]]:
        if hearing.mode == "clip":
            return [(0, num_samples)]
        num_samples = _without_scrap(num_samples, hop, patch)
        starts = range(0, num_samples, hop)
        ends = [min(start + hop, num_samples) for start in starts]
        if hearing.mode == "sliding":
            return [(max(0, end - buffer), end) for end in ends]
        return list(zip(starts, ends, strict=True))

    return cut


def _without_scrap(num_samples: int, hop: int, patch: int) -> int:
    scrap = num_samples % hop
    return num_samples - scrap if num_samples > hop and scrap < patch else num_samples


def _score_cut(
    scorer: WindowScorer, clips: Sequence[np.ndarray], cut: Cut, num_classes: int
) -> list[np.ndarray]:
    spans = [cut(len(clip)) for clip in clips]
    windows = (
        ((index, place), clips[index][first:last])
        for index, of_clip in enumerate(spans)
        for place, (first, last) in enumerate(of_clip)
    )
    answers = [np.zeros((len(of_clip), num_classes), np.float32) for of_clip in spans]
    for (index, place), probs in scorer.score(windows):
        answers[index][place] = probs
    return answers
