"""Ids of the eight streams: text is stream 0, codebook *i* is stream *i* + 1, each with its own table.

Ids are local to their stream and always looked up by name (method.md, section 3).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deeptalk.errors import ConfigError
from deeptalk.streams.modality import Row

TEXT = 0
"""The index of the text stream."""

IGNORE = -100
"""The label of a position that is not learnt."""

_SLOT = "{text}"
_FIRST_SPEAKER = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The words around the turns of a dialogue; ``{text}`` is where a turn's text or speech stands.

    Every literal piece is tokenised on its own, so that a prompt is the same ids whatever follows it.
    """

    bos: bool = True
    system: str = "{text}\n"
    user: str = "User:{text}\n"
    assistant: str = "Assistant:{text}"
    lead: str = " "
    """Written before every text that fills a slot, so that words are tokenised as inside a sentence."""

    def __post_init__(self) -> None:
        for role in ("system", "user", "assistant"):
            given = getattr(self, role)
            if given.count(_SLOT) != 1:
                raise ConfigError(f"template.{role} must contain {_SLOT} exactly once, got {given!r}.")
        if not self.assistant.endswith(_SLOT) or self.assistant == _SLOT:
            raise ConfigError(
                f"template.assistant must be words followed by {_SLOT}, got {self.assistant!r}: "
                "the mode token stands on the last of these words."
            )

    def around(self, role: str) -> tuple[str, str]:
        """The words before and after the slot of ``role``."""
        before, after = getattr(self, role).split(_SLOT)
        return before, after

    @property
    def digest(self) -> str:
        """A short hash of all strings, stored with a checkpoint."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


PAPER_TEMPLATE = Template(
    system="{text}\n\n", user="User: {text}\n\n", assistant="Assistant: {text}", lead=""
)
"""The template of method.md, section 4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamLayout:
    """Sizes and named ids of the streams; ``vocab_size`` counts the rows of the backbone's text table."""

    vocab_size: int
    codebook_size: int
    eos_id: int
    bos_id: int
    num_specials: int = 16
    num_codebooks: int = 7
    speakers: Mapping[str, int] = field(default_factory=dict)
    template: Template = field(default_factory=Template)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "codebook_size", "num_codebooks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("eos_id", "bos_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ConfigError(
                    f"{name} must be from 0 to {self.vocab_size - 1}, got {getattr(self, name)}."
                )
        if self.num_specials < _FIRST_SPEAKER:
            raise ConfigError(f"num_specials must be at least {_FIRST_SPEAKER}, got {self.num_specials}.")
        room = self.num_specials - _FIRST_SPEAKER
        numbers = list(self.speakers.values())
        if len(set(numbers)) != len(numbers) or not all(0 <= number < room for number in numbers):
            raise ConfigError(
                f"speakers must have different numbers from 0 to {room - 1}, got {dict(self.speakers)}."
            )

    @classmethod
    def tiny(cls) -> "StreamLayout":
        """A layout for tests: 300 text ids, 32 codes per codebook, two speakers."""
        return cls(vocab_size=300, codebook_size=32, eos_id=257, bos_id=256, speakers={"rms": 0, "slt": 1})

    @property
    def num_streams(self) -> int:
        """Text and all codebooks."""
        return self.num_codebooks + 1

    @property
    def audio_rows(self) -> int:
        """Rows of the table and the head of one codebook."""
        return self.codebook_size + self.num_specials

    @property
    def text_eot(self) -> int:
        """End of turn in converted checkpoints; in speech that is ``worded``, nothing said."""
        return self.vocab_size

    @property
    def text_pad(self) -> int:
        """Nothing on the text stream."""
        return self.vocab_size + 1

    @property
    def text_aud(self) -> int:
        """Stands on the text stream where speech comes in."""
        return self.vocab_size + 2

    @property
    def eoa(self) -> int:
        """End of codes; also the right bracket of speech that comes in."""
        return self.codebook_size

    @property
    def pad_audio(self) -> int:
        """Nothing on a codec stream."""
        return self.codebook_size + 1

    @property
    def boa(self) -> int:
        """The left bracket of speech that comes in."""
        return self.codebook_size + 2

    @property
    def ans(self) -> int:
        """Mode: answer in speech, by no particular speaker."""
        return self.codebook_size + 3

    @property
    def asr(self) -> int:
        """Mode: transcribe."""
        return self.codebook_size + 4

    def speaker(self, name: str) -> int:
        """Mode: answer in the voice of ``name``."""
        if name not in self.speakers:
            known = ", ".join(sorted(self.speakers)) or "none"
            raise ConfigError(f"No voice is called {name!r}; this model has: {known}.")
        return self.codebook_size + _FIRST_SPEAKER + self.speakers[name]

    def mode_id(self, mode: str) -> int:
        """The mode token of ``text``, ``asr``, ``answer`` or ``speaker:<name>``."""
        if mode.startswith("speaker:"):
            return self.speaker(mode.removeprefix("speaker:"))
        ids = {"text": self.pad_audio, "asr": self.asr, "answer": self.ans}
        if mode not in ids:
            raise ConfigError(f"mode must be text, asr, answer or speaker:<name>, got {mode!r}.")
        return ids[mode]

    @property
    def pad_ids(self) -> tuple[int, ...]:
        """One pad id per stream, text first."""
        return (self.text_pad, *(self.pad_audio,) * self.num_codebooks)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values for ``config.json``, with the hash of the template."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain["speakers"] = dict(self.speakers)
        plain["template"] = asdict(self.template)
        return plain | {"template_hash": self.template.digest}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "StreamLayout":
        """The layout that ``to_dict`` wrote; a template that does not fit its hash is refused."""
        fields = {name: plain[name] for name in cls.__slots__ if name in plain}
        missing = [name for name in ("vocab_size", "codebook_size", "eos_id", "bos_id") if name not in fields]
        if missing:
            raise ConfigError(f"The stream layout lacks {', '.join(missing)}.")
        fields["template"] = Template(**plain.get("template", {}))
        stored = plain.get("template_hash", fields["template"].digest)
        if stored != fields["template"].digest:
            raise ConfigError(f"The template does not fit its stored hash {stored}: config.json was edited.")
        return cls(**fields)


def row_of(mode: str) -> Row:
    """The row that a mode is decoded in: speech answers in the speech row, all else in the text row."""
    return Row.TEXT if mode in ("text", "asr") else Row.SPEECH


def num_encoder_frames(num_mel_frames: int) -> int:
    """Frames that the encoder makes of a clip: its front end halves the rate, rounding up."""
    return -(-num_mel_frames // 2)


def num_speech_frames(num_frames: int, *, stride: int) -> int:
    """Adapter frames of ``num_frames`` encoder frames, rounding up."""
    return -(-num_frames // stride)
