"""Addresses of sources: what may be shown of them, and what must not."""

import re
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from sat_jax.errors import SatError, one_line

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_HIDDEN = "***"


def shown_address(url: str) -> str:
    """Returns a URL without user, password and query, which may hold a password too."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    # A password may contain any character if it was not encoded, also / and ?.
    return one_line(scheme + mark + rest.rpartition("@")[2].partition("?")[0])


def hide_secrets(text: str, url: str) -> str:
    """Returns a message of another program without the secrets of a URL."""
    parts = urlsplit(url)
    secrets = [parts.password or "", parts.query]
    secrets += [value for values in parse_qs(parts.query).values() for value in values]
    text = text.replace(url, shown_address(url))
    for secret in sorted({*secrets, *map(unquote, secrets)} - {""}, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return re.sub(r"(\w+://)[^/\s@]*@", r"\1", text)


def split_address(url: str) -> SplitResult:
    """Splits a URL that names a host.

    Raises:
      SatError: it has no host, a wrong port, or characters that no URL has.
    """
    if _CONTROL.search(url):
        raise SatError(f"{shown_address(url)}: has a space or control character: write it as %20")
    try:
        parts = urlsplit(url)
        port_is_wrong = parts.port == 0
    except ValueError:
        port_is_wrong = True
    if port_is_wrong:
        raise SatError(
            f"{shown_address(url)}: wrong host or port: write /, @, # and ? of a password as %2F, "
            "%40, %23 and %3F"
        )
    if not parts.hostname:
        raise SatError(f"{shown_address(url)}: has no host: use {parts.scheme}://HOST…")
    return parts
