"""Stand-ins for the published weights and scores."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sat_jax.evaluation.published_scores import published_scores
from sat_jax.labels import audioset_labels
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.weights.catalog import PUBLISHED_FILES
from tests.support.golden_weights import load_models, state_dict_by_rule

_INDEX = {label.name: index for index, label in enumerate(audioset_labels())}


def save_published_weights(folder: Path, model: str) -> None:
    """Writes made-up weights of a model, under their published name."""
    golden = load_models()["full_size"]
    tensors = state_dict_by_rule(golden["state_dict_shapes"][model], golden["seed"])
    state_dict = {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}
    torch.save(state_dict, folder / PUBLISHED_FILES[model])


def as_published(model: str, recording: str, chunk_seconds: float) -> Iterator[ScoredChunk]:
    """Chunks with the published scores, to more digits; all other classes have 0.001."""
    lines = [e for e in published_scores() if e[:3] == (model, recording, chunk_seconds)]
    for number, start in enumerate(sorted({e.start for e in lines})):
        probs = np.full(527, 1e-3, np.float32)
        for line in lines:
            if line.start == start:
                probs[_INDEX[line.label]] = line.score + (-1) ** number * 4e-5
        # As in the tagger: the chunk's first sample over the rate.
        begin = round(start * 16_000) / 16_000
        yield ScoredChunk(start=begin, end=begin + chunk_seconds, probs=probs)
