"""Labelled clips for evaluation."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from data_pipeline.batches.reader import read_whole_clips
from data_pipeline.sources.registry import open_source, resolved
from data_pipeline.sources.source import check_rate, clip_versions
from data_pipeline.sources.strong_labels import match_clips, read_strong_labels
from sat_jax.errors import SatError
from sat_jax.labels import Event

Report = Callable[[object], None]
"""Prints a message on one line."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabeledClips:
    """n clips with labels, indexed from 0.

    Attributes:
      ids: n names.
      labels: for each clip, the indices of its classes.
      read: from indices of clips to an iterator over (index, samples float32 [s] at the model's
        rate), in order. The error takes the samples' place where a clip can't be read.
      description: JSON-ready; scores are only reused for an equal description.
      versions: int64 [n], a number for each clip that changes with its recording; scores of another
        version are not reused.
      events: strong labels, by index of the clips that have some.
    """

    ids: Sequence[str]
    labels: Sequence[Sequence[int]]
    read: Callable[[Sequence[int]], Iterator[tuple[int, np.ndarray | SatError]]]
    description: Mapping[str, object]
    versions: np.ndarray
    events: Mapping[int, Sequence[Event]] = dataclasses.field(default_factory=dict)

    def index_of(self, name: str) -> int:
        """Returns the index of a clip.

        Raises:
          SatError: there is no such clip.
        """
        index = next((index for index, each in enumerate(self.ids) if each == name), None)
        if index is None:
            raise SatError(f"no clip is named {name}; the first one is {self.ids[0]}")
        return index

    def targets(self, num_classes: int) -> np.ndarray:
        """Returns the labels as bool [n, y].

        Raises:
          SatError: a label is not a class of the model.
        """
        targets = np.zeros((len(self.labels), num_classes), bool)
        for row, classes in zip(targets, self.labels, strict=True):
            for index in classes:
                if not 0 <= index < num_classes:
                    raise SatError(
                        f"label {index} is not in 0..{num_classes - 1}, the model's classes: give "
                        "labels for this model"
                    )
                row[index] = True
        return targets


def open_clips(
    source: Mapping[str, Any],
    label_names: Sequence[str],
    *,
    sample_rate: int,
    strong: str | None = None,
    workers: int = 4,
    report: Report = lambda message: None,
) -> LabeledClips:
    """Opens a source of labelled clips.

    Args:
      source: arguments of `data_pipeline.sources.registry.open_source`.
      label_names: the model's class names in output order.
      sample_rate: the model's, Hz.
      strong: path of a table of strong labels, see `read_strong_labels`; None without.
      workers: threads that read clips.
      report: prints how many events belong to classes that the model lacks.

    Raises:
      SatError: source or table can't be read, or do not fit the model or each other.
    """
    check_rate(sample_rate)
    opened = open_source(label_names, **source)
    ids = opened.clips.ids
    return LabeledClips(
        ids=ids,
        labels=[opened.clips.labels(index).tolist() for index in range(len(ids))],
        read=partial(read_whole_clips, opened, workers=workers),
        description=resolved(source)
        | {"names": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]},
        versions=clip_versions(opened),
        events=_read_events(strong, ids, label_names, report) if strong else {},
    )


def _read_events(
    table: str, ids: Sequence[str], label_names: Sequence[str], report: Report
) -> dict[int, tuple[Event, ...]]:
    """Returns the events of the clips in a table of strong labels, by index."""
    strong = read_strong_labels(table, label_names)
    if strong.unknown:
        report(
            f"{table}: left out {sum(strong.unknown.values())} events of {len(strong.unknown)} "
            f"classes that the model lacks, such as {next(iter(strong.unknown))}"
        )
    names = match_clips(ids, strong.events)
    return {index: strong.events[name] for index, name in enumerate(names) if name is not None}
