r"""Listens to a microphone, a camera or a stream, and shows what it hears.

sat-jax listen
sat-jax listen --mic "USB Audio"
sat-jax listen --url rtsp://user:password@camera/stream
sat-jax listen --url 'tcp://0.0.0.0:9000?rate=16000&channels=1&listen=1'
sat-jax listen --url rtsp://camera/stream --rules home.toml --events >> events.jsonl
arecord -t wav -f S16_LE -r 48000 | sat-jax listen -

On a terminal it draws the level, the tags and the events; into a pipe or a file it writes the tags
of each chunk. A camera or microphone that is lost is looked for until it is back. Ctrl-C and
SIGTERM end it with exit code 0. Sound is never stored.
"""

import os
import secrets
import signal
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from absl import flags

from sat_jax.commands.tag_flags import define_tag_flags, parse_threshold
from sat_jax.runtime.command_line import Program

if TYPE_CHECKING:
    import numpy as np

    from sat_jax.live.sources import Source
    from sat_jax.weights.checkpoint import Checkpoint

FLAGS = flags.FlagValues()

_STDIN = "-"

_MODEL, _K, _CHUNK = define_tag_flags(FLAGS)
_MIC = flags.DEFINE_string(
    "mic",
    None,
    "The microphone, by its name or a part of it, from --list_mics. Default: the system's.",
    flag_values=FLAGS,
)
_URL = flags.DEFINE_string(
    "url",
    None,
    "A camera or stream instead: rtsp://, rtsps://, http://, https://, or raw samples over "
    "tcp://HOST:PORT?rate=16000&channels=1; with &listen=1, whoever connects to this port sends "
    "them.",
    flag_values=FLAGS,
)
_CHANNEL = flags.DEFINE_integer(
    "channel",
    None,
    "Hear only this channel, counted from 0. Default: the mean of all channels.",
    lower_bound=0,
    flag_values=FLAGS,
)
_THRESHOLD = flags.DEFINE_string(
    "threshold",
    None,
    "Show only tags of at least this probability, from 0 to 1. auto uses each class's own "
    "threshold. Events have theirs in --rules.",
    flag_values=FLAGS,
)
_RULES = flags.DEFINE_string(
    "rules",
    None,
    "A TOML file with the table [rules.default]: which sounds are events, and when. Default: all "
    "classes but silence and kinds of background, with the model's own thresholds.",
    flag_values=FLAGS,
)
_EVENTS = flags.DEFINE_bool(
    "events", False, "Write events as JSON lines, instead of tags.", flag_values=FLAGS
)
_LIST_MICS = flags.DEFINE_bool(
    "list_mics", False, "List the microphones, and end.", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Runs the command; returns whether anything failed."""
    if _LIST_MICS.value:
        _list_microphones()
        return False
    source, name = _open_source(arguments)
    # Imported late, so that --help and wrong flags are answered at once.
    from sat_jax.events import Watch, watched_sounds
    from sat_jax.events.rules_file import read_rules
    from sat_jax.find_model import find_checkpoint
    from sat_jax.live.heard_stream import HeardStream
    from sat_jax.live.listener import listen
    from sat_jax.live.printed_lines import EventLines, TagLines
    from sat_jax.live.terminal_view import TerminalView
    from sat_jax.runtime.files import open_output
    from sat_jax.tagger import Tagger
    from sat_jax.tags import TagSelection

    watch = read_rules(_RULES.value).named() if _RULES.value else Watch()
    checkpoint = find_checkpoint(_MODEL.value)
    own = _own_thresholds(checkpoint)
    sounds = watched_sounds(watch, checkpoint.labels, own)
    threshold = own if _THRESHOLD.value == "auto" else parse_threshold(_THRESHOLD.value)
    selection = TagSelection(labels=checkpoint.labels, k=_K.value, threshold=threshold)
    tagger = Tagger(checkpoint, chunk_seconds=_CHUNK.value)
    tagger.prepare()  # A microphone does not wait while programs are compiled.
    stream = HeardStream(tagger, sounds, session=secrets.token_hex(4))
    _stop_on_signals(source)
    with open_output(None) as output:
        if _EVENTS.value:
            listen(source, stream, EventLines(output, name, PROGRAM.report))
        elif output.isatty() and os.environ.get("TERM") != "dumb":  # That can't draw.
            chunk = tagger.framing.hop / tagger.config.frontend.sample_rate
            model = os.path.basename(os.path.normpath(_MODEL.value))
            title = f"{name}: {model}, chunks of {chunk:g} s; Ctrl-C ends it"
            with TerminalView(output, title=title, selection=selection, heard=stream) as view:
                listen(source, stream, view)
        else:
            lines = TagLines(output, name, PROGRAM.report, selection=selection, heard=stream)
            listen(source, stream, lines)
    return False


def _open_source(arguments: Sequence[str]) -> "tuple[Source, str]":
    """Returns the source and its name for messages."""
    from sat_jax.live.sources import open_source, shown_address
    from sat_jax.live.sources.microphone import find_microphone

    if arguments:
        return open_source(_STDIN, channel=_CHANNEL.value), "standard input"
    if _URL.value:
        return open_source(_URL.value, channel=_CHANNEL.value), shown_address(_URL.value)
    # A server waits for a microphone; who sits before this program wants to know at once.
    found = find_microphone(_MIC.value or "")
    return open_source(f"mic:{_MIC.value or ''}", channel=_CHANNEL.value), f"mic:{found.name}"


def _list_microphones() -> None:
    from sat_jax.live.sources.microphone import find_microphone, list_microphones

    find_microphone("")  # Tells if there is none.
    for each in list_microphones():
        default = "  (default)" if each.is_default else ""
        print(f"{each.name}  {each.rate} Hz, {each.channels} channels{default}")


def _own_thresholds(checkpoint: "Checkpoint") -> "np.ndarray | None":
    from sat_jax.weights.thresholds_file import has_thresholds, load_thresholds

    if _THRESHOLD.value == "auto" or has_thresholds(_MODEL.value):
        return load_thresholds(_MODEL.value, checkpoint)
    return None


def _stop_on_signals(source: "Source") -> None:
    """Makes Ctrl-C, SIGTERM and SIGHUP end the source; a second signal stops at once."""
    numbers = [
        number
        for name in ("SIGINT", "SIGTERM", "SIGHUP")
        if (number := getattr(signal, name, None)) is not None
        and signal.getsignal(number) != signal.SIG_IGN  # As nohup sets it.
    ]

    def stop(number: int, frame: FrameType | None) -> None:
        source.stop()
        for each in numbers:
            signal.signal(each, signal.default_int_handler)

    for number in numbers:
        signal.signal(number, stop)


def _check(arguments: Sequence[str]) -> None:
    parse_threshold(_THRESHOLD.value)
    if arguments and list(arguments) != [_STDIN]:
        raise flags.Error(f"unexpected argument {arguments[0]}: give a file to sat-jax tag")
    given = [name for name in ("mic", "url") if FLAGS[name].present]
    given = [*(f"--{name}" for name in given), *arguments]
    if len(given) > 1:
        raise flags.Error(f"{given[0]} and {given[1]}: give one source")
    for name in ("k", "threshold"):
        if _EVENTS.value and FLAGS[name].present:
            raise flags.Error(f"--{name} has no effect with --events: leave it out, or use --rules")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__, arguments="[-]")
