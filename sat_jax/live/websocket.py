"""The WebSocket /v1/stream: one stream of a client, see `sat_jax.live.protocol`."""

import asyncio
import contextlib
import math
import time
from typing import Any

import msgspec
import numpy as np
from aiohttp import WSMessage, WSMsgType, web

from sat_jax.errors import SatError, one_line
from sat_jax.events import EventMessage
from sat_jax.live import protocol
from sat_jax.live.engine import Overloaded
from sat_jax.live.hub import Hub
from sat_jax.live.outputs import Closed, LostSound, Marked, Output, Scores
from sat_jax.live.protocol import Abort, Finish, Mark, Start, Want, parse_message
from sat_jax.live.session import WEBSOCKET, Session

START_TIMEOUT = 10.0
"""Seconds in which a client must begin."""

_QUEUE = 1000
"""Messages that wait for a client that does not read."""

_STEP = 0.05
"""Seconds after which a recording looks again whether it may send more."""


_FATAL = (protocol.WRONG_FRAME, protocol.TOO_BIG, protocol.BAD_START)
"""Codes after which a stream does not wait for its client."""


class Refusal(Exception):
    """Ends a connection with a close code and a message."""

    def __init__(self, code: int, error: str) -> None:
        """Stores both."""
        super().__init__(error)
        self.code = code


