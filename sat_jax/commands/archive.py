r"""Tags an archive of recordings on one machine or many, with Apache Beam.

sat-jax archive 'recordings/**.wav' --output tags
sat-jax archive 'gs://bucket/2026/**.flac' --output gs://bucket/tags -m SAT_T_2s --scores \
    --beam_options runner=DataflowRunner,project=P,region=R,temp_location=gs://bucket/tmp

PATTERN is a file's name, with * inside a folder and ** for folders below it. The audio files in a
.tar file are recordings too. Writes Parquet tables: OUTPUT/tags/ has a row per tag,
OUTPUT/failures/ a row per recording that failed, OUTPUT/scores/ and OUTPUT/embeddings/ a row per
chunk.

The same command resumes a stopped run, and tags files that came since.
"""

import dataclasses
from collections.abc import Sequence
from logging import CRITICAL, getLogger
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from sat_jax.commands.tag_flags import define_tag_flags, parse_threshold
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, require_flags

if TYPE_CHECKING:
    from sat_jax.weights.checkpoint import Checkpoint

FLAGS = flags.FlagValues()

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the tables, local or in a bucket. Required.", flag_values=FLAGS
)
_MODEL, _K, _CHUNK = define_tag_flags(FLAGS)
_THRESHOLD = flags.DEFINE_string(
    "threshold",
    None,
    "Write only tags of at least this probability, from 0 to 1. auto uses each class's own "
    "threshold.",
    flag_values=FLAGS,
)
_SCORES = flags.DEFINE_bool(
    "scores", False, "Also write the probabilities of all classes.", flag_values=FLAGS
)
_EMBEDDINGS = flags.DEFINE_bool(
    "embeddings", False, "Also write the pooled features of each chunk.", flag_values=FLAGS
)
_PART_FILES = flags.DEFINE_integer(
    "part_files",
    100,
    "Files per part. A part is the unit of work, and a file of each table.",
    lower_bound=1,
    flag_values=FLAGS,
)
_BEAM_OPTIONS = flags.DEFINE_string(
    "beam_options",
    "runner=DirectRunner",
    "Options of Apache Beam, joined by commas, such as runner=FlinkRunner,flink_master=host:8081.",
    flag_values=FLAGS,
)


def main(patterns: Sequence[str]) -> bool:
    """Tags the archive; returns whether a recording failed."""
    logging.set_verbosity(logging.ERROR)  # Beam warns about its own code.
    # Beam prints the tracebacks of errors that it also raises.
    for name in ("bundle_processor", "sdk_worker"):
        getLogger(f"apache_beam.runners.worker.{name}").setLevel(CRITICAL)
    try:
        from sat_jax.archive.pipeline import ArchiveOptions, tag_archive, upload_model
        from sat_jax.archive.plan import plan_archive
        from sat_jax.archive.storage import absolute
    except ModuleNotFoundError as error:
        raise SatError(f"{error.name} is not installed: pip install 'sat-jax[beam]'") from error
    from sat_jax.find_model import find_checkpoint
    from sat_jax.runtime.beam_options import parse_beam_options
    from sat_jax.weights.checkpoint import fingerprint

    beam_options = parse_beam_options(_BEAM_OPTIONS.value)
    checkpoint = find_checkpoint(_MODEL.value)
    options = ArchiveOptions(
        output=absolute(str(_OUTPUT.value).rstrip("/")),
        k=_K.value,
        threshold=_threshold(checkpoint),
        tagger={"chunk_seconds": _CHUNK.value, "embeddings": _EMBEDDINGS.value},
        scores=_SCORES.value,
    )
    settings: dict[str, Any] = dataclasses.asdict(options)
    del settings["output"]  # A folder may be moved.
    settings["model"] = fingerprint(checkpoint.config, checkpoint.variables)
    plan = plan_archive(options.output, patterns, settings, files_per_part=_PART_FILES.value)
    upload_model(checkpoint, options.output)
    counts = tag_archive(plan, options, beam_options)
    print(
        f"{_OUTPUT.value}: {counts.recordings} recordings, {counts.seconds / 3600:.2f} hours, "
        f"{counts.failed} failed" + (f", see {_OUTPUT.value}/failures" if counts.failed else ""),
        flush=True,
    )
    return counts.failed > 0


def _threshold(checkpoint: "Checkpoint") -> float | list[float] | None:
    if _THRESHOLD.value != "auto":
        return parse_threshold(_THRESHOLD.value)
    from sat_jax.weights.thresholds_file import load_thresholds

    return [float(each) for each in load_thresholds(_MODEL.value, checkpoint)]


def _check(patterns: Sequence[str]) -> None:
    if not patterns:
        raise flags.Error("no pattern: name the recordings")
    require_flags(_OUTPUT)
    parse_threshold(_THRESHOLD.value)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__, arguments="PATTERN...")
