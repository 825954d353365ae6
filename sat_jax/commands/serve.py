"""Serves live tagging: microphones, cameras and clients, events, a page.

sat-jax serve
sat-jax serve --source garden=rtsp://192.168.1.20/stream --source hall=mic:
sat-jax serve --config live.toml

Then open http://localhost:8421. Flags win over the file. SIGHUP reads rules and sources of the file
again; without a file, it ends the server. After SIGTERM, clients that come back to the next server
lose nothing.
"""

import asyncio
import functools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from sat_jax.commands.tag_flags import define_chunk_flag, define_model_flag
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments

if TYPE_CHECKING:
    from sat_jax.live.config import LiveFile

FLAGS = flags.FlagValues()

_MODEL, _CHUNK = define_model_flag(FLAGS), define_chunk_flag(FLAGS)
_CONFIG = flags.DEFINE_string(
    "config", None, "File of settings, see docs/serving.md.", flag_values=FLAGS
)
_LISTEN = flags.DEFINE_string(
    "listen", None, "HOST:PORT. Default: 127.0.0.1:8421.", flag_values=FLAGS
)
_SOURCE = flags.DEFINE_multi_string(
    "source",
    [],
    "NAME=URL of a camera (rtsp://, http://), a microphone (mic: or mic:NAME) or raw sound "
    "(tcp://). Repeat the flag for more.",
    flag_values=FLAGS,
)
_MIC = flags.DEFINE_bool(
    "mic", False, "Listen to the default microphone: as --source mic=mic:.", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Serves until a signal stops it."""
    # The first process of a container ignores signals that have no handler. The server sets its
    # own one later.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        from sat_jax.live.serve import Server, check_settings
    except ModuleNotFoundError as error:
        raise SatError(f"{error.name} is not installed: pip install 'sat-jax[live]'") from error
    config = Path(_CONFIG.value).absolute() if _CONFIG.value else None
    settings = _settings(config)
    check_settings(settings)
    from sat_jax.find_model import find_checkpoint
    from sat_jax.tagger import Tagger
    from sat_jax.weights.thresholds_file import has_thresholds, load_thresholds

    checkpoint = find_checkpoint(settings.model)
    tagger = Tagger(checkpoint, chunk_seconds=settings.chunk)
    has_own = has_thresholds(settings.model)
    thresholds = load_thresholds(settings.model, checkpoint) if has_own else None
    read_again = functools.partial(_settings, config) if config else None
    server = Server(
        tagger, settings, thresholds=thresholds, read_again=read_again, report=PROGRAM.report
    )
    asyncio.run(server.run())
    return False


def _settings(config: Path | None) -> "LiveFile":
    """Returns the settings of the file, changed by flags."""
    from msgspec.structs import replace

    from sat_jax.live.config import LiveFile, SourceTable, read_live_file

    settings = read_live_file(config) if config else LiveFile()
    changes: dict[str, Any] = {}
    if FLAGS["model"].present or not settings.model:
        changes["model"] = _MODEL.value
    if _CHUNK.value is not None:
        changes["chunk"] = _CHUNK.value
    if _LISTEN.value:
        changes["server"] = replace(settings.server, listen=_LISTEN.value)
    sources = {name: SourceTable(url=url) for name, url in _sources()}
    return replace(settings, **changes, sources=settings.sources | sources)


def _sources() -> list[tuple[str, str]]:
    found = [("mic", "mic:")] if _MIC.value else []
    for text in _SOURCE.value:
        name, equals, url = text.partition("=")
        if not (name and equals and url):
            raise flags.Error(f"--source={text}: use NAME=URL, such as garden=rtsp://192.168.1.20/")
        if name in dict(found):
            raise flags.Error(
                f"--source={text}: there is a source {name} already: choose another name"
            )
        found.append((name, url))
    return found


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name sources with --source NAME=URL")
    _sources()


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
