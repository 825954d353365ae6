"""Tags recordings and live sound from the command line.

python infer.py street.wav
python infer.py -m SAT_T_1s -c 1.0 -k 5 *.flac
ffmpeg -i rtsp://camera -f s16le -ac 1 -ar 16000 - | python infer.py -
"""

import dataclasses
import gc
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from absl import flags

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program
from sat_jax.weights.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from sat_jax.tagger import Tagger
    from sat_jax.tagging.options import TaggingOptions
    from sat_jax.weights.checkpoint import Checkpoint

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string(
    "model",
    DEFAULT_MODEL,
    "A model's name, a checkpoint folder, or a .pt or .safetensors file.",
    short_name="m",
    flag_values=FLAGS,
)
_K = flags.DEFINE_integer(
    "k", 3, "How many tags of a chunk are shown at most.", lower_bound=1, flag_values=FLAGS
)
_CHUNK = flags.DEFINE_float(
    "chunk",
    None,
    "Seconds the model hears at a time, at least 0.16; its own length by default.",
    short_name="c",
    lower_bound=0.16,
    upper_bound=3600.0,
    flag_values=FLAGS,
)
_MODE = flags.DEFINE_enum(
    "mode",
    "stream",
    ["stream", "clip"],
    "Answer chunk by chunk, or once for a whole recording.",
    flag_values=FLAGS,
)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate",
    "mean",
    ["mean", "max", "last"],
    "Clip mode: how its pieces become one answer.",
    flag_values=FLAGS,
)
_PAD_LAST = flags.DEFINE_bool(
    "pad_last",
    None,
    "Pad a shorter last piece of a spectrogram instead of dropping it.",
    flag_values=FLAGS,
)
_WARMUP = flags.DEFINE_enum(
    "warmup",
    "silence",
    ["silence", "none"],
    "What the model remembers at the start.",
    flag_values=FLAGS,
)
_FRAMING = flags.DEFINE_enum(
    "framing",
    "chunk",
    ["chunk", "seamless"],
    "A spectrogram for each chunk, as published, or one that runs on across chunks.",
    flag_values=FLAGS,
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16"],
    "Precision of the computation; the model's by default.",
    flag_values=FLAGS,
)
_THRESHOLD = flags.DEFINE_string(
    "threshold",
    None,
    "Show only tags at least this probable: a number from 0 to 1, or auto for each class's own, "
    "which evaluate.py --save_thresholds has found.",
    flag_values=FLAGS,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "text",
    ["text", "jsonl", "csv", "srt", "audacity"],
    "Layout of the tags.",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "File for the tags instead of standard output.", flag_values=FLAGS
)
_SCORES_OUT = flags.DEFINE_string(
    "scores_out", None, "Folder for all scores, as NAME.npz.", flag_values=FLAGS
)
_PLOT = flags.DEFINE_string(
    "plot", None, "Picture of spectrogram and tags: .png, .pdf or .svg.", flag_values=FLAGS
)
_CHANNEL = flags.DEFINE_integer(
    "channel",
    None,
    "Hear only this channel, counted from 0, instead of the mean of all.",
    lower_bound=0,
    flag_values=FLAGS,
)
_STDIN_RATE = flags.DEFINE_integer(
    "stdin_rate",
    16_000,
    "Samples per second of 16-bit PCM on standard input (-).",
    lower_bound=1_000,
    upper_bound=768_000,
    flag_values=FLAGS,
)
_STDIN_CHANNELS = flags.DEFINE_integer(
    "stdin_channels",
    1,
    "Interleaved channels of standard input (-).",
    lower_bound=1,
    flag_values=FLAGS,
)
_RANDOM_WEIGHTS = flags.DEFINE_bool(
    "random_weights",
    False,
    "Use random weights for the named model, to try the program.",
    flag_values=FLAGS,
)


def main(recordings: Sequence[str]) -> bool:
    """Tags recordings; returns whether one failed."""
    _stop_on_signals()
    with _no_search_for_garbage():
        # Imported late: a wrong flag or --help should be answered at once.
        from sat_jax.tagging.options import check_options
        from sat_jax.tagging.recordings import tag_recordings

        options = _options()
        try:
            check_options(options, recordings)
        except SatError as error:
            raise flags.Error(str(error)) from error
        checkpoint, tagger = _load_tagger()
        if _THRESHOLD.value == "auto":
            from sat_jax.weights.thresholds_file import load_thresholds

            thresholds = load_thresholds(_MODEL.value, checkpoint)
            options = dataclasses.replace(options, threshold=thresholds)
        if _RANDOM_WEIGHTS.value:
            # Other formats are read by programs, which such a line would disturb.
            out = sys.stdout if _FORMAT.value == "text" else sys.stderr
            print(f"{_MODEL.value} with random weights: its tags mean nothing.", file=out)
    return bool(tag_recordings(tagger, recordings, options, report=PROGRAM.report))


def _options() -> "TaggingOptions":
    from sat_jax.tagging.options import TaggingOptions

    # To the type checker absl's enums are any strings.
    return TaggingOptions(
        mode=_MODE.value,  # type: ignore[arg-type]
        aggregation=_AGGREGATE.value,  # type: ignore[arg-type]
        warmup=_WARMUP.value,  # type: ignore[arg-type]
        k=_K.value,
        threshold=_threshold(),
        format_name=_FORMAT.value,
        output=_OUTPUT.value,
        scores_out=_SCORES_OUT.value,
        plot=_PLOT.value,
        channel=_CHANNEL.value,
        stdin_rate=_STDIN_RATE.value,
        stdin_channels=_STDIN_CHANNELS.value,
        model=_MODEL.value,
    )


def _threshold() -> float | None:
    """What --threshold says, if it is a number."""
    if _THRESHOLD.value in (None, "auto"):
        return None
    try:
        threshold = float(_THRESHOLD.value)
    except ValueError:
        threshold = math.nan
    if not 0.0 <= threshold <= 1.0:
        raise flags.Error(f"--threshold={_THRESHOLD.value} is neither auto nor from 0 to 1")
    return threshold


def _load_tagger() -> "tuple[Checkpoint, Tagger]":
    from sat_jax.runtime.files import cache_dir
    from sat_jax.runtime.program_store import ProgramStore
    from sat_jax.tagger import Tagger, find_checkpoint, random_checkpoint

    programs = ProgramStore(cache_dir() / "programs")
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
        programs=programs,
    )


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Start-up makes very many objects that stay: looking through them takes a tenth of it."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _refuse_idle_flags(recordings: Sequence[str]) -> None:
    """Refuses flags that were given and mean nothing beside what else was."""
    idle = ("aggregate",) if _MODE.value == "stream" else ("chunk", "warmup", "framing")
    for name in idle:
        if FLAGS[name].present:
            raise flags.Error(f"--{name} has no meaning with --mode={_MODE.value}")
    for name in () if "-" in recordings else ("stdin_rate", "stdin_channels"):
        if FLAGS[name].present:
            raise flags.Error(f"--{name} has no meaning without -, which is standard input")


def _check(recordings: Sequence[str]) -> None:
    _threshold()
    _refuse_idle_flags(recordings)
    if _THRESHOLD.value == "auto" and _RANDOM_WEIGHTS.value:
        raise flags.Error("--threshold=auto has no meaning with --random_weights: give a number")


def _stop_on_signals() -> None:
    """Lets SIGTERM and SIGHUP end a live stream as Ctrl-C does: its output is kept."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
