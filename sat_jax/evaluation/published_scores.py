"""The scores that the published README prints, compared with this program's scores.

Source: README of RicherMans/SAT on GitHub.
"""

import csv
import functools
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.weights.catalog import PUBLISHED_FILES

if TYPE_CHECKING:  # Imported late below: --help of a program should be answered at once.
    from sat_jax.streaming.scored_chunk import ScoredChunk
    from sat_jax.weights.checkpoint import Checkpoint

TOLERANCE = 0.55e-4
"""Half of the last printed digit, and a little for another order of summation."""


class PublishedScore(NamedTuple):
    """One line of the published README.

    Attributes:
      model: name in the registry.
      recording: file name.
      chunk_seconds: length of the chunks, s.
      start: start of the chunk, s.
      end: end of the chunk, s.
      rank: 1 for the class with the highest probability in the chunk.
      label: the class.
      score: its probability, four digits.
    """

    model: str
    recording: str
    chunk_seconds: float
    start: float
    end: float
    rank: int
    label: str
    score: float


class Comparison(NamedTuple):
    """A published score and this program's.

    Attributes:
      published: the published line.
      label: the class of the same rank here; "" if the recording ends before the chunk.
      score: its probability.
    """

    published: PublishedScore
    label: str
    score: float

    @property
    def same(self) -> bool:
        """Whether class and four digits are equal."""
        distance = abs(self.score - self.published.score)
        return self.label == self.published.label and distance <= TOLERANCE

    def __str__(self) -> str:
        """One line for people."""
        p = self.published
        where = f"{p.model} {p.recording} [{p.start}s]-[{p.end}s] Topk-{p.rank}"
        text = f"{where} {p.label} {p.score:.4f}"
        if self.same:
            return f"same    {text}"
        return f"DIFFERS {text}, here {self.label or 'nothing'} {self.score:.4f}"


ScoreRecording = Callable[[str, str, float], Iterable["ScoredChunk"]]
"""Scores a recording: (model name, file name, chunk length in s) -> chunks."""


def published_scores() -> tuple[PublishedScore, ...]:
    """All scores that the published README prints."""
    source = resources.files("sat_jax").joinpath("data/published_scores.csv")
    types = PublishedScore.__annotations__
    return tuple(
        PublishedScore(**{name: types[name](text) for name, text in row.items()})
        for row in csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    )


def compare(
    score_recording: ScoreRecording, published: Iterable[PublishedScore]
) -> Iterator[Comparison]:
    """Compares scores with published ones.

    Args:
      score_recording: its chunks are used only up to the last published one.
      published: the lines to compare, those of a recording together.

    Yields:
      A comparison for each line, in order.
    """
    for (model, recording, seconds), group in groupby(published, key=lambda line: line[:3]):
        lines = list(group)
        num_chunks = len({line.start for line in lines})
        chunks = islice(score_recording(model, recording, seconds), num_chunks)
        by_time = {round(chunk.start, 3): chunk.probs for chunk in chunks}
        for line in lines:
            yield _compare_line(line, by_time.get(round(line.start, 3)))


def _compare_line(line: PublishedScore, probs: np.ndarray | None) -> Comparison:
    if probs is None:
        return Comparison(line, "", 0.0)
    index = np.argsort(-probs, kind="stable")[line.rank - 1]
    return Comparison(line, audioset_labels()[index].name, float(probs[index]))


def tagger_scores(recordings: Path, weights: Path | None) -> ScoreRecording:
    """Scores recordings with `Tagger`.

    Args:
      recordings: folder of the recordings.
      weights: folder of the published ``.pt`` files; None downloads them.

    Returns:
      A function that raises SatError if a recording or weights are missing.
    """
    from sat_jax.convert import convert_file, load_published
    from sat_jax.tagger import Tagger

    @functools.cache
    def load(model: str) -> "Checkpoint":
        if weights is None:
            return load_published(model)
        return convert_file(weights / PUBLISHED_FILES[model], model=model)

    def score_recording(
        model: str, recording: str, chunk_seconds: float
    ) -> Iterator["ScoredChunk"]:
        tagger = Tagger(load(model), chunk_seconds=chunk_seconds, framing="chunk")
        return tagger.tag_file(recordings / recording, mode="stream", warmup="silence")

    return score_recording


def check_recordings(folder: Path, published: Iterable[PublishedScore]) -> None:
    """Checks that a folder has all recordings.

    Raises:
      SatError: one is missing.
    """
    for name in sorted({line.recording for line in published}):
        if not (folder / name).is_file():
            raise SatError(
                f"{folder} has no {name}: get it from samples/ of github.com/RicherMans/SAT"
            )
