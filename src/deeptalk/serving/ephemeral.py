"""Ephemeral keys: short-lived, signed, and known to every server that has the same key.

``ek_PAYLOAD.SIGNATURE``, both base64url. The payload says until when the key opens Realtime sessions and how
these begin; nothing about it is kept, so it can't be taken back before it expires.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

PREFIX = "ek_"


def mint(signer: bytes, *, expires_at: int, session: Mapping[str, Any]) -> str:
    """A new key that is good before ``expires_at`` (seconds since 1970)."""
    payload = {"expires_at": expires_at, "nonce": secrets.token_hex(8), "session": session}
    text = _encoded(json.dumps(payload, separators=(",", ":")).encode())
    return f"{PREFIX}{text}.{_signature(text, signer)}"


def session_of(key: str, signer: bytes, *, now: float) -> dict[str, Any] | None:
    """How a session of this key begins; None for a key that is forged or has expired."""
    text, _, given = key.removeprefix(PREFIX).partition(".")
    is_ours = hmac.compare_digest(given.encode(), _signature(text, signer).encode())
    if not key.startswith(PREFIX) or not is_ours:
        return None
    payload = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return payload["session"] if now < payload["expires_at"] else None


def signer_of(key: str) -> bytes:
    """What the ephemeral keys of a server with this key are signed with."""
    return hmac.digest(key.encode(), b"deeptalk ephemeral keys", hashlib.sha256)


def _signature(text: str, signer: bytes) -> str:
    return _encoded(hmac.digest(signer, text.encode(), hashlib.sha256))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
