"""Builds the AudioSet dataset and summarizes it."""

import os
from collections.abc import Mapping

import tensorflow_datasets as tfds

from data_pipeline.audioset.builder import AudioSet, skipped_name
from data_pipeline.audioset.reading import count_skipped
from data_pipeline.sources.tfds.building import prepare
from sat_jax.runtime.beam_options import parse_beam_options


def prepare_audioset(
    *,
    audio: str,
    tables: Mapping[str, str],
    data_dir: str,
    workers: int = 4,
    beam_options: str | None = None,
    progress: bool = True,
) -> AudioSet:
    """Builds the dataset.

    Args:
      audio: folder of the clips.
      tables: segments CSV by split.
      data_dir: folder of TFDS datasets.
      workers: threads that read clips; unused with Beam.
      beam_options: Apache Beam's options, joined by commas; None does not use Beam.
      progress: whether to show progress bars; unused with Beam.

    Returns:
      The builder of the finished dataset.

    Raises:
      SatError: the dataset exists, a table or the folder can't be read, a split would be empty, or
        the Beam options are wrong.
    """
    tfds.disable_progress_bar()
    builder = AudioSet(
        audio=audio, tables=tables, workers=workers, progress=progress, data_dir=data_dir
    )
    beam = {} if beam_options is None else {"beam_options": parse_beam_options(beam_options)}
    prepare(builder, tfds.download.DownloadConfig(**beam))
    return builder


def summary(builder: AudioSet) -> list[str]:
    """Returns a line per split: the clips in it, and how many were skipped for which reasons."""
    lines = []
    for split, info in builder.info.splits.items():
        path = os.fspath(builder.data_path / skipped_name(split))
        counts = count_skipped(path)
        total = sum(counts.values())
        parts = ", ".join(f"{count} {reason}" for reason, count in list(counts.items())[:5])
        lines.append(
            f"{split}: {info.num_examples} clips, {total} skipped"
            + (f" ({parts}; see {path})" if total else "")
        )
    return lines
