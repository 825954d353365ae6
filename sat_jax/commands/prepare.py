r"""Builds AudioSet as a TFDS dataset from a folder of audio and Google's segments CSV files.

sat-jax prepare --audio clips --balanced_csv balanced_train_segments.csv \
    --eval_csv eval_segments.csv --data_dir tfds

Give all splits in one command. Broken and missing clips are left out, and listed in
DATA_DIR/audioset/1.0.0/skipped_SPLIT.csv.

TFDS's own program builds the same from MANUAL/audio and Google's tables in MANUAL:

tfds build data_pipeline/audioset/builder.py --manual_dir MANUAL --data_dir tfds \
    --beam_pipeline_options runner=DirectRunner
"""

import os
from collections.abc import Sequence

from absl import flags, logging

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.runtime.files import check_readable_file

FLAGS = flags.FlagValues()

_AUDIO = flags.DEFINE_string(
    "audio", None, "Folder of the clips; subfolders are searched too. Required.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of TFDS datasets to write to. Required.", flag_values=FLAGS
)
_TABLES = {
    split: flags.DEFINE_string(
        f"{split}_csv", None, f"Segments CSV of the split {split}.", flag_values=FLAGS
    )
    for split in ("balanced", "unbalanced", "eval")
}
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Threads that read clips.", lower_bound=1, flag_values=FLAGS
)
_BEAM_OPTIONS = flags.DEFINE_string(
    "beam_options",
    None,
    "Read with Apache Beam. Its options, joined by commas: runner=DirectRunner, or "
    "runner=FlinkRunner,flink_master=host:8081.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Builds the dataset; returns False."""
    del arguments
    tables = {split: flag.value for split, flag in _TABLES.items() if flag.value is not None}
    for table in tables.values():  # Before the imports, which take many seconds.
        check_readable_file(table)
    logging.set_verbosity(logging.ERROR)  # TFDS warns about its own code.
    try:
        from data_pipeline.audioset.prepare import prepare_audioset, summary
    except ModuleNotFoundError as error:
        raise SatError(f"{error.name} is not installed: pip install 'sat-jax[train]'") from error
    builder = prepare_audioset(
        audio=str(_AUDIO.value),
        tables=tables,
        data_dir=str(_DATA_DIR.value),
        workers=_WORKERS.value,
        beam_options=_BEAM_OPTIONS.value,
    )
    print("\n".join(summary(builder)), flush=True)
    return False


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the folder of clips with --audio")
    require_flags(_AUDIO, _DATA_DIR)
    if all(flag.value is None for flag in _TABLES.values()):
        raise flags.Error("give --balanced_csv, --unbalanced_csv or --eval_csv")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
