"""Checks the published models against the scores that their authors printed.

python -m sat_jax.commands.verify --recordings DIR

DIR holds the two recordings that the published README tags, jkLRith2wcc.wav and mg4kDY_hy6o.wav.
The weights are downloaded (0.4 GB), or taken from a folder of the published files (--weights).
"""

import csv
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from sat_jax.convert import convert_file, load_published
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.tagger import Tagger
from sat_jax.tagging.tags import ScoredChunk
from sat_jax.weights.catalog import PUBLISHED_FILES
from sat_jax.weights.checkpoint import Checkpoint

TOLERANCE = 0.55e-4
"""Half of the last digit printed, and a little for sums in another order."""


class Expected(NamedTuple):
    """One line of the published README.

    Attributes:
      model: registry name.
      recording: file name.
      chunk_seconds: length of the chunks.
      start: where the chunk begins, s.
      end: where it ends, s.
      rank: 1 for the strongest class of the chunk.
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


class Check(NamedTuple):
    """What became of an expected score.

    Attributes:
      expected: the published line.
      label: the class that has its rank now; "" if the recording ends before the chunk.
      score: its probability.
    """

    expected: Expected
    label: str
    score: float

    @property
    def passed(self) -> bool:
        """Whether it is the same class with the same four digits."""
        return (
            self.label == self.expected.label and abs(self.score - self.expected.score) <= TOLERANCE
        )

    def __str__(self) -> str:
        """One line for people."""
        e = self.expected
        where = f"{e.model} {e.recording} [{e.start}s]-[{e.end}s] Topk-{e.rank}"
        published = f"{where} {e.label} {e.score:.4f}"
        if self.passed:
            return f"same    {published}"
        return f"DIFFERS {published}, here {self.label or 'nothing'} {self.score:.4f}"


ScoresFor = Callable[[str, str, float], Iterable[ScoredChunk]]
"""Chunks of a recording, from a model's name, the recording's, and the chunk's length in s."""


def published_scores() -> tuple[Expected, ...]:
    """All scores that the published README prints (RicherMans/SAT on GitHub)."""
    source = resources.files("sat_jax").joinpath("data/published_scores.csv")
    types = Expected.__annotations__
    return tuple(
        Expected(**{name: types[name](text) for name, text in row.items()})
        for row in csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    )


def check(scores_for: ScoresFor, expected: Iterable[Expected]) -> Iterator[Check]:
    """Compares scores with published ones.

    Args:
      scores_for: gives the chunks of a recording; no more than needed are taken from it.
      expected: what they should be, all lines of a recording together.

    Yields:
      A check for each, in order.
    """
    for (model, recording, seconds), group in groupby(expected, key=lambda line: line[:3]):
        lines = list(group)
        wanted = len({line.start for line in lines})
        chunks = islice(scores_for(model, recording, seconds), wanted)
        by_time = {round(chunk.start, 3): chunk.probs for chunk in chunks}
        for line in lines:
            yield _check_line(line, by_time.get(round(line.start, 3)))


def _check_line(line: Expected, probs: np.ndarray | None) -> Check:
    if probs is None:
        return Check(line, "", 0.0)
    index = np.argsort(-probs, kind="stable")[line.rank - 1]
    return Check(line, audioset_labels()[index].name, float(probs[index]))


def scores_of_tagger(recordings: Path, weights: Path | None) -> ScoresFor:
    """Scores by the tagger itself.

    Args:
      recordings: folder of the recordings.
      weights: folder of the published ``.pt`` files; None downloads them.

    Returns:
      A function whose calls raise SatError where a recording or weights can't be had.
    """

    @functools.cache
    def load(model: str) -> Checkpoint:
        if weights is None:
            return load_published(model)
        return convert_file(weights / PUBLISHED_FILES[model], model=model)

    def scores_for(model: str, recording: str, chunk_seconds: float) -> Iterator[ScoredChunk]:
        tagger = Tagger(load(model), chunk_seconds=chunk_seconds, framing="chunk")
        return tagger.tag_file(recordings / recording, mode="stream", warmup="silence")

    return scores_for


def verify(source: ScoresFor, expected: Sequence[Expected]) -> bool:
    """Prints what became of each expected score; returns whether one differs.

    Raises:
      SatError: a recording or weights can't be had.
    """
    passed = 0
    for result in check(source, expected):
        print(result, flush=True)
        passed += result.passed
    print(f"{passed} of {len(expected)} published scores are the same here")
    return passed < len(expected)


FLAGS = flags.FlagValues()

_RECORDINGS = flags.DEFINE_string(
    "recordings",
    "",
    "Folder of jkLRith2wcc.wav and mg4kDY_hy6o.wav, the README's samples. Needed.",
    flag_values=FLAGS,
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Folder of the published .pt files; without it they are downloaded.",
    flag_values=FLAGS,
)
names = sorted({line.model for line in published_scores()})
_MODELS = flags.DEFINE_multi_enum("models", names, names, "Only this model.", flag_values=FLAGS)


def main(arguments: Sequence[str]) -> bool:
    """Runs the command; returns whether anything failed."""
    del arguments
    expected = [line for line in published_scores() if line.model in _MODELS.value]
    folder = Path(_RECORDINGS.value)
    # Looked for first: the weights may take an hour to come.
    for name in sorted({line.recording for line in expected}):
        if not (folder / name).is_file():
            raise SatError(f"{folder} has no {name}: fetch it from the published repository")
    return verify(
        scores_of_tagger(folder, Path(_WEIGHTS.value) if _WEIGHTS.value else None), expected
    )


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the recordings' folder by --recordings")
    require_flags(_RECORDINGS)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
