"""The TFDS builder of AudioSet, from a folder of clips."""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from tqdm import tqdm

from data_pipeline.audioset.reading import (
    Example,
    Skipped,
    Task,
    read_example,
    write_skipped,
)
from data_pipeline.sources.segments import Segment, find_audio, read_segments
from data_pipeline.sources.tfds.building import OrderedExampleWriter, clip_features
from sat_jax.errors import SatError
from sat_jax.runtime.threads import map_ahead

TABLES = {
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
"""Google's file names of the segment tables."""

_CITATION = """@inproceedings{audioset,
  title = {Audio Set: An ontology and human-labeled dataset for audio events},
  author = {Gemmeke, Jort F. and Ellis, Daniel P. W. and Freedman, Dylan and Jansen, Aren and
    Lawrence, Wade and Moore, R. Channing and Plakal, Manoj and Ritter, Marvin},
  booktitle = {Proc. IEEE ICASSP},
  year = {2017}
}"""


class AudioSet(tfds.core.GeneratorBasedBuilder):
    """AudioSet with the splits balanced, unbalanced and eval, as far as tables are given."""

    name = "audioset"
    # TFDS downloads nothing here. The empty table keeps it from searching for checksums.
    url_infos: ClassVar[dict[str, Any]] = {}
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put the clips into a folder audio/, and the wanted ones of {', '.join(TABLES.values())} "
        "next to it."
    )

    def __init__(
        self,
        *,
        audio: str | os.PathLike[str] | None = None,
        tables: Mapping[str, str | os.PathLike[str]] | None = None,
        workers: int = 4,
        progress: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes a builder; reads nothing yet.

        Args:
          audio: folder of the clips, see `data_pipeline.sources.segments.find_audio`.
          tables: segments CSV by split. If either is None, both are taken from TFDS's folder for
            manual downloads.
          workers: threads that read clips; unused with Beam.
          progress: whether to show progress bars on a terminal; unused with Beam.
          **kwargs: see `tfds.core.GeneratorBasedBuilder`.
        """
        super().__init__(**kwargs)
        self._audio = audio
        self._tables = tables
        self._workers = workers
        self._progress = progress
        self._beam = False

    def download_and_prepare(self, *, download_config: Any = None, **kwargs: Any) -> None:
        """Builds the dataset; downloads nothing.

        Args:
          download_config: a `tfds.download.DownloadConfig`. If it has a runner or options of
            Apache Beam (`tfds build --beam_pipeline_options`), Beam reads the clips on many
            machines, which must all see the audio and the dataset's folder.
          **kwargs: see the base class.
        """
        config = download_config or tfds.download.DownloadConfig()
        self._beam = config.beam_runner is not None or config.beam_options is not None
        super().download_and_prepare(download_config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="AudioSet: clips of ten seconds and their classes.",
            features=clip_features(id_doc="<ytid>_<start>_<end>"),
            homepage="https://research.google.com/audioset/",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        audio, tables = self._audio, self._tables
        if audio is None or tables is None:
            audio, tables = _manual_files(dl_manager.manual_dir)
        return {
            split: self._generate_examples(split, *_tasks(table, audio))
            for split, table in tables.items()
        }

    def _generate_examples(self, split: str, tasks: list[Task], duplicates: list[Skipped]) -> Any:
        skipped_file = os.fspath(self.data_path / skipped_name(split))
        if not self._beam:
            return self._generate(split, tasks, duplicates, skipped_file)
        task_file = os.fspath(self.data_path / _task_name(split))
        with epath.Path(task_file).open("w") as file:
            file.writelines(json.dumps(task) + "\n" for task in tasks)
        return _beam_examples(task_file, duplicates, skipped_file)

    def _generate(
        self, split: str, tasks: list[Task], duplicates: list[Skipped], skipped_file: str
    ) -> Iterator[tuple[str, Example]]:
        skipped = list(duplicates)
        # Far enough ahead that a long clip does not stop the others.
        read = map_ahead(read_example, tasks, workers=self._workers, ahead=4 * self._workers)
        for result in tqdm(
            read,
            split,
            len(tasks),
            unit=" clips",
            smoothing=0.1,
            disable=None if self._progress else True,
        ):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                yield result["id"], result
        write_skipped(skipped, skipped_file)
        if len(skipped) == len(tasks) + len(duplicates):
            raise SatError(
                f"split {split}: none of the {len(tasks)} clips can be read, such as "
                f"{skipped[0].file or skipped[0].id}: {skipped[0].reason}"
            )

    def _post_download_and_prepare_hook(self) -> None:
        for path in self.data_path.glob(_task_name("*")):
            path.unlink()

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return OrderedExampleWriter(file_format=self.info.file_format)


def skipped_name(split: str) -> str:
    """Returns the name of the CSV file in the dataset's folder that lists skipped clips."""
    return f"skipped_{split}.csv"


def _task_name(split: str) -> str:
    return f"to_read_{split}.jsonl"


def _manual_files(folder: Any) -> tuple[Any, dict[str, Any]]:
    """Finds audio and tables where `MANUAL_DOWNLOAD_INSTRUCTIONS` puts them."""
    paths = {split: folder / name for split, name in TABLES.items()}
    tables = {split: path for split, path in paths.items() if path.exists()}
    if not tables:
        raise SatError(f"{folder} has none of {', '.join(TABLES.values())}: put them there")
    return folder / "audio", tables


def _tasks(table: Any, audio: Any) -> tuple[list[Task], list[Skipped]]:
    rows, duplicates = read_segments(table)
    paths = find_audio(audio, rows)
    if not any(paths):
        raise SatError(
            f"{os.fspath(audio)} has none of the {len(rows)} clips of {os.fspath(table)}: name the "
            f"files like {rows[0].id}.wav"
        )
    reason = "duplicate: the table lists it before"
    return list(map(Task, rows, paths)), [Skipped(name, "", reason) for name in duplicates]


def _beam_examples(task_file: str, duplicates: list[Skipped], skipped_file: str) -> Any:
    """Reads clips with Beam. Tasks come from a file, because a pipeline must be small."""
    import apache_beam as beam

    @beam.ptransform_fn
    def read(pipeline: Any) -> Any:
        results = (
            pipeline
            | beam.io.ReadFromText(task_file)
            | beam.Reshuffle()
            | beam.FlatMap(_read_line).with_outputs("skipped", main="clips")
        )
        _ = (
            results.skipped
            | beam.CombineGlobally(beam.combiners.ToListCombineFn())
            | beam.Map(functools.partial(_write_all_skipped, duplicates, skipped_file))
        )
        return results.clips

    return read()


def _read_line(line: str) -> Iterator[Any]:
    import apache_beam as beam

    (ytid, start, end, labels), path = json.loads(line)
    result = read_example(Task(Segment(ytid, start, end, tuple(labels)), path))
    if isinstance(result, Skipped):
        yield beam.pvalue.TaggedOutput("skipped", result)
    else:
        yield result["id"], result


def _write_all_skipped(duplicates: list[Skipped], path: str, skipped: list[Skipped]) -> None:
    write_skipped([*duplicates, *skipped], path)
