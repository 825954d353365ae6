"""Files that clients upload to be tagged."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from sat_jax.audio import read_blocks
from sat_jax.errors import SatError
from sat_jax.events import EventMessage
from sat_jax.live.engine import Overloaded
from sat_jax.live.hub import Hub
from sat_jax.live.outputs import Output, Scores
from sat_jax.live.protocol import Want
from sat_jax.live.session import Session

_STEP = 0.02
"""Seconds after which a full stream is looked at again."""

_PATIENCE = 10.0
"""Seconds that an upload may take, beside those for its bytes."""

_SLOWEST = 10_000
"""Bytes a second. Slower uploads would keep others out."""

MALFORMED = (ValueError, HttpProcessingError, web.RequestPayloadError)
"""Errors of bodies that are not what their headers say."""

_HEADERS = 1 << 16
"""Bytes that a multipart body may be longer than its file."""


class Uploads:
    """Limits how many files are received and tagged at a time."""

    def __init__(self, *, received: int = 32, tagged: int = 4) -> None:
        """Stores both numbers."""
        self._free, self.tagging = received, asyncio.Semaphore(tagged)

    @contextlib.contextmanager
    def receive(self) -> Iterator[None]:
        """Lets a file come.

        Raises:
          Overloaded: too many come already.
        """
        if not self._free:
            raise Overloaded("too many uploads at a time: try again")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


async def tag_upload(
    hub: Hub, request: web.Request, uploads: Uploads, *, max_bytes: int
) -> dict[str, Any]:
    """Tags a file: the body of a request, or its first part.

    Args:
      hub: has the streams.
      request: with the queries k, from 1, and events, 0 or 1.
      uploads: limits their number.
      max_bytes: of the file.

    Returns:
      JSON-ready: the chunks with their tags, and the events.

    Raises:
      SatError: the file is not sound, or `Overloaded`.
      web.HTTPException: the file is too large, or a query is wrong.
    """
    k = parse_k(request, 5)
    with (
        uploads.receive(),
        tempfile.NamedTemporaryFile(prefix="sat-jax-", suffix=".upload") as file,
    ):
        try:
            name = await _receive(request, file, max_bytes)
        except MALFORMED as error:
            raise web.HTTPBadRequest(text="the body is malformed: send a whole file\n") from error
        file.flush()
        try:
            async with uploads.tagging:
                return await _tag_file(hub, Path(file.name), name, k)
        except SatError as error:
            raise type(error)(str(error).replace(file.name, name)) from None


def parse_k(request: web.Request, default: int) -> int:
    """Returns the query k, the number of tags of a chunk.

    Raises:
      web.HTTPBadRequest: it is not from 1 to 1000.
    """
    k = request.query.get("k", str(default))
    if not (k.isascii() and k.isdecimal() and len(k) <= 4 and 1 <= int(k) <= 1000):
        raise web.HTTPBadRequest(text="k: use 1 to 1000\n")
    return int(k)


async def _receive(request: web.Request, file: IO[bytes], max_bytes: int) -> str:
    """Writes the upload to a file, and returns its name."""
    if (request.content_length or 0) > max_bytes + _HEADERS:
        raise web.HTTPRequestEntityTooLarge(
            max_size=max_bytes, actual_size=request.content_length or 0
        )
    name, body = "upload", _pieces(request.content)
    if request.content_type.startswith("multipart/"):
        part = await (await request.multipart()).next()
        if not isinstance(part, BodyPartReader) or part.filename is None:
            raise web.HTTPBadRequest(text="the first part is not a file\n")
        name, body = part.filename, _parts(part)
    size, start = 0, asyncio.get_running_loop().time()
    while piece := await _next(body, start + _PATIENCE + size / _SLOWEST):
        size += len(piece)
        if size > max_bytes:
            raise web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=size)
        file.write(piece)
    if not size:
        raise web.HTTPBadRequest(text="no file: send one as the body, or as multipart/form-data\n")
    return name


async def _next(body: AsyncIterator[bytes], deadline: float) -> bytes:
    """Returns the next piece of a body; b"" at its end."""
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(body, b"")
    except TimeoutError:
        text = f"the file comes too slowly: send at least {_SLOWEST // 1000} kB a second\n"
        raise web.HTTPRequestTimeout(text=text) from None


async def _pieces(content: Any) -> AsyncIterator[bytes]:
    async for piece in content.iter_chunked(1 << 16):
        yield piece


async def _parts(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(1 << 16):
        yield piece


async def _tag_file(hub: Hub, path: Path, name: str, k: int) -> dict[str, Any]:
    session = hub.open(name=name, source="upload", rate=hub.engine.rate, pace="asap")
    want, chunks, events = Want(k=k), [], []

    def hear(output: Output) -> None:
        if isinstance(output, Scores):
            message = output.as_json(want, hub.selection)
            chunks.append({key: message[key] for key in ("start", "end", "level", "top")})
        elif isinstance(output, EventMessage) and output.kind == "end":
            events.append(output.as_json())

    session.listeners.append(hear)
    try:
        await _feed(session, path, hub.engine.rate)
    except BaseException:
        hub.close(session)
        raise
    session.finish()
    await session.ended.wait()
    return {"file": name, "seconds": session.seconds, "chunks": chunks, "events": events}


async def _feed(session: Session, path: Path, rate: int) -> None:
    """Pushes the samples of a file while they are decoded in a thread."""
    blocks = read_blocks(path, sample_rate=rate)
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        session.push(block)
        while session.is_waiting:
            await asyncio.sleep(_STEP)
