"""A Realtime session's settings: the object that clients see, and what the server honours of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deeptalk.decoding import DecodingOptions, Limits, Sampling
from deeptalk.serving import events
from deeptalk.serving.audio_formats import AudioFormat
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.wire import ClientError

RATES = {"audio/pcm": (24_000, 16_000), "audio/pcmu": (8_000,), "audio/pcma": (8_000,)}
"""The sample rates of each audio format, the default first; 16 kHz is for input only."""

EAGERNESS = {"low": (1000, 8000), "medium": (600, 4000), "auto": (600, 4000), "high": (350, 2000)}
"""The milliseconds that end a turn under ``semantic_vad``, which is server VAD here: of silence, and of
nothing but sounds that are too short to be speech."""

WITHOUT_EFFECT = (
    *("model", "tools", "tool_choice", "tracing", "include", "prompt", "reasoning", "parallel_tool_calls"),
    *("audio.output.speed", "audio.input.noise_reduction"),
)
"""What clients set and is only kept."""

NEVER_MS = 2**40

IDLE_TIMEOUT_MS = (5_000, 30_000)
"""From and up to which silence ``idle_timeout_ms`` may be set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnDetection:
    """When the server ends a user's turn by itself: after silence, or after ``forced_end_ms`` without speech.

    Sounds too short to begin a turn break the silence, but are no speech. After an answer and
    ``idle_timeout_ms`` of silence it ends a turn in which nothing was said; None: never.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    forced_end_ms: int = NEVER_MS
    idle_timeout_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The honoured part of a session or of one response."""

    instructions: str
    speaks: bool
    max_output_tokens: int | None
    audio_in: AudioFormat
    audio_out: AudioFormat
    turn_detection: TurnDetection | None
    transcribes: bool
    voice: str
    temperature: float
    seed: int
    may_forget: bool

    def options(self, longest: Limits) -> DecodingOptions:
        """How an answer is made."""
        return answer_options(longest, most=self.max_output_tokens, temperature=self.temperature)


def answer_options(longest: Limits, *, most: int | None, temperature: float) -> DecodingOptions:
    """Codes drawn at the temperature, text greedy; at most ``most`` frames and as many text tokens."""
    frames, words = longest.max_frames, longest.max_text_tokens
    if most is not None:
        frames, words = min(frames, most), min(words, most)
    return DecodingOptions(
        codec=Sampling(temperature=temperature), limits=Limits(max_frames=frames, max_text_tokens=words)
    )


def new_session(session_id: str, *, model: str, voice: str, expires_at: int) -> dict[str, Any]:
    """The session object before any update."""
    pcm = {"type": "audio/pcm", "rate": 24_000}
    detection = {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": expires_at,
        "include": None,
        "audio": {
            "input": {
                "format": dict(pcm),
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": detection,
            },
            "output": {"format": dict(pcm), "voice": voice, "speed": 1.0},
        },
    }


