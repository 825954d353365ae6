"""Tags recordings and live sound.

sat-jax tag street.wav
sat-jax tag -m SAT_T_1s -c 1.0 -k 5 *.flac
sat-jax tag --format events street.wav
sat-jax tag --recursive --output_dir tags --skip_existing recordings
ffmpeg -i rtsp://camera -f wav - | sat-jax tag -

RECORDING is an audio file, a folder of them, a quoted pattern such as 'day/**/*.wav', or - for
standard input: a file of any format, or 16-bit PCM. The exit code is 1 if a recording failed; the
others are still tagged. A damaged file is tagged up to the damage.
"""

import dataclasses
import gc
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from absl import flags

from sat_jax.commands.stream_flags import define_stream_flags
from sat_jax.commands.tag_flags import define_tag_flags, parse_threshold
from sat_jax.config import Aggregation, Dtype, Mode
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program
from sat_jax.runtime.live_input import end_input_on
from sat_jax.tagging.checks import check_options, make_output_folders
from sat_jax.tagging.formats import FORMATS
from sat_jax.tagging.options import STDIN, Recording, TaggingOptions
from sat_jax.tagging.start_time import StartTime

if TYPE_CHECKING:
    import numpy as np

    from sat_jax.tagger import Tagger
    from sat_jax.weights.checkpoint import Checkpoint

FLAGS = flags.FlagValues()

