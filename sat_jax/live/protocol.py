"""Messages of the WebSocket /v1/stream: JSON text controls, binary messages are sound.

A client begins with `Start`. Then it sends binary messages of whole interleaved samples, at most 64
KiB each, and the other messages of `CLIENT`. The server's messages are those of `outputs`.
"""

from typing import Literal

import msgspec

from sat_jax.config import MAX_RATE, MIN_RATE
from sat_jax.errors import SatError
from sat_jax.live.stream import Pace

VERSION = 1
MAX_SOUND_BYTES = 1 << 16
MAX_TIME = 1e11
"""Seconds since 1970. Dates have years of four digits."""

SampleFormat = Literal["s16le", "f32le"]
Phase = Literal["exact", "spread"]
"""Whether a stream's answers equal those of a file, or it begins with up to a hop of silence."""

CLOSED_BY_SERVER = 1001
WRONG_FRAME, REFUSED, TOO_BIG, OVERLOADED = 1003, 1008, 1009, 1013
BAD_START, NO_START, IDLE, RESUMED_ELSEWHERE, UNKNOWN_RESUME = 4000, 4001, 4002, 4003, 4004


class Want(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a client wants to be told."""

    scores: Literal["none", "top", "all"] = "top"
    k: int = 5
    events: bool = True
    level: bool = True


class Start(
    msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="start"
):
    """Begins a stream, or takes up one that was interrupted."""

    version: int = VERSION
    rate: int = 16_000
    channels: int = 1
    format: SampleFormat = "s16le"
    name: str = ""
    pace: Pace = "realtime"
    phase: Phase = "exact"
    want: Want = msgspec.field(default_factory=Want)
    rules: str = "default"
    time: float | None = None
    resume: str = ""
    position: int = 0
    token: str = ""

    def check(self) -> None:
        """Checks ranges.

        Raises:
          SatError: a value is out of range.
        """
        if self.version != VERSION:
            raise SatError(f"version={self.version}: this server speaks version {VERSION}")
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise SatError(f"rate={self.rate}: use {MIN_RATE} to {MAX_RATE} Hz")
        if not 1 <= self.channels <= 32:
            raise SatError(f"channels={self.channels}: use 1 to 32")
        if not 1 <= self.want.k <= 1000:
            raise SatError(f"want.k={self.want.k}: use 1 to 1000")
        if self.time is not None and not 0.0 <= self.time <= MAX_TIME:
            raise SatError(f"time={self.time}: use seconds since 1970")
        if self.position < 0:
            raise SatError(f"position={self.position}: use samples, 0 or more")
        if len(self.name) > 64 or not self.name.isprintable():
            raise SatError("name: use at most 64 printable characters")


class Keepalive(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="keepalive"):
    """Keeps a stream without sound open."""


class Mark(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="mark"):
    """Asks for a "marked" after the scores of all chunks that were sent before."""

    id: str


class Finish(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="finish"):
    """Ends the stream; what is left is scored."""


class Abort(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="abort"):
    """Ends the stream at once."""


ClientMessage = Start | Keepalive | Mark | Finish | Abort

_DECODER = msgspec.json.Decoder(ClientMessage)


def parse_message(text: str) -> ClientMessage:
    """Parses a client's text message.

    Raises:
      SatError: it is not JSON, of an unknown type, or has unknown fields or wrong values.
    """
    try:
        message = _DECODER.decode(text)
    except msgspec.MsgspecError as error:
        raise SatError(f"message not understood: {error}") from error
    if isinstance(message, Start):
        message.check()
    return message
