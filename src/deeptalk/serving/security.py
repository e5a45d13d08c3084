"""Who may come in: one question for HTTP and WebSocket alike, asked before anything else is done."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from deeptalk.errors import ConfigError
from deeptalk.serving.ephemeral import session_of, signer_of
from deeptalk.serving.origins import allow, check_origin, is_preflight, may_call, preflight_headers
from deeptalk.serving.talk_page import PATHS

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
OPEN_PATHS = ("/health", "/ready", *PATHS)
"""What needs no key: a status alone, and the talk page's own files."""

REALTIME_PATH = "/v1/realtime"
"""All that an ephemeral key opens."""

_PRINCIPAL = "deeptalk.principal"
KEY_PROTOCOL = "openai-insecure-api-key."
"""Begins the subprotocol in which a browser sends its key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Security:
    """The key, where one is needed, the names this server goes by, and foreign pages that may call it."""

    key: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()
    own_signer: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def signer(self) -> bytes:
        """What ephemeral keys are signed with: of the key, so that all servers that have it agree."""
        return self.own_signer if self.key is None else signer_of(self.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Who has come in: a name for the key that was shown, empty where none was needed.

    With an ephemeral key, ``session`` is how the session is to begin.
    """

    name: str = ""
    session: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why somebody may not come in."""

    status: int
    code: str
    message: str


def security_for(host: str, *, key: str | None, origins: Iterable[str], is_insecure: bool) -> Security:
    """What a server bound to ``host`` asks for; ConfigError for a public one without a key."""
    if key is not None and (not key.isascii() or not key.isprintable() or len(key) < 8):
        raise ConfigError("The key must be at least 8 printable ASCII characters.")
    allowed = tuple(check_origin(origin) for origin in origins)
    if host in LOOPBACK:
        return Security(key=key, origins=allowed)
    if key is None and not is_insecure:
        raise ConfigError(
            f"{host} can be reached from outside: set a key (DEEPTALK_API_KEY), bind 127.0.0.1, or say "
            "--insecure to let everybody in."
        )
    is_any = host in ("0.0.0.0", "::")
    return Security(key=key, hosts=() if is_any else (host, *LOOPBACK), origins=allowed)


def authorize(scope: Scope, security: Security, *, now: float) -> Principal | Refusal:
    """Who sends a request or opens a socket at ``now`` (seconds since 1970), or why they may not."""
    headers = _headers(scope)
    host = headers.get("host", "")
    if security.hosts and _name_in(host) not in security.hosts:
        return Refusal(status=403, code="wrong_host", message="This server does not go by that name.")
    if not may_call(headers.get("origin"), host=host, allowed=security.origins):
        return Refusal(status=403, code="foreign_origin", message="Pages of that origin may not call here.")
    if (scope["type"] == "http" and scope["path"] in OPEN_PATHS) or is_preflight(scope, headers):
        return Principal()
    keys = _keys(headers)
    if scope["type"] == "websocket" and scope["path"] == REALTIME_PATH:
        for given in keys:
            session = session_of(given, security.signer, now=now)
            if session is not None:
                return Principal(name=_name_of(given), session=session)
    if security.key is None:
        return Principal()
    if security.key in scope.get("query_string", b"").decode("latin-1"):
        return Refusal(status=401, code="key_in_query", message="Send the key in a header, not in the query.")
    if any(_is_key(given, security.key) for given in keys):
        return Principal(name=_name_of(security.key))
    return Refusal(status=401, code="invalid_api_key", message="A key is needed: Authorization: Bearer KEY.")


class Guard:
    """Raw ASGI around an application: nothing that is refused reaches it."""

    def __init__(
        self,
        app: App,
        security: Security,
        *,
        on_refusal: Callable[[str], None] = lambda code: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.app, self._security, self._on_refusal, self._now = app, security, on_refusal, now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may come in, and answer the rest."""
        if scope["type"] in ("http", "websocket"):
            headers = _headers(scope)
            if headers.get("origin") in self._security.origins:
                send = _allowing(send, headers["origin"])
            found = authorize(scope, self._security, now=self._now())
            if isinstance(found, Refusal):
                self._on_refusal(found.code)
                await refuse(scope, receive, send, found)
                return
            if is_preflight(scope, headers):
                await Response(status_code=204, headers=preflight_headers(headers))(scope, receive, send)
                return
            scope[_PRINCIPAL] = found
        await self.app(scope, receive, send)


def principal_of(scope: Scope) -> Principal:
    """Who has come in through the guard."""
    return scope[_PRINCIPAL]


async def refuse(
    scope: Scope, receive: Receive, send: Send, refusal: Refusal, headers: dict[str, str] | None = None
) -> None:
    """Answer with an error, a socket before it is accepted."""
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            code = 1013 if refusal.status in (429, 503) else 1008
            await send({"type": "websocket.close", "code": code, "reason": refusal.code})
            return
    body = error_body(refusal.message, code=refusal.code)
    await JSONResponse(body, status_code=refusal.status, headers=headers)(scope, receive, send)


def error_body(message: str, *, code: str, param: str | None = None, is_ours: bool = False) -> dict[str, Any]:
    """An error as OpenAI's HTTP clients expect it."""
    kind = "server_error" if is_ours else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _name_in(host: str) -> str | None:
    """The name in a ``Host`` header, without its port; None where it has none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _allowing(send: Send, origin: str) -> Send:
    async def send_allowed(message: MutableMapping[str, Any]) -> None:
        await send(allow(message, origin))

    return send_allowed


def _name_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _keys(headers: dict[str, str]) -> list[str]:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    found = [given.strip()] if scheme.lower() == "bearer" else []
    offered = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]
    return found + [each.removeprefix(KEY_PROTOCOL) for each in offered if each.startswith(KEY_PROTOCOL)]


def _is_key(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8"), key.encode("utf-8"))
