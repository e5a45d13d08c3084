"""The names of the Realtime events (GA), and the beta dialect as one table."""

from collections.abc import Mapping
from typing import Any

SESSION_CREATED = "session.created"
SESSION_UPDATED = "session.updated"
ITEM_ADDED = "conversation.item.added"
ITEM_DONE = "conversation.item.done"
ITEM_RETRIEVED = "conversation.item.retrieved"
ITEM_TRUNCATED = "conversation.item.truncated"
ITEM_DELETED = "conversation.item.deleted"
TRANSCRIPTION_DELTA = "conversation.item.input_audio_transcription.delta"
TRANSCRIPTION_COMPLETED = "conversation.item.input_audio_transcription.completed"
TRANSCRIPTION_FAILED = "conversation.item.input_audio_transcription.failed"
INPUT_COMMITTED = "input_audio_buffer.committed"
INPUT_CLEARED = "input_audio_buffer.cleared"
SPEECH_STARTED = "input_audio_buffer.speech_started"
SPEECH_STOPPED = "input_audio_buffer.speech_stopped"
TIMEOUT_TRIGGERED = "input_audio_buffer.timeout_triggered"
OUTPUT_CLEARED = "output_audio_buffer.cleared"
RESPONSE_CREATED = "response.created"
RESPONSE_DONE = "response.done"
OUTPUT_ITEM_ADDED = "response.output_item.added"
OUTPUT_ITEM_DONE = "response.output_item.done"
PART_ADDED = "response.content_part.added"
PART_DONE = "response.content_part.done"
AUDIO_DELTA = "response.output_audio.delta"
AUDIO_DONE = "response.output_audio.done"
TRANSCRIPT_DELTA = "response.output_audio_transcript.delta"
TRANSCRIPT_DONE = "response.output_audio_transcript.done"
TEXT_DELTA = "response.output_text.delta"
TEXT_DONE = "response.output_text.done"
ERROR = "error"

SERVER_EVENTS = frozenset(value for name, value in list(globals().items()) if name.isupper())
"""Every type that the server may send; stock clients end a call on one that they don't know."""

BETA_NAMES: Mapping[str, str | None] = {
    ITEM_ADDED: "conversation.item.created",
    ITEM_DONE: None,
    AUDIO_DELTA: "response.audio.delta",
    AUDIO_DONE: "response.audio.done",
    TRANSCRIPT_DELTA: "response.audio_transcript.delta",
    TRANSCRIPT_DONE: "response.audio_transcript.done",
    TEXT_DELTA: "response.text.delta",
    TEXT_DONE: "response.text.done",
}
"""What events are called in the beta dialect; None is not sent."""

BETA_CONTENT = {"output_audio": "audio", "output_text": "text"}
"""What an assistant's content is called in the beta dialect."""

BETA_FORMATS = {
    "pcm16": {"type": "audio/pcm", "rate": 24_000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
"""The beta dialect's names of audio formats."""

_FLAT_PLACES: Mapping[str, tuple[str, ...]] = {
    "modalities": ("output_modalities",),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
    "output_audio_format": ("audio", "output", "format"),
    "input_audio_format": ("audio", "input", "format"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "max_response_output_tokens": ("max_output_tokens",),
}
"""Where the fields of a flat session or response stand in the nested one."""


def nested(given: Mapping[str, Any]) -> dict[str, Any]:
    """A session or response in either form, as GA has it."""
    plain = dict(given)
    for name, (*path, last) in _FLAT_PLACES.items():
        if name not in plain:
            continue
        value, place = plain.pop(name), plain
        if name.endswith("_format") and isinstance(value, str):
            value = BETA_FORMATS.get(value, {"type": value})
        for key in path:
            below = place.get(key)
            place[key] = dict(below) if isinstance(below, dict) else {}
            place = place[key]
        place[last] = value
    return plain


def flat(session: Mapping[str, Any]) -> dict[str, Any]:
    """A session or response as the beta dialect has it."""
    plain = {key: value for key, value in session.items() if key not in ("audio", "type")}
    formats = {form["type"]: name for name, form in BETA_FORMATS.items()}
    for name, path in _FLAT_PLACES.items():
        value: Any = session
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        plain.pop(path[0], None)
        if name.endswith("_format"):
            value = formats.get((value or {}).get("type"), "pcm16")
        plain[name] = value
    plain["modalities"] = ["text", "audio"] if "audio" in (plain["modalities"] or []) else ["text"]
    return plain


def to_beta(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """A server event in the beta dialect; None where it has no place there."""
    name = BETA_NAMES.get(event["type"], event["type"])
    if name is None:
        return None
    plain: dict[str, Any] = {**event, "type": name}
    if "session" in plain:
        plain["session"] = flat(plain["session"])
    if "item" in plain:
        plain["item"] = _beta_item(plain["item"])
    if "response" in plain:
        response = plain["response"]
        plain["response"] = flat(response) | {"output": [_beta_item(item) for item in response["output"]]}
    return plain


def _beta_item(item: Mapping[str, Any]) -> dict[str, Any]:
    if item.get("type") != "message":
        return dict(item)
    content = [part | {"type": BETA_CONTENT.get(part["type"], part["type"])} for part in item["content"]]
    return dict(item) | {"content": content}
