"""Who may use a server: tokens, hosts and origins."""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from sat_jax.errors import SatError, one_line

COOKIE = "sat_jax_session"

_MAX_FAILURES = 10
_FAILURE_WINDOW = 60.0
"""So many different wrong tokens in so many seconds from one address make it wait."""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: str | Path) -> str:
    """Reads a token.

    Raises:
      SatError: the file can't be read, or the token is too short.
    """
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SatError(f"token_file: cannot read {path}: {reason}") from error
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        raise SatError(
            f"{path}: a token needs at least 16 printable characters: write one with openssl rand "
            f"-hex 16 > {path}"
        )
    return token


class Guard:
    """Decides about requests."""

    def __init__(
        self, *, token: str, allowed_origins: Sequence[str], trusted_proxies: Sequence[str]
    ) -> None:
        """Stores the rules.

        Args:
          token: "" lets everyone in who reaches the server.
          allowed_origins: further origins of pages that may use the server, "https://HOST".
          trusted_proxies: addresses whose X-Forwarded-For counts.
        """
        self._token, self._origins = token, frozenset(allowed_origins)
        self._proxies = frozenset(trusted_proxies)
        self._cookie = secrets.token_urlsafe(24)
        self._failures: dict[str, dict[str, float]] = {}

    @property
    def needs_token(self) -> bool:
        """Whether there is a token."""
        return bool(self._token)

    def address(self, request: web.Request) -> str:
        """Returns the address of a client, behind trusted proxies too."""
        peer = request.remote or ""
        forwarded = request.headers.get("X-Forwarded-For", "")
        if peer in self._proxies and forwarded:
            return forwarded.rpartition(",")[2].strip()
        return peer

    def check_origin(self, request: web.Request) -> None:
        """Refuses pages of other sites, and names that somebody else's DNS points here.

        Raises:
          web.HTTPForbidden: the origin or the host is not allowed.
        """
        host = request.host
        name = _hostname(host)
        origin = request.headers.get("Origin")
        if not self._token and not is_loopback(name) and not self._is_allowed_host(host):
            raise web.HTTPForbidden(
                text=f"host {shown(host)}: use localhost, or add its origin to allowed_origins\n"
            )
        if origin is None or origin in self._origins:
            return
        if origin.partition("://")[2] != host:
            raise web.HTTPForbidden(text=f"origin {shown(origin)}: add it to allowed_origins\n")

    def _is_allowed_host(self, host: str) -> bool:
        try:
            # Names can be pointed here by anyone, addresses can't.
            ipaddress.ip_address(_hostname(host))
            return True
        except ValueError:
            return any(origin.partition("://")[2] == host for origin in self._origins)

    def is_known(self, request: web.Request, token: str = "") -> bool:
        """Whether a request has the token, by header, cookie or message.

        Raises:
          web.HTTPTooManyRequests: its address gave too many wrong ones.
        """
        if not self._token:
            return True
        if _equal(request.cookies.get(COOKIE, ""), self._cookie):
            return True
        header = request.headers.get("Authorization", "")
        given = token or header.removeprefix("Bearer ")
        return bool(given) and self.check_token(request, given)

    def check_token(self, request: web.Request, token: str) -> bool:
        """Whether a token is right.

        Raises:
          web.HTTPTooManyRequests: its address gave too many wrong ones.
        """
        now, address = time.monotonic(), self.address(request)
        failures = self._failures.setdefault(address, {})
        for wrong, since in list(failures.items()):
            if since < now - _FAILURE_WINDOW:
                del failures[wrong]
        if len(failures) >= _MAX_FAILURES:
            raise web.HTTPTooManyRequests(
                text="too many wrong tokens: wait a minute\n", headers={"Retry-After": "60"}
            )
        if _equal(token, self._token):
            self._failures.pop(address, None)
            return True
        # A program with an old token must not keep out all others of its address.
        failures[hashlib.sha256(token.encode(errors="replace")).hexdigest()] = now
        if len(self._failures) > 10_000:  # Somebody tries with many addresses.
            self._failures.clear()
        return False

    def log_in(self, response: web.StreamResponse, *, is_secure: bool) -> None:
        """Gives a browser the cookie that stands for the token."""
        response.set_cookie(
            COOKIE, self._cookie, httponly=True, samesite="Strict", secure=is_secure, path="/"
        )


def shown(text: str) -> str:
    """Returns what a client sent, which may be any bytes, for a line of an answer."""
    return one_line(text.encode(errors="replace").decode())


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _equal(one: str, other: str) -> bool:
    # Headers may have bytes that are no text.
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))
