"""Opens the data of a training run: clips, pseudo strong labels and validation clips."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data_pipeline.batches.reader import ClipBatch, WindowBatch, clip_batches, window_batches
from data_pipeline.batches.shards import block_bytes
from data_pipeline.batches.windows import Planner, WindowConfig
from data_pipeline.psl.windows import PslWindows
from data_pipeline.sources.registry import open_source
from data_pipeline.sources.source import Blocks, Source
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
    """The data of a training run.

    Attributes:
      batches: function from the first step to the batches from there on.
      validation: function that returns batches of each validation clip once; None without
        validation clips.
      epoch_size: windows in an epoch.
      record: description of the data, JSON-ready; the workdir keeps it to detect changed data.
      notes: lines to show to the user.
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
    """Opens the data of a training run.

    Args:
      config: of batches.
      labels: the model's class names in output order; empty to train without labels.
      source_fields: arguments of `open_source` for the training clips.
      valid_fields: the same for the validation clips.
      valid_seconds: longer validation clips are cut to this length.
      psl_paths: files of pseudo strong labels.
      process_index: this process.
      process_count: processes that share a batch.
      workers: threads that read.

    Raises:
      SatError: a source can't be opened or does not fit the model.
    """
    source = open_source(labels, **source_fields, leave_out_missing=True)
    is_tfds = bool(source_fields.get("tfds"))
    windows, psl_notes = _psl_windows(source, config, psl_paths, labels)
    names = class_fingerprint(labels)
    planner = Planner(
        source.clips,
        config,
        psl=windows,
        blocks=_blocks(source, config, is_tfds=is_tfds),
        process_index=process_index,
        process_count=process_count,
    )
    notes = [_count(source, "for training"), *psl_notes]
    record = {
        **dataclasses.asdict(config),
        "clips": source.clips.fingerprint(),
        "labels": names,
        "psl": windows.table.fingerprint() if windows else None,
        # The order of shards depends on it.
        "processes": process_count if config.read_order == "shards" else None,
    }
    validation = None
    if valid_fields is not None:
        held_out = open_source(labels, **valid_fields, leave_out_missing=True, prefix="valid_")
        notes.append(_count(held_out, "for validation"))
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

    batches = window_batches(source, planner, config, workers=workers, tf_data=is_tfds)
    return TrainingData(batches, validation, planner.epoch_size, record, notes)


def _blocks(source: Source, config: WindowConfig, *, is_tfds: bool) -> Blocks | None:
    """Returns the source in blocks if its clips are used in the order of shards."""
    if config.read_order == "random":
        return None
    if not is_tfds:
        raise SatError("data.read_order='shards' needs a TensorFlow dataset (--tfds): use 'random'")
    from data_pipeline.sources.tfds.blocks import TfdsBlocks
    from data_pipeline.sources.tfds.source import TfdsSource

    assert isinstance(source, TfdsSource)
    return TfdsBlocks(source, block_bytes(config.buffer_bytes))


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
            f"--psl={','.join(paths)} has no effect with data.psl_share=0: remove it, or add "
            "--config.data.psl_share=1"
        )
    from data_pipeline.psl.table import check_classes, read_psl

    check_classes(paths, labels)
    table = read_psl(paths, source.clips.ids)
    if table.num_classes > config.num_classes:
        raise SatError(
            f"--psl={','.join(paths)} has class {table.num_classes - 1}, the model has 0 to "
            f"{config.num_classes - 1}: give labels made for the model's classes"
        )
    windows = PslWindows(table, window_seconds=config.window_seconds, chunks=config.chunks)
    num_labelled, num_clips = len(windows.clips), len(source.clips.ids)
    note = f"{num_labelled} of {num_clips} clips have pseudo strong labels"
    if others := num_clips - num_labelled:
        note += f"; the other {others} are not used"
    unknown = f"; labels of {table.unknown_clips} unknown clips are not used"
    return windows, [note + unknown if table.unknown_clips else note]
