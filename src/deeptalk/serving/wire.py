"""JSON and base64 from outside, parsed within limits, and the errors that a client is told."""

import base64
import binascii
import json
import re
from typing import Any

from deeptalk.errors import ProtocolError

MAX_DEPTH = 64
MAX_DIGITS = 40

_OUTSIDE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[^][{}"]++', re.DOTALL)
"""Strings, and what is neither a string nor a bracket."""


class ClientError(ProtocolError):
    """A mistake of a client: the code and the field it is told, and the HTTP status where there is one."""

    def __init__(self, code: str, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.param, self.status = code, param, status


def parse_json(text: str | bytes) -> dict[str, Any]:
    """One object; ``invalid_json`` for anything else: NaN, lone surrogates, too deep or too long numbers."""
    try:
        plain = text.decode("utf-8") if isinstance(text, bytes) else text
        if _depth(plain) > MAX_DEPTH:
            raise ValueError("too deep")
        value = json.loads(plain, parse_constant=_refused, parse_int=_integer, parse_float=_number)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ClientError(
            "invalid_json",
            f"A JSON object is expected: UTF-8, nested at most {MAX_DEPTH} deep, finite numbers of at most "
            f"{MAX_DIGITS} digits.",
        ) from error
    if not isinstance(value, dict):
        raise ClientError("invalid_json", "A JSON object is expected.")
    return value


def parse_base64(value: Any, *, param: str) -> bytes:
    """The bytes of a base64 string; ``invalid_audio`` for anything else."""
    if not isinstance(value, str):
        raise ClientError("invalid_audio", f"{param} must be a string of base64.", param=param)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ClientError("invalid_audio", f"{param} is not base64.", param=param) from error


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside of strings, found without recursion."""
    deepest = depth = 0
    for bracket in _OUTSIDE.sub("", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if len(digits) > MAX_DIGITS or value in (float("inf"), float("-inf")):
        raise ValueError("too many digits")
    return value
