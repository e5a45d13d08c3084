"""The HTTP routes as an OpenAPI document: what fuzzers send, and what answers must look like."""

from typing import Any

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}, "code": {"type": "string"}},
        }
    },
}
STATUS = {"type": "object", "required": ["status"]}
NUMBER = {"type": ["number", "null"]}
WHOLE = {"type": ["integer", "null"]}
VOICE = {"type": ["string", "null"]}


def _answers(**good: Any) -> dict[str, Any]:
    """The good answer by media type, and the errors that every route may give."""
    told = {"description": "error", "content": {"application/json": {"schema": ERROR}}}
    return {
        "200": {"description": "good", "content": {kind: {"schema": each} for kind, each in good.items()}},
        **{status: told for status in ("400", "401", "403", "404", "405", "413", "503")},
    }


def _post(properties: dict[str, Any], required: list[str], **good: Any) -> dict[str, Any]:
    body = {"type": "object", "properties": properties, "required": required}
    return {
        "post": {
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": _answers(**good),
        }
    }


def _get(**good: Any) -> dict[str, Any]:
    return {"get": {"responses": _answers(**good)}}


PARTS = {
    "type": "array",
    "maxItems": 3,
    "items": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"enum": ["text", "input_audio", "image_url"]},
            "text": {"type": "string", "maxLength": 20},
            "input_audio": {
                "type": "object",
                "properties": {"data": {"type": "string"}, "format": {"enum": ["wav", "mp3"]}},
            },
        },
    },
}
MESSAGES = {
    "type": "array",
    "maxItems": 3,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {"anyOf": [{"type": "string", "maxLength": 20}, {"type": "null"}, PARTS]},
            "audio": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
    },
}
JSON = "application/json"
PATHS: dict[str, Any] = {
    "/v1/chat/completions": _post(
        {
            "messages": MESSAGES,
            "modalities": {"enum": [None, ["text"], ["audio"], ["text", "audio"]]},
            "audio": {"type": "object", "properties": {"voice": VOICE, "format": {"enum": ["wav", "pcm16"]}}},
            "stream": {"type": "boolean"},
            "stream_options": {"type": "object"},
            "n": {"enum": [None, 1, 2]},
            "max_tokens": {"enum": [None, 0, 1, 2]},
            "seed": WHOLE,
            "temperature": NUMBER,
        },
        ["messages"],
        **{JSON: {"type": "object", "required": ["choices", "usage"]}, "text/event-stream": {}},
    ),
    "/v1/completions": _post(
        {
            "prompt": {
                "anyOf": [
                    {"type": "string", "maxLength": 20},
                    {"type": "array", "maxItems": 4, "items": {"type": "integer"}},
                    {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 8}},
                ]
            },
            "max_tokens": {"enum": [None, 0, 1, 2]},
            "echo": {"type": "boolean"},
            "logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
            "stop": {"anyOf": [{"type": "null"}, {"type": "string"}, {"type": "array"}]},
            "temperature": NUMBER,
            "seed": WHOLE,
        },
        ["prompt"],
        **{JSON: {"type": "object", "required": ["choices", "usage"]}},
    ),
    "/v1/audio/speech": _post(
        {
            "input": {"type": "string", "maxLength": 12},
            "voice": VOICE,
            "response_format": {"enum": [None, "wav", "pcm", "mp3", "flac", "opus", "aac"]},
            "speed": NUMBER,
        },
        ["input"],
        **{kind: {} for kind in ("audio/wav", "audio/pcm", "audio/mpeg", "audio/flac", "audio/ogg")},
    ),
    "/v1/audio/transcriptions": {
        "post": {
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["file"],
                            "properties": {
                                "file": {"type": "string", "format": "binary"},
                                "response_format": {"enum": ["json", "text", "verbose_json"]},
                            },
                        }
                    }
                },
            },
            "responses": _answers(**{JSON: {"type": "object"}, "text/plain": {}}),
        }
    },
    "/v1/realtime/client_secrets": _post(
        {
            "expires_after": {
                "type": "object",
                "properties": {"anchor": {"const": "created_at"}, "seconds": {"type": "integer"}},
            },
            "session": {"type": "object"},
        },
        [],
        **{JSON: {"type": "object", "required": ["value", "expires_at"]}},
    ),
    "/v1/models": _get(**{JSON: {"type": "object", "required": ["data"]}}),
    "/v1/models/{name}": {
        "get": {
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
            "responses": _answers(**{JSON: {"type": "object", "required": ["id"]}}),
        }
    },
    "/health": _get(**{JSON: STATUS}),
    "/ready": _get(**{JSON: STATUS}),
    "/metrics": _get(**{"text/plain": {}}),
}

DOCUMENT = {"openapi": "3.1.0", "info": {"title": "deeptalk", "version": "1"}, "paths": PATHS}