def merged(old: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` over ``old``, object by object; a ``turn_detection`` of another type replaces the old one."""
    result = dict(old)
    for key, value in given.items():
        before = result.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            is_same_kind = "type" not in value or value["type"] == before.get("type")
            result[key] = merged(before, value) if is_same_kind else value
        else:
            result[key] = value
    return result


def kept_only(given: Mapping[str, Any]) -> list[str]:
    """What of an update in either dialect has no effect."""
    return [name for name in WITHOUT_EFFECT if _is_in(events.nested(given), name)]


def _is_in(given: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    return isinstance(given, Mapping) and name in given and (not rest or _is_in(given[name], rest))


def updated(session: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The session object after an update in either dialect; what is the server's to say stays."""
    kept = {key: session[key] for key in ("id", "object", "expires_at")}
    return merged(session, events.nested(given)) | kept


def read_settings(
    session: Mapping[str, Any], *, voices: Sequence[str], limits: ServerLimits, prefix: str = "session"
) -> Settings:
    """Check the honoured fields; ``invalid_value`` names the one that can't be worked with."""
    field = _Fields(session, prefix)
    modalities = field.get("output_modalities", list, ["audio"])
    if "audio" not in modalities and "text" not in modalities:
        raise field.refused("output_modalities", 'must be ["audio"] or ["text"]')
    instructions = field.get("instructions", str, "")
    if len(instructions) > limits.max_instructions:
        raise field.refused("instructions", f"may have {limits.max_instructions} characters")
    most = session.get("max_output_tokens")
    most = None if most == "inf" else most
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise field.refused("max_output_tokens", 'must be a whole number from 1 up, or "inf"')
    truncation = session.get("truncation")
    audio = field.inner("audio")
    audio_in, audio_out = audio.inner("input"), audio.inner("output")
    voice = audio_out.values.get("voice")
    if isinstance(voice, Mapping):
        voice = voice.get("id")
    return Settings(
        instructions=instructions,
        speaks="audio" in modalities,
        max_output_tokens=most,
        audio_in=_format(audio_in, is_input=True),
        audio_out=_format(audio_out, is_input=False),
        turn_detection=_turn_detection(audio_in),
        transcribes=isinstance(audio_in.values.get("transcription"), Mapping),
        voice=voice if isinstance(voice, str) and voice in voices else (voices[0] if voices else ""),
        temperature=float(field.number("temperature", 0.0, least=0.0, most=2.0)),
        seed=int(field.number("seed", 0, least=0, most=2**63 - 1)),
        may_forget=truncation != "disabled",
    )


class _Fields:
    """The fields of one object, which is at ``path`` in the session."""

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        self.values, self.path = values, path

    def refused(self, name: str, what: str) -> ClientError:
        param = f"{self.path}.{name}"
        return ClientError("invalid_value", f"{param} {what}.", param=param)

    def get(self, name: str, kind: type, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            words = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}
            raise self.refused(name, f"must be {words[kind]}")
        return value

    def inner(self, name: str) -> "_Fields":
        return _Fields(self.get(name, dict, {}), f"{self.path}.{name}")

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.refused(name, f"must be a number from {least:g} to {most:g}")
        return value


def _format(audio: _Fields, *, is_input: bool) -> AudioFormat:
    given = audio.inner("format")
    kind: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = given.values.get("type", "audio/pcm")
    rates = RATES.get(kind, ()) if isinstance(kind, str) else ()
    if not rates:
        raise given.refused("type", f"must be one of {', '.join(RATES)}")
    rate = given.values.get("rate")
    if rate is None:
        return AudioFormat(kind, rates[0])
    if rate not in (rates if is_input else rates[:1]) or isinstance(rate, bool):
        allowed = " or ".join(map(str, rates if is_input else rates[:1]))
        raise given.refused("rate", f"must be {allowed} for {kind}")
    return AudioFormat(kind, int(rate))


def _idle_timeout(detection: _Fields) -> int | None:
    if detection.values.get("idle_timeout_ms") is None:
        return None
    least, most = IDLE_TIMEOUT_MS
    return int(detection.number("idle_timeout_ms", least, least=least, most=most))


def _turn_detection(audio_in: _Fields) -> TurnDetection | None:
    if audio_in.values.get("turn_detection") is None:
        return None
    given = audio_in.inner("turn_detection")
    kind = given.values.get("type", "server_vad")
    if kind not in ("server_vad", "semantic_vad"):
        raise given.refused("type", "must be server_vad or semantic_vad")
    silence, forced_end = given.number("silence_duration_ms", 500, least=0, most=10_000), NEVER_MS
    if kind == "semantic_vad":
        eagerness = given.values.get("eagerness") or "auto"
        if not isinstance(eagerness, str) or eagerness not in EAGERNESS:
            raise given.refused("eagerness", f"must be one of {', '.join(EAGERNESS)}")
        silence, forced_end = EAGERNESS[eagerness]
    return TurnDetection(
        threshold=float(given.number("threshold", 0.5, least=0.0, most=1.0)),
        prefix_padding_ms=int(given.number("prefix_padding_ms", 300, least=0, most=5_000)),
        silence_duration_ms=int(silence),
        create_response=given.get("create_response", bool, True),
        interrupt_response=given.get("interrupt_response", bool, True),
        forced_end_ms=forced_end,
        idle_timeout_ms=_idle_timeout(given) if kind == "server_vad" else None,
    )
