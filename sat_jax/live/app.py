"""The server's HTTP side: page, streams, uploads, events, figures."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from sat_jax.errors import SatError
from sat_jax.live import protocol
from sat_jax.live.engine import Overloaded
from sat_jax.live.hub import Hub
from sat_jax.live.metrics import Metrics
from sat_jax.live.security import Guard, shown
from sat_jax.live.session import Session
from sat_jax.live.source_watch import SourceWatch
from sat_jax.live.stream import decibels
from sat_jax.live.uploads import MALFORMED, Uploads, parse_k, tag_upload
from sat_jax.live.watch import Watcher
from sat_jax.live.websocket import StreamSocket
from sat_jax.web import page_files

_OPEN = ("/healthz", "/readyz", "/login")
"""Paths for which nobody needs a token."""

_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)

_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}

_MAX_FORM = 1 << 12
"""Bytes of a form with a token."""

_STILL_HERE = 15.0
"""Seconds without events after which a comment keeps a connection open."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class App:
    """The routes of a server.

    Attributes:
      is_ready: whether /readyz says so.
    """

    def __init__(
        self,
        hub: Hub,
        guard: Guard,
        *,
        sources: SourceWatch,
        idle_timeout: float = 30.0,
        max_upload: int = 100 << 20,
    ) -> None:
        """Stores what the routes need.

        Args:
          hub: has the streams.
          guard: decides who may use the server.
          sources: cameras and microphones.
          idle_timeout: see `StreamSocket`.
          max_upload: the most bytes of a file that is tagged.
        """
        self.is_ready = True
        self._hub, self._guard, self._sources = hub, guard, sources
        self._idle_timeout, self._max_upload = idle_timeout, max_upload
        self._metrics = Metrics(hub)
        self._sockets: set[web.WebSocketResponse] = set()
        self._followers: set[asyncio.Task[Any]] = set()
        self._uploads = Uploads()
        # Without the model these tell nothing: they are for everyone.
        self._files = page_files(Path(__file__).parent / "web")

    def make(self) -> web.Application:
        """Returns the application."""
        app = web.Application(
            middlewares=[self._protect], client_max_size=self._max_upload + (1 << 16)
        )
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/v1/stream", self._stream),
                web.get("/v1/events", self._events),
                web.get("/v1/streams", self._streams),
                web.get("/v1/streams/{id}", self._one_stream),
                web.get("/v1/streams/{id}/watch", self._watch),
                web.get("/v1/model", self._model),
                web.post("/v1/tag", self._tag),
                web.patch("/v1/sources/{name}", self._switch_source),
                web.get("/metrics", self._figures),
                web.get("/healthz", self._health),
                web.get("/readyz", self._readiness),
                web.get("/login", self._page),
                web.post("/login", self._log_in),
                web.get("/{file}", self._file),
            ]
        )
        app.on_shutdown.append(self._disconnect)
        return app

    @web.middleware
    async def _protect(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path not in ("/healthz", "/readyz"):
            self._guard.check_origin(request)
        # The WebSocket checks for itself: a browser gives its token in the first message.
        is_open = request.path in (*_OPEN, "/", "/v1/stream") or request.path[1:] in self._files
        if not is_open and not self._guard.is_known(request):
            raise web.HTTPUnauthorized(
                text="give the token: Authorization: Bearer TOKEN\n",
                headers={"WWW-Authenticate": "Bearer"},
            )
        try:
            response = await handler(request)
        except web.HTTPException as error:
            _protect_browser(error)
            raise
        if not response.prepared:
            _protect_browser(response)
        return response

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return self._show("index.html" if self._guard.is_known(request) else "login.html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["file"] not in self._files:
            raise web.HTTPNotFound(text="no such page\n")
        return self._show(request.match_info["file"])

    def _show(self, name: str, *, status: int = 200) -> web.Response:
        return web.Response(
            body=self._files[name],
            status=status,
            content_type=_TYPES[Path(name).suffix],
            charset="utf-8",
            headers={"Cache-Control": "no-cache"},
        )

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        try:
            form = await request.clone(client_max_size=_MAX_FORM).post()
            token = str(form.get("token", ""))
        except (*MALFORMED, LookupError):
            token = ""
        if not self._guard.check_token(request, token):
            response = self._show("login.html", status=401)
            response.body = self._files["login.html"].replace(b'alert" hidden', b'alert"')
            return response
        done = web.Response(status=303, headers={"Location": "./"})
        self._guard.log_in(done, is_secure=request.secure)
        return done

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not self.is_ready:
            raise web.HTTPServiceUnavailable(text="the server stops\n")
        socket = web.WebSocketResponse(
            # The library refuses messages of this size, not only larger ones.
            max_msg_size=protocol.MAX_SOUND_BYTES + 1,
            compress=False,
            timeout=2.0,
        )
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            client = StreamSocket(self._hub, socket, idle_timeout=self._idle_timeout)
            await client.run(lambda token: self._guard.is_known(request, token))
        finally:
            self._sockets.discard(socket)
        return socket

    async def _disconnect(self, app: web.Application) -> None:
        for follower in self._followers:
            follower.cancel()
        # Some may not answer: all have the same time.
        code, message = protocol.CLOSED_BY_SERVER, b"the server stops"
        closing = [socket.close(code=code, message=message) for socket in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)

    @contextmanager
    def _follow(self) -> Iterator[None]:
        """Lets a request last until its client goes or the server stops."""
        task = asyncio.current_task()
        assert task is not None
        self._followers.add(task)
        try:
            yield
        finally:
            self._followers.discard(task)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        stream, label = request.query.get("stream"), request.query.get("class")
        last = request.headers.get("Last-Event-ID", request.query.get("after", ""))
        if last and not (last.isascii() and last.isdecimal() and len(last) < 19):
            raise web.HTTPBadRequest(text=f"Last-Event-ID: {shown(last)} is no number\n")
        response = await _begin_events(request)
        after = int(last) if last else None
        with self._follow(), self._hub.feed.subscribe(after) as subscription:
            await response.write(b": events\n\n")
            while not subscription.is_late and self.is_ready:
                try:
                    async with asyncio.timeout(_STILL_HERE):
                        entry = await subscription.get()
                except TimeoutError:
                    await response.write(b": still here\n\n")
                    continue
                wanted = stream in (None, entry.stream) and label in (None, entry.message["label"])
                if wanted:
                    data = json.dumps(entry.message)
                    await response.write(f"id: {entry.number}\ndata: {data}\n\n".encode())
        return response

    async def _streams(self, request: web.Request) -> web.StreamResponse:
        sessions = [self._describe(session) for session in self._hub.sessions.values()]
        return web.json_response({"streams": sessions, "sources": self._sources.describe()})

    async def _one_stream(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._describe(self._find(request)))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        session = self._find(request)
        k = parse_k(request, 10)
        response = await _begin_events(request)
        with self._follow(), Watcher(session, self._hub.selection, k=k) as watcher:
            while not watcher.is_over and self.is_ready:
                try:
                    async with asyncio.timeout(_STILL_HERE):
                        message = await watcher.get()
                except TimeoutError:
                    await response.write(b": still here\n\n")
                    continue
                await response.write(f"data: {json.dumps(message)}\n\n".encode())
        return response

    def _find(self, request: web.Request) -> Session:
        """Returns the stream of this id, or else the newest of this name."""
        wanted = request.match_info["id"]
        if wanted in self._hub.sessions:
            return self._hub.sessions[wanted]
        for session in reversed(self._hub.sessions.values()):
            if wanted == session.name:
                return session
        raise web.HTTPNotFound(text=f"no stream {shown(wanted)}\n")

    def _describe(self, session: Session) -> dict[str, Any]:
        last = session.last
        described: dict[str, Any] = {"id": session.id, "name": session.name}
        described |= {"source": session.source, "seconds": round(session.seconds, 3)}
        described |= {"chunks": session.chunks, "on": sorted(session.on)}
        if last is not None:
            tags = self._hub.selection.tags(last.probs)[:10]
            described["end"] = last.end
            described["lag"] = round(last.lag, 4)
            described["level"] = round(decibels(last.rms), 1)
            described["top"] = [[tag.index, tag.label, round(tag.prob, 4)] for tag in tags]
        return described

    async def _model(self, request: web.Request) -> web.StreamResponse:
        tagger, engine = self._hub.tagger, self._hub.engine
        return web.json_response(
            {
                "model": tagger.source,
                "chunk": engine.hop / engine.rate,
                "rate": engine.rate,
                "labels": list(tagger.labels),
                "watched": {
                    sound.name: {"on": sound.rule.on, "off": sound.rule.off_score}
                    for sound in self._hub.sounds()
                },
                "step_seconds": engine.seconds_a_stream,
                "capacity": {"used": engine.used, "of": engine.capacity, "fit": engine.fitting},
            }
        )

    async def _tag(self, request: web.Request) -> web.StreamResponse:
        if not self.is_ready:
            raise web.HTTPServiceUnavailable(text="the server stops\n")
        try:
            found = await tag_upload(self._hub, request, self._uploads, max_bytes=self._max_upload)
        except Overloaded as error:
            raise web.HTTPServiceUnavailable(
                text=f"{error}\n", headers={"Retry-After": "10"}
            ) from error
        except SatError as error:
            raise web.HTTPUnprocessableEntity(text=f"{error}\n") from error
        return web.json_response(found)

    async def _switch_source(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        try:
            wanted = await request.json()
        except (ValueError, LookupError):
            wanted = None
        if not isinstance(wanted, dict) or not isinstance(wanted.get("enabled"), bool):
            raise web.HTTPBadRequest(text='send {"enabled": true} or {"enabled": false}\n')
        if not self._sources.switch(name, wanted["enabled"]):
            raise web.HTTPNotFound(text=f"no source {shown(name)}\n")
        return web.json_response(self._sources.describe())

    async def _figures(self, request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=self._metrics.text(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _health(self, request: web.Request) -> web.StreamResponse:
        if not self._hub.engine.is_alive:
            raise web.HTTPInternalServerError(text="the step thread has ended\n")
        return web.Response(text="ok\n")

    async def _readiness(self, request: web.Request) -> web.StreamResponse:
        if not self.is_ready:
            raise web.HTTPServiceUnavailable(text="the server stops\n")
        return web.Response(text="ok\n")


def _protect_browser(response: web.StreamResponse) -> None:
    """Lets a page use only what is of this server."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    # "no-referrer" would take the origin from the form with the token.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Content-Security-Policy"] = _POLICY


async def _begin_events(request: web.Request) -> web.StreamResponse:
    """Begins an answer of server-sent events."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    _protect_browser(response)
    await response.prepare(request)
    return response
