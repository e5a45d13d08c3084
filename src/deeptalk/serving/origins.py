"""Pages in browsers: which origins may call, and the CORS headers for those that were allowed by name.

A page of the server's own origin needs no headers, and a page that was not allowed gets none.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from deeptalk.errors import ConfigError

MAX_AGE_SECONDS = 600
"""How long a browser may remember what it was told before a call."""


def check_origin(origin: str) -> str:
    """An origin as browsers write it; ConfigError for anything else, which would never be met."""
    try:
        parts = urlsplit(origin)
        plain = f"{parts.scheme}://{parts.netloc}"
        is_origin = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in origin
        is_origin = is_origin and (parts.port is None or parts.port > 0) and origin == plain.lower()
    except ValueError:
        is_origin = False
    if not is_origin:
        raise ConfigError(
            f"--allow-origin {origin}: give scheme and host in small letters, with the port where it is no "
            "usual one, as in https://app.example or http://localhost:5173, and nothing behind."
        )
    return origin


def may_call(origin: str | None, *, host: str, allowed: Sequence[str]) -> bool:
    """Whether a page of this origin may call the server of this ``Host``; without an origin all may."""
    return origin is None or origin.partition("://")[2] == host or origin in allowed


def is_preflight(scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Whether a browser asks on its own account what a page may send; it then has no key with it."""
    return (
        scope["type"] == "http"
        and scope.get("method") == "OPTIONS"
        and "access-control-request-method" in headers
    )


def preflight_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What a page may send: the headers that it asks for, for what is done with them is decided later."""
    return {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": headers.get("access-control-request-headers", ""),
        "access-control-max-age": str(MAX_AGE_SECONDS),
    }


def allow(message: MutableMapping[str, Any], origin: str) -> MutableMapping[str, Any]:
    """A message of ASGI; where it begins an answer, with the headers that let a page read it."""
    if message["type"] != "http.response.start":
        return message
    added = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"retry-after"),
        (b"vary", b"origin"),
    ]
    return {**message, "headers": [*message.get("headers", []), *added]}
