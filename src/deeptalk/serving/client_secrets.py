"""``/v1/realtime/client_secrets``: a server that has the key gets an ephemeral one for a browser."""

import json
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from deeptalk.serving.ephemeral import mint
from deeptalk.serving.http import Handler, read_body, tells_errors, whole
from deeptalk.serving.items import new_id
from deeptalk.serving.service import Service
from deeptalk.serving.settings import new_session, read_settings, updated
from deeptalk.serving.wire import ClientError, parse_json

DEFAULT_SECONDS = 600
SHORTEST_SECONDS, LONGEST_SECONDS = 10, 7200
MAX_SESSION_BYTES = 4096
"""The settings travel in the key, and the key in a header."""


def client_secrets_route(service: Service, *, signer: bytes, now: Callable[[], float] = time.time) -> Handler:
    """The handler of ``POST /v1/realtime/client_secrets``."""

    @tells_errors
    async def client_secrets(request: HttpRequest) -> Response:
        body = parse_json(await read_body(request, most=service.limits.max_body_bytes) or b"{}")
        given = _given_session(body)
        voices = service.thread.loaded.voices
        started = int(now())
        fresh = new_session(
            new_id("sess"),
            model=service.model,
            voice=voices[0] if voices else "",
            expires_at=int(started + service.limits.session_seconds),
        )
        session = updated(fresh, given)
        read_settings(session, voices=voices, limits=service.limits)
        expires_at = started + _lifetime(body)
        value = mint(signer, expires_at=expires_at, session=given)
        return JSONResponse({"value": value, "expires_at": expires_at, "session": session})

    return client_secrets


def _given_session(body: dict[str, Any]) -> dict[str, Any]:
    given = body.get("session") or {}
    if not isinstance(given, dict) or given.get("type", "realtime") != "realtime":
        raise ClientError("invalid_value", "session must be an object of type realtime.", param="session")
    if len(json.dumps(given)) > MAX_SESSION_BYTES:
        raise ClientError(
            "invalid_value", f"session has at most {MAX_SESSION_BYTES} bytes here.", param="session"
        )
    return given


def _lifetime(body: dict[str, Any]) -> int:
    """Seconds that the key is good for."""
    given = body.get("expires_after") or {}
    if not isinstance(given, dict) or given.get("anchor", "created_at") != "created_at":
        raise ClientError(
            "invalid_value", "expires_after must be an object with anchor created_at.", param="expires_after"
        )
    seconds = whole(given, "seconds", default=None, least=SHORTEST_SECONDS, most=LONGEST_SECONDS)
    return DEFAULT_SECONDS if seconds is None else seconds
