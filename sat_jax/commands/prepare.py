r"""Builds AudioSet as a TFDS dataset from a folder of audio and Google's segments CSV files.

python -m data_pipeline.audioset --audio clips --balanced_csv balanced_train_segments.csv \
    --eval_csv eval_segments.csv --data_dir tfds

All splits that are wanted have to be given at once. Broken and missing clips are left out, and
listed in DATA_DIR/audioset/1.0.0/skipped_SPLIT.csv.

TFDS's own program does the same, where the clips lie in MANUAL/audio and Google's tables in MANUAL.
It takes Beam's options too:

tfds build data_pipeline/audioset/builder.py --manual_dir MANUAL --data_dir tfds \
    --beam_pipeline_options runner=DirectRunner
"""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags, logging

from data_pipeline.audioset.reading import count_skipped
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

FLAGS = flags.FlagValues()

_AUDIO = flags.DEFINE_string(
    "audio", None, "Folder of the clips, searched with all folders in it.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of TFDS datasets to write to.", flag_values=FLAGS
)
_TABLES = {
    split: flags.DEFINE_string(
        f"{split}_csv", None, f"Segments CSV of the split {split}.", flag_values=FLAGS
    )
    for split in ("balanced", "unbalanced", "eval")
}
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Threads reading.", lower_bound=1, flag_values=FLAGS
)
_BEAM_OPTIONS = flags.DEFINE_string(
    "beam_options",
    None,
    "Read with Apache Beam instead; its options with commas, such as "
    "runner=FlinkRunner,flink_master=host:8081 or runner=DirectRunner.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Builds what the flags ask for."""
    del arguments
    logging.set_verbosity(logging.ERROR)
    builder = build(
        # Checked by _check not to be None.
        audio=str(_AUDIO.value),
        tables={split: flag.value for split, flag in _TABLES.items() if flag.value is not None},
        data_dir=str(_DATA_DIR.value),
        workers=_WORKERS.value,
        beam_options=_BEAM_OPTIONS.value,
    )
    print("\n".join(summary(builder)), flush=True)
    return False


def build(
    *,
    audio: str,
    tables: Mapping[str, str],
    data_dir: str,
    workers: int = 4,
    beam_options: str | None = None,
    progress: bool = True,
) -> Any:
    """Builds the dataset.

    Args:
      audio: folder of the clips.
      tables: segments CSV by split.
      data_dir: folder of TFDS datasets.
      workers: threads reading clips, without Beam.
      beam_options: None to do without Beam, or its options joined by commas.
      progress: whether to show progress bars, without Beam.

    Returns:
      The `AudioSet` builder, whose dataset can now be read.

    Raises:
      SatError: TFDS is not installed, the dataset exists, a table or the folder can't be read,
        or a split would be empty.
    """
    try:
        import tensorflow_datasets as tfds

        from data_pipeline.audioset.builder import AudioSet
        from data_pipeline.sources.tfds.building import prepare
    except ModuleNotFoundError as error:
        raise SatError(f"{error.name} is not installed: pip install 'sat-jax[train]'") from error
    tfds.disable_progress_bar()
    builder = AudioSet(
        audio=audio,
        tables=tables,
        workers=workers,
        progress=progress,
        data_dir=data_dir,
    )
    prepare(builder, tfds.download.DownloadConfig(**_beam_config(beam_options)))
    return builder


def summary(builder: Any) -> list[str]:
    """A line on each split: clips that are in it and that are not, and why."""
    from data_pipeline.audioset.builder import skipped_name

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


def _beam_config(options: str | None) -> dict[str, Any]:
    if options is None:
        return {}
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ModuleNotFoundError:
        raise SatError("--beam_options needs Apache Beam: pip install apache-beam") from None
    parts = [part for part in options.split(",") if part]
    if not any(part.startswith("runner=") for part in parts):
        # Beam passes over what it does not know, and runs everything on this machine.
        raise SatError(f"--beam_options={options} names no runner: add runner=DirectRunner, say")
    found = PipelineOptions([f"--{part}" for part in parts])
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            found.get_all_options()
        except SystemExit:
            reason = told.getvalue().strip().rpartition("error: ")[2]
            raise SatError(f"--beam_options={options}: {reason}") from None
    return {"beam_options": found}


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "the folder of clips is named by --audio")
    require_flags(_AUDIO, _DATA_DIR)
    if all(flag.value is None for flag in _TABLES.values()):
        raise flags.Error("--balanced_csv, --unbalanced_csv or --eval_csv is needed")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
