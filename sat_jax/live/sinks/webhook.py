"""Events to a web server, each as a POST of its JSON."""

import asyncio
import contextlib
import dataclasses
import json
import os
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from sat_jax.errors import SatError
from sat_jax.live.outputs import Output
from sat_jax.live.session import Session
from sat_jax.live.sinks.sink import NewestQueue, Report, live_event, pauses

_QUEUE = 1000
_TIMEOUT = 10.0
"""Seconds that a server may take to answer."""

_LAST_SECONDS = 2.0
"""What is left at the end has so many seconds."""

_TRY_AGAIN = (408, 425, 429)
"""Refusals that pass, beside all from 500 on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """A webhook.

    Attributes:
      url: often a secret.
      updates: whether updates of events are sent too.
      muted: whether events during a cooldown are sent too.
    """

    url: str = dataclasses.field(repr=False)
    updates: bool = False
    muted: bool = False

    @property
    def shown(self) -> str:
        """The address without its secrets."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def check_webhook(settings: WebhookSettings) -> None:
    """Checks the address.

    Raises:
      SatError: it is not one of a web server.
    """
    try:
        parts = urlsplit(settings.url)
        is_fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fit = False
    if not is_fit:
        raise SatError("webhook.url: use http://HOST/PATH or https://HOST/PATH")


class Webhook:
    """Posts the events of live streams, one after the other."""

    name = "webhook"

    def __init__(self, settings: WebhookSettings, report: Report) -> None:
        """Stores the settings.

        Args:
          settings: of the webhook.
          report: is told when the server can't be reached, and when it can be again.

        Raises:
          SatError: the address is wrong.
        """
        check_webhook(settings)
        self._settings, self._report = settings, report
        self._queue = NewestQueue[dict[str, Any]](_QUEUE)
        self._refused = 0
        self._failure = ""

    @property
    def waiting(self) -> int:
        """Events to be sent."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """Events that were thrown away, or that the server refused."""
        return self._queue.dropped + self._refused

    def tell(self, session: Session, output: Output) -> None:
        """Takes an output; events are sent."""
        message = live_event(session, output)
        if message is None or (message["muted"] and not self._settings.muted):
            return
        if message["kind"] != "update" or self._settings.updates:
            self._queue.put(message)

    async def run(self) -> None:
        """Sends until it is cancelled, and then tries once to send what is left."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        headers = {"Content-Type": "application/json", "User-Agent": "sat-jax"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
            try:
                while True:
                    await self._queue.wait()
                    await self._deliver(client)
            finally:
                if not self._failure:
                    await self._send_rest(client)

    async def _deliver(self, client: aiohttp.ClientSession) -> None:
        """Sends the oldest event, and tries until it is taken."""
        message, is_sent = self._queue.take(), False
        try:
            for pause in pauses():
                posting = asyncio.ensure_future(self._post(client, message))
                try:
                    is_sent = await asyncio.shield(posting)
                except asyncio.CancelledError:
                    # Sent again, it would come twice.
                    with contextlib.suppress(TimeoutError):
                        is_sent = await asyncio.wait_for(posting, _LAST_SECONDS)
                    raise
                if is_sent:
                    return
                await asyncio.sleep(pause)
        finally:
            if not is_sent:
                self._queue.put_back([message])

    async def _send_rest(self, client: aiohttp.ClientSession) -> None:
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                while len(self._queue) and await self._post(client, self._queue.take()):
                    pass
        except TimeoutError:
            self._report(
                f"{self._settings.shown}: too slow: {len(self._queue) + 1} events are lost"
            )

    async def _post(self, client: aiohttp.ClientSession, message: dict[str, Any]) -> bool:
        """Sends an event; returns whether the server has decided about it."""
        failure = ""
        try:
            # A browser would change the method of a request that is sent elsewhere.
            async with client.post(
                self._settings.url, data=json.dumps(message), allow_redirects=False
            ) as response:
                status = response.status
        except TimeoutError:
            failure = f"no answer in {_TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError) as error:
            failure = _reason(error)
        else:
            if status >= 500 or status in _TRY_AGAIN:
                failure = f"answers {status}"
            elif status >= 300:
                self._refused += 1
                if self._refused == 1:
                    self._report(
                        f"{self._settings.shown}: refuses events ({status}): check the url"
                    )
        self._tell_failure(failure)
        return not failure

    def _tell_failure(self, failure: str) -> None:
        if failure and not self._failure:
            self._report(f"{self._settings.shown}: {failure}; tries again")
        elif self._failure and not failure:
            self._report(f"{self._settings.shown} answers again; lost {self.dropped} events")
        self._failure = failure


def _reason(error: Exception) -> str:
    """Returns why a request failed, without its address."""
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        if isinstance(cause, ConnectionError) and cause.errno:
            return os.strerror(cause.errno)  # Its own text has the address.
        return cause.strerror or type(cause).__name__
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "ended the connection"
    return type(error).__name__
