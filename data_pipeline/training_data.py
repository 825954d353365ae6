"""All that a training run reads, from what a user names."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data_pipeline.batches.reader import ClipBatch, WindowBatch, clip_batches, window_batches
from data_pipeline.batches.windows import Planner, WindowConfig
from data_pipeline.psl.windows import PslWindows
from data_pipeline.sources.flags import open_source
from data_pipeline.sources.source import Source
from sat_jax.config import AnyConfig, MaeConfig
from sat_jax.errors import SatError
from sat_jax.labels import class_fingerprint
from sat_jax.training.from_config import default_window_seconds, num_chunks


def window_config(config: Any, model: AnyConfig) -> WindowConfig:
    """Returns how a run cuts its batches from clips.

    Args:
      config: a training config, see `sat_jax.training.defaults`.
      model: the model to train.

    Raises:
      SatError: a value is out of range or does not suit the model.
    """
    if isinstance(model, MaeConfig) and config.data.psl_share:
        raise SatError(
            f"data.psl_share={config.data.psl_share:g}: an autoencoder learns without labels, set 0"
        )
    fields = config.data.to_dict()
    fields["window_seconds"] = fields["window_seconds"] or default_window_seconds(model)
    windows = WindowConfig(
        **fields,
        num_classes=0 if isinstance(model, MaeConfig) else model.num_classes,
        seed=config.seed,
        sample_rate=(model.encoder if isinstance(model, MaeConfig) else model).frontend.sample_rate,
    )
    if isinstance(model, MaeConfig) or not (config.loss_per_chunk and windows.psl_share):
        return windows
    return dataclasses.replace(windows, chunks=num_chunks(model, windows.window_seconds))


class TrainingData(NamedTuple):
    """What a run learns from.

    Attributes:
      batches: from the index of the first batch wanted to the batches from there on.
      validation: gives the validation clips, each once; None without any.
      epoch_size: windows in an epoch.
      record: what the run's folder keeps of the data, JSON-ready, to know it again.
      notes: what a person should know, a line each.
    """

    batches: Callable[[int], Iterator[WindowBatch]]
    validation: Callable[[], Iterator[ClipBatch]] | None
    epoch_size: int
    record: dict[str, Any]
    notes: Sequence[str]


def open_training_data(
    config: WindowConfig,
    labels: Sequence[str],
    source_fields: Mapping[str, Any],
    *,
    valid_fields: Mapping[str, Any] | None = None,
    valid_seconds: float = 10.0,
    psl_paths: Sequence[str] = (),
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 4,
) -> TrainingData:
    """Opens the sources of a run.

    Args:
      config: how batches are made.
      labels: the model's class names in output order; empty where labels don't matter.
      source_fields: arguments of `open_source` for the training clips.
      valid_fields: the same for the validation clips.
      valid_seconds: what is heard of a validation clip at most.
      psl_paths: files of pseudo strong labels.
      process_index: which rows of batches are this process's.
      process_count: processes that share a batch.
      workers: clips that are read at a time.

    Raises:
      SatError: a source can't be opened or does not fit.
    """
    source = open_source(labels, **source_fields, leave_out_missing=True)
    windows, psl_notes = _psl_windows(source, config, psl_paths, labels)
    names = class_fingerprint(labels)
    planner = Planner(
        source.clips,
        config,
        psl=windows,
        process_index=process_index,
        process_count=process_count,
    )
    notes = [_count(source, "to learn from"), *psl_notes]
    record = {
        **dataclasses.asdict(config),
        "clips": source.clips.fingerprint(),
        "labels": names,
        "psl": windows.table.fingerprint() if windows else None,
    }
    validation = None
    if valid_fields is not None:
        held_out = open_source(labels, **valid_fields, leave_out_missing=True)
        notes.append(_count(held_out, "to measure on"))
        record["validation_clips"] = held_out.clips.fingerprint()

        def validation() -> Iterator[ClipBatch]:
            return clip_batches(
                held_out,
                batch_size=config.batch_size,
                num_samples=round(valid_seconds * config.sample_rate),
                num_classes=config.num_classes,
                process_index=process_index,
                process_count=process_count,
                workers=workers,
            )

    batches = window_batches(source, planner, config, workers=workers)
    return TrainingData(batches, validation, planner.epoch_size, record, notes)


def _count(source: Source, purpose: str) -> str:
    missing = getattr(source, "num_missing", 0)
    return f"{len(source.clips.ids)} clips {purpose}" + (f", {missing} missing" if missing else "")


def _psl_windows(
    source: Source, config: WindowConfig, paths: Sequence[str], labels: Sequence[str]
) -> tuple[PslWindows | None, list[str]]:
    if not paths:
        return None, []
    if not config.psl_share:
        raise SatError(
            f"--psl={','.join(paths)} is not used where data.psl_share is 0: leave it out, or add "
            "--config.data.psl_share=1"
        )
    from data_pipeline.psl.table import check_classes, read_psl

    check_classes(paths, labels)
    table = read_psl(paths, source.clips.ids)
    if table.num_classes > config.num_classes:
        raise SatError(
            f"--psl={','.join(paths)} has class {table.num_classes - 1}, the model has 0 to "
            f"{config.num_classes - 1}: give labels made for this model"
        )
    windows = PslWindows(table, window_seconds=config.window_seconds, chunks=config.chunks)
    note = f"{len(windows.clips)} of them have pseudo strong labels, and only those are used"
    strange = f"; labels of {table.unknown_clips} others are left out"
    return windows, [note + strange if table.unknown_clips else note]