class StreamSocket:
    """A connection of a client."""

    def __init__(self, hub: Hub, socket: web.WebSocketResponse, *, idle_timeout: float) -> None:
        """Starts a connection.

        Args:
          hub: has the streams.
          socket: was prepared.
          idle_timeout: seconds without a message after which the connection ends.
        """
        self._hub, self._socket, self._idle_timeout = hub, socket, idle_timeout
        self._outbox = asyncio.Queue[str | bytes | None](_QUEUE)
        self._want = Want()
        self._session: Session | None = None
        self._heard_at = time.monotonic()
        self._closing: asyncio.Future[bool] | None = None

    async def run(self, check_token: Any) -> None:
        """Serves the client until it or the stream ends.

        Args:
          check_token: whether a token lets a client in.
        """
        writer = asyncio.create_task(self._write())
        code, message = 1000, ""
        try:
            start = await self._receive_start()
            try:
                is_known = check_token(start.token)
            except web.HTTPTooManyRequests as error:
                raise Refusal(protocol.REFUSED, (error.text or "").strip()) from error
            if not is_known:
                raise Refusal(protocol.REFUSED, "token: wrong or missing: give the server's token")
            self._begin(start)
            await self._receive_unless_idle(start)
        except Refusal as refusal:
            code, message = refusal.code, str(refusal)
            if code in _FATAL and self._session is not None:
                self._hub.close(self._session)
        except ConnectionError:
            pass
        finally:
            await self._end(writer, code, message)

    def _tell(self, message: dict[str, Any]) -> None:
        self._put(msgspec.json.encode(message).decode())

    def _put(self, data: str | bytes) -> None:
        try:
            self._outbox.put_nowait(data)
        except asyncio.QueueFull:
            # It does not read. The stream waits for it to come back.
            self._detach()
            self._close_soon(protocol.OVERLOADED)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (data := await self._outbox.get()) is not None:
                if isinstance(data, str):
                    await self._socket.send_str(data)
                else:
                    await self._socket.send_bytes(data)

    async def _receive_start(self) -> Start:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                message = await self._socket.receive()
        except TimeoutError:
            raise Refusal(
                protocol.NO_START, f"no start within {START_TIMEOUT:g} s: send one first"
            ) from None
        if message.type is not WSMsgType.TEXT:
            self._check_open(message)
            raise Refusal(protocol.BAD_START, "the first message is not a start: send one first")
        try:
            start = parse_message(message.data)
        except SatError as error:
            raise Refusal(protocol.BAD_START, str(error)) from error
        if not isinstance(start, Start):
            raise Refusal(protocol.BAD_START, "the first message is not a start: send one first")
        return start

    def _begin(self, start: Start) -> None:
        self._want = start.want
        if start.resume:
            session = self._hub.come_back(start.resume)
            if session is None:
                raise Refusal(
                    protocol.UNKNOWN_RESUME, "resume: no such stream waits: start without it"
                )
            if (session.rate, session.channels) != (start.rate, start.channels):
                if not session.has_client:
                    self._hub.leave(session)
                raise Refusal(
                    protocol.BAD_START,
                    f"rate={start.rate}, channels={start.channels}: the stream began with "
                    f"{session.rate} and {session.channels}",
                )
        else:
            try:
                session = self._hub.open(
                    rules=start.rules,
                    name=start.name,
                    source=WEBSOCKET,
                    rate=start.rate,
                    channels=start.channels,
                    pace=start.pace,
                    phase=start.phase,
                    began=start.time,
                )
            except Overloaded as error:
                raise Refusal(protocol.OVERLOADED, str(error)) from error
            except SatError as error:
                raise Refusal(protocol.BAD_START, str(error)) from error
        self._session = session
        session.set_client(self)
        self._tell(self._started(session))
        if start.resume:
            # What it may have missed.
            for output in list(session.history):
                if _end_of(output) > start.position / session.rate:
                    self.hear(output)

    def _started(self, session: Session) -> dict[str, Any]:
        tagger, engine = self._hub.tagger, self._hub.engine
        return {
            "type": "started",
            "version": protocol.VERSION,
            "session": session.id,
            "resume": session.token,
            "position": session.received,
            "model": tagger.source,
            "hop": engine.hop,
            "rate": engine.rate,
            "classes": len(tagger.labels),
            "chunk": engine.hop / engine.rate,
            "capacity": {"used": engine.used, "of": engine.capacity},
        }

    async def _receive_unless_idle(self, start: Start) -> None:
        """Receives until the stream ends, or nothing comes for a while."""
        # One timer: a timeout for each message would take a tenth of a busy server's time.
        receiving = asyncio.create_task(self._receive_all(start))
        waiting = asyncio.create_task(self._wait_until_idle())
        try:
            await asyncio.wait((receiving, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                raise Refusal(
                    protocol.IDLE, f"nothing came for {self._idle_timeout:g} s: send keepalive"
                )
            receiving.result()
        finally:
            receiving.cancel()
            waiting.cancel()
            await asyncio.gather(receiving, waiting, return_exceptions=True)

    async def _wait_until_idle(self) -> None:
        while (left := self._heard_at + self._idle_timeout - time.monotonic()) > 0.0:
            await asyncio.sleep(min(left, 1.0))

    async def _receive_all(self, start: Start) -> None:
        session = self._session
        assert session is not None
        dtype = np.dtype("<i2" if start.format == "s16le" else "<f4")
        while not session.ended.is_set():
            message = await self._socket.receive()
            self._heard_at = time.monotonic()
            if message.type is WSMsgType.BINARY:
                try:
                    session.push(_to_frames(message.data, dtype, session.channels))
                except SatError as error:
                    raise Refusal(protocol.WRONG_FRAME, str(error)) from error
                while session.pace == "asap" and session.is_waiting:
                    await asyncio.sleep(_STEP)
                    self._heard_at = time.monotonic()
                continue
            if message.type is not WSMsgType.TEXT:
                self._check_open(message)
                raise Refusal(protocol.WRONG_FRAME, "a message is neither text nor sound")
            if await self._obey(message.data, session):
                return

    async def _obey(self, text: str, session: Session) -> bool:
        """Does what a message asks for; returns whether the stream ends."""
        try:
            asked = parse_message(text)
        except SatError as error:
            self._tell({"type": "error", "code": "message", "message": str(error), "fatal": False})
            return False
        if isinstance(asked, Mark):
            session.mark(asked.id)
        elif isinstance(asked, Abort):
            self._hub.close(session)
            return True
        elif isinstance(asked, Finish):
            session.finish()
            self._heard_at = math.inf  # It waits for the last scores.
            await session.ended.wait()
            return True
        elif isinstance(asked, Start):
            raise Refusal(protocol.BAD_START, "a second start: open another connection")
        return False

    def _check_open(self, message: WSMessage) -> None:
        """Raises an error if the client has gone, or sent what the library refuses."""
        if getattr(message.data, "code", None) == protocol.TOO_BIG:
            raise Refusal(
                protocol.TOO_BIG, f"a message of more than {protocol.MAX_SOUND_BYTES} bytes"
            )
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            raise ConnectionResetError

    def hear(self, output: Output) -> None:
        """Tells the client what it wants to know."""
        want, session = self._want, self._session
        assert session is not None
        rate = session.rate
        if isinstance(output, Scores):
            if want.scores == "all":
                self._put(output.as_bytes())
            elif want.scores == "top":
                self._tell(output.as_json(want, self._hub.selection))
            self._tell({"type": "ack", "position": session.acknowledged})
        elif isinstance(output, EventMessage):
            if want.events:
                self._tell(output.as_json())
        elif isinstance(output, LostSound):
            lost = {"from": round(output.start * rate), "reason": output.reason}
            samples = round((output.end - output.start) * rate)
            self._tell({"type": "gap", "samples": samples} | lost)
        elif isinstance(output, Marked):
            self._tell({"type": "marked", "id": output.id})
        elif isinstance(output, Closed):
            end = {"position": session.received, "chunks": output.chunks}
            self._tell({"type": "closed"} | end)

    def lose_stream(self) -> None:
        """Ends this connection because another one took its stream."""
        self._session = None
        self._close_soon(protocol.RESUMED_ELSEWHERE)

    def _close_soon(self, code: int) -> None:
        self._closing = asyncio.ensure_future(self._socket.close(code=code))

    def _detach(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.set_client(None)
            if session.received:
                self._hub.leave(session)
            else:  # Nothing is lost.
                self._hub.close(session)

    async def _end(self, writer: asyncio.Task[None], code: int, message: str) -> None:
        if message:
            self._tell_error(code, message)
        self._detach()
        with contextlib.suppress(asyncio.QueueFull):
            self._outbox.put_nowait(None)
        # A client that does not read must not keep its connection.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await writer
        writer.cancel()
        # A reason is short, and no character of it may be cut.
        reason = message.encode()[:120].decode(errors="ignore")
        await self._socket.close(code=code, message=reason.encode())

    def _tell_error(self, code: int, message: str) -> None:
        error = {"type": "error", "code": code, "message": one_line(message), "fatal": True}
        with contextlib.suppress(asyncio.QueueFull):
            self._outbox.put_nowait(msgspec.json.encode(error).decode())


def _to_frames(data: bytes, dtype: np.dtype[Any], channels: int) -> np.ndarray:
    """Returns float32 [s, channels].

    Raises:
      Refusal: the bytes are no whole number of samples, or too many.
    """
    size = dtype.itemsize * channels
    if len(data) % size:
        raise Refusal(
            protocol.WRONG_FRAME, f"{len(data)} bytes are no whole samples of {size} bytes"
        )
    frames = np.frombuffer(data, dtype).reshape(-1, channels)
    if dtype.kind == "i":
        return frames.astype(np.float32) / np.float32(32_768)
    return frames.astype(np.float32)


def _end_of(output: Output) -> float:
    """Returns until when an output tells, in seconds; infinity for one without times."""
    return getattr(output, "end", float("inf"))
