"""The Beam pipeline: parts of an archive in, tables of tags, scores and failures out."""

import dataclasses
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from sat_jax.archive.plan import Plan
from sat_jax.archive.recordings import recordings_of
from sat_jax.archive.storage import exists, local_copy, read_bytes, upload, write_bytes
from sat_jax.archive.tables import Counts, PartTables, part_path, read_counts
from sat_jax.errors import SatError
from sat_jax.streaming.scored_chunk import ScoredChunk
from sat_jax.tagger import Tagger
from sat_jax.tags import TagSelection
from sat_jax.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

_CHUNKS_PER_WRITE = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """What is written for each chunk.

    Attributes:
      output: folder of the results, on this machine or in a bucket.
      k: the most tags per chunk.
      threshold: the least probability of a tag: one number, one per class, or None.
      tagger: options of `Tagger`, such as ``chunk_seconds``.
      scores: whether to write the probabilities of all classes.
    """

    output: str
    k: int = 3
    threshold: float | Sequence[float] | None = None
    tagger: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: bool = False


def upload_model(checkpoint: Checkpoint, output: str) -> None:
    """Saves a model as OUTPUT/model.tar, from where all workers load it."""
    path = f"{output}/model.tar"
    if exists(path):
        return
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "model", checkpoint)
        with tarfile.open(Path(folder) / "model.tar", "w") as tar:
            tar.add(Path(folder) / "model", "model")
        upload(Path(folder) / "model.tar", path)


def tag_archive(plan: Plan, options: ArchiveOptions, beam_options: Any) -> Counts:
    """Tags all parts that are not done yet.

    Args:
      plan: from `plan_archive`.
      options: what to write. The model is OUTPUT/model.tar, see `upload_model`.
      beam_options: Apache Beam's `PipelineOptions`.

    Returns:
      What was tagged, also by earlier runs.

    Raises:
      SatError: the storage can't be read or written, or the pipeline failed.
    """
    path = f"{options.output}/counts.json"
    pipeline = beam.Pipeline(options=beam_options)
    _ = (
        pipeline
        | beam.Create(list(enumerate(plan.parts)))
        | beam.Reshuffle()  # Spreads the parts over the workers.
        | beam.ParDo(_TagPart(options))
        | beam.CombineGlobally(_add_up)
        | beam.Map(lambda counts: write_bytes(path, counts.to_json()))
    )
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:  # Each runner raises errors of its own.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SatError(f"the pipeline failed: {reason[-1]}") from error
    return Counts.from_json(read_bytes(path))


def _add_up(counts: Iterable[Counts]) -> Counts:
    return sum(counts, Counts())


class _TagPart(beam.DoFn):  # type: ignore[misc]
    """Tags the recordings of a part, unless an earlier run did."""

    def __init__(self, options: ArchiveOptions) -> None:
        self._options = options
        self._shared = Shared()

    def setup(self) -> None:
        """Loads the model, once per process."""
        self._tagger: Tagger = self._shared.acquire(self._load_tagger)

    def process(self, element: tuple[int, Sequence[str]]) -> Iterator[Counts]:
        """Yields the counts of a part."""
        part, files = element
        output = self._options.output
        done = part_path(output, "failures", part)
        if exists(done):
            yield read_counts(read_bytes(done))
            return
        tagger = self._tagger
        vectors = {"scores": len(tagger.labels)} if self._options.scores else {}
        if tagger.streams.embeds:
            vectors["embeddings"] = tagger.config.width
        with tempfile.TemporaryDirectory() as folder:
            tables = PartTables(Path(folder), vectors)
            for file in files:
                self._tag_file(file, tables)
            yield tables.upload(output, part)

    def _load_tagger(self) -> Tagger:
        with (
            local_copy(f"{self._options.output}/model.tar") as tar,
            tempfile.TemporaryDirectory() as folder,
        ):
            with tarfile.open(tar) as archive:
                archive.extractall(folder, filter="data")
            checkpoint = load_checkpoint(Path(folder) / "model")
        return Tagger(checkpoint, **self._options.tagger)

    def _tag_file(self, file: str, tables: PartTables) -> None:
        """Tags a file, or all recordings of a tar file."""
        try:
            for recording, local in recordings_of(file):
                self._tag(recording, local, tables)
        except SatError as error:  # The file itself can't be read.
            tables.finish(file, 0.0, str(error))

    def _tag(self, recording: str, local: str, tables: PartTables) -> None:
        options, tagger = self._options, self._tagger
        threshold = None if options.threshold is None else np.asarray(options.threshold)
        selection = TagSelection(labels=tagger.labels, k=options.k, threshold=threshold)
        pending: list[ScoredChunk] = []
        end, failure = 0.0, None

        def write() -> None:
            if pending:
                tables.add(recording, pending, [selection.tags(chunk.probs) for chunk in pending])
                pending.clear()

        try:
            for chunk in tagger.tag_file(local):
                pending.append(chunk)
                end = chunk.end
                if len(pending) == _CHUNKS_PER_WRITE:
                    write()
        except SatError as error:
            failure = str(error).replace(local, recording)
        write()
        tables.finish(recording, end, failure)