_MODEL, _K, _CHUNK = define_tag_flags(FLAGS)
_MODE = flags.DEFINE_enum(
    "mode",
    "stream",
    get_args(Mode),
    "stream tags chunk by chunk; clip tags each recording once, as a whole.",
    flag_values=FLAGS,
)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate",
    "mean",
    get_args(Aggregation),
    "Clip mode: how the scores of a recording's windows become one.",
    flag_values=FLAGS,
)
_PAD_LAST = flags.DEFINE_bool(
    "pad_last",
    None,
    "Zero-pad a shorter last chunk or window, instead of dropping it. Default: as the model was "
    "trained.",
    flag_values=FLAGS,
)
_WARMUP, _FRAMING = define_stream_flags(FLAGS)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    get_args(Dtype),
    "Precision of the computation. Default: the model's.",
    flag_values=FLAGS,
)
_THRESHOLD = flags.DEFINE_string(
    "threshold",
    None,
    "Show only tags of at least this probability, from 0 to 1. auto uses each class's own "
    "threshold, from sat-jax evaluate --save_thresholds. Events start with it; their default is "
    "auto if the model has thresholds, else 0.5.",
    flag_values=FLAGS,
)
_ONLY = flags.DEFINE_multi_string(
    "only",
    [],
    "Tag only this class: its name, its AudioSet id, or * before either for all classes below it "
    "too, as in '*Animal'. Repeat the flag for more.",
    flag_values=FLAGS,
)
_WITHOUT = flags.DEFINE_multi_string(
    "without",
    [],
    "Never tag this class, given as for --only. Repeat the flag for more.",
    flag_values=FLAGS,
)
_RULES = flags.DEFINE_string(
    "rules",
    None,
    "TOML file that says which sounds become events, and when they start and end.",
    flag_values=FLAGS,
)
_START_TIME = flags.DEFINE_string(
    "start_time",
    None,
    "When the recordings began; tags then have their date and time: 2026-11-29T14:03:22 (UTC with "
    "a Z behind it), now for live sound, name for the date and time in the file's name, or the "
    "pattern in its name, such as %y%m%d-%H%M.",
    flag_values=FLAGS,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "text",
    list(FORMATS),
    "text, jsonl and csv hold tags of chunks; the others hold events.",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "File for the tags. Default: standard output.", flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir",
    None,
    "Folder for the tags, a file per recording. It mirrors the folders of the recordings.",
    flag_values=FLAGS,
)
_SKIP_EXISTING = flags.DEFINE_bool(
    "skip_existing",
    False,
    "Leave out recordings whose file in --output_dir exists: goes on where a run was stopped.",
    flag_values=FLAGS,
)
_RECURSIVE = flags.DEFINE_bool(
    "recursive", False, "Also tag the audio files in the folders of a folder.", flag_values=FLAGS
)
_JOBS = flags.DEFINE_integer(
    "jobs",
    None,
    "Recordings tagged at once. It changes no tag. Default: the number of cores.",
    lower_bound=1,
    flag_values=FLAGS,
)
_SCORES_OUT = flags.DEFINE_string(
    "scores_out",
    None,
    "Folder for the scores of all classes, a NumPy file NAME.npz per recording.",
    flag_values=FLAGS,
)
_EMBEDDINGS = flags.DEFINE_bool(
    "embeddings",
    False,
    "Also save each chunk's pooled features in the files of --scores_out.",
    flag_values=FLAGS,
)
_PLOT = flags.DEFINE_string(
    "plot",
    None,
    "Picture of spectrogram and tags: a .png, .pdf or .svg file.",
    flag_values=FLAGS,
)
_CHANNEL = flags.DEFINE_integer(
    "channel",
    None,
    "Tag only this channel, counted from 0. Default: the mean of all channels.",
    lower_bound=0,
    flag_values=FLAGS,
)
_FULL_SCALE = flags.DEFINE_float(
    "full_scale",
    1.0,
    "Divide all samples by this number: 32768 for 16-bit numbers that were stored as floats.",
    lower_bound=1e-9,
    flag_values=FLAGS,
)
_STDIN_RATE = flags.DEFINE_integer(
    "stdin_rate",
    None,
    "Sample rate of PCM on standard input, Hz. Default: 16000.",
    lower_bound=1_000,
    upper_bound=768_000,
    flag_values=FLAGS,
)
_STDIN_CHANNELS = flags.DEFINE_integer(
    "stdin_channels",
    None,
    "Number of interleaved channels of PCM on standard input. Default: 1.",
    lower_bound=1,
    flag_values=FLAGS,
)
_RANDOM_WEIGHTS = flags.DEFINE_bool(
    "random_weights",
    False,
    "Give the model random weights, to try the program without a download.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Tags recordings; returns whether one failed."""
    with _paused_garbage_collection():
        options = _options()
        recordings, missing = _find(arguments, options)
        if not recordings:
            return True
        _stop_on_signals(recordings)
        make_output_folders(options)
        # Imported late, so that --help and wrong flags are answered at once.
        from sat_jax.tagging.recordings import tag_recordings

        if _RULES.value:
            from sat_jax.events.rules_file import read_rules

            options = dataclasses.replace(options, watch=read_rules(_RULES.value).named())
        checkpoint, tagger = _load_tagger()
        thresholds = _load_thresholds(checkpoint)
        if thresholds is not None:
            options = dataclasses.replace(options, threshold=thresholds)
        if _RANDOM_WEIGHTS.value:
            # Programs read the other formats, and this line would disturb them.
            out = sys.stdout if _FORMAT.value == "text" else sys.stderr
            print(f"{_MODEL.value} with random weights: its tags mean nothing.", file=out)
    summary = tag_recordings(tagger, recordings, options, report=PROGRAM.report)
    return bool(missing or summary.failed)


def _find(arguments: Sequence[str], options: TaggingOptions) -> tuple[list[Recording], int]:
    """Finds the recordings, and reports what is missing before seconds of loading a model."""
    from sat_jax.tagging.find_recordings import find_recordings

    found, missing = find_recordings(arguments, recursive=_RECURSIVE.value, report=PROGRAM.report)
    if found:
        try:
            check_options(options, found)
        except SatError as error:
            raise flags.Error(str(error)) from error
    return found, missing


def _options() -> TaggingOptions:
    # To the type checker absl's enums are any strings.
    return TaggingOptions(
        mode=_MODE.value,  # type: ignore[arg-type]
        aggregation=_AGGREGATE.value,  # type: ignore[arg-type]
        warmup=_WARMUP.value,  # type: ignore[arg-type]
        k=_K.value,
        threshold=parse_threshold(_THRESHOLD.value),
        only=_ONLY.value,
        without=_WITHOUT.value,
        start_time=StartTime(_START_TIME.value) if _START_TIME.value else None,
        format_name=_FORMAT.value,
        output=_OUTPUT.value,
        output_dir=_OUTPUT_DIR.value,
        skip_existing=_SKIP_EXISTING.value,
        jobs=_JOBS.value,
        scores_out=_SCORES_OUT.value,
        plot=_PLOT.value,
        channel=_CHANNEL.value,
        full_scale=_FULL_SCALE.value,
        stdin_rate=_STDIN_RATE.value,
        stdin_channels=_STDIN_CHANNELS.value,
        model=_MODEL.value,
    )


def _load_tagger() -> "tuple[Checkpoint, Tagger]":
    from sat_jax.find_model import find_checkpoint, random_checkpoint
    from sat_jax.runtime.program_store import default_store
    from sat_jax.tagger import Tagger

    programs = default_store(PROGRAM.report)
    if _RANDOM_WEIGHTS.value:
        checkpoint = random_checkpoint(_MODEL.value, programs=programs)
    else:
        checkpoint = find_checkpoint(_MODEL.value)
    return checkpoint, Tagger(
        checkpoint,
        chunk_seconds=_CHUNK.value,
        framing=_FRAMING.value,  # type: ignore[arg-type]
        pad_last=_PAD_LAST.value,
        dtype=_DTYPE.value,  # type: ignore[arg-type]
        embeddings=_EMBEDDINGS.value,
    )


def _load_thresholds(checkpoint: "Checkpoint") -> "np.ndarray | None":
    """Returns the model's own thresholds, if they are wanted."""
    from sat_jax.weights.thresholds_file import has_thresholds, load_thresholds

    is_wanted = _THRESHOLD.value == "auto"
    if _THRESHOLD.value is None and FORMATS[_FORMAT.value].tells_events:
        is_wanted = not _RANDOM_WEIGHTS.value and has_thresholds(_MODEL.value)
    return load_thresholds(_MODEL.value, checkpoint) if is_wanted else None


@contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """Pauses garbage collection: at start-up it takes a tenth of the time and finds nothing."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _check(arguments: Sequence[str]) -> None:
    check_options(_options(), [Recording.named(argument) for argument in arguments])
    other_mode = ("aggregate",) if _MODE.value == "stream" else ("chunk", "warmup", "framing")
    _refuse_flags(other_mode, f"--mode={_MODE.value}")
    _refuse_flags(
        ("k",) if FORMATS[_FORMAT.value].tells_events else ("rules",), f"--format={_FORMAT.value}"
    )
    if STDIN not in arguments:
        _refuse_flags(("stdin_rate", "stdin_channels"), "recordings other than -")
    if _EMBEDDINGS.value and not _SCORES_OUT.value:
        raise flags.Error("--embeddings has no effect without --scores_out: give the folder")
    if _THRESHOLD.value == "auto" and _RANDOM_WEIGHTS.value:
        raise flags.Error("--threshold=auto has no effect with --random_weights: give a number")


def _refuse_flags(names: Sequence[str], setting: str) -> None:
    for name in names:
        if FLAGS[name].present:
            raise flags.Error(f"--{name} has no effect with {setting}: leave it out")


def _stop_on_signals(recordings: Sequence[Recording]) -> None:
    """Makes SIGTERM and SIGHUP end live sound, and stop the tagging of files like Ctrl-C."""
    is_live = any(recording.is_live for recording in recordings)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) == signal.SIG_IGN:  # As nohup sets it.
            continue
        if is_live:
            end_input_on(number)
        else:
            signal.signal(number, signal.default_int_handler)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__, arguments="RECORDING...")
