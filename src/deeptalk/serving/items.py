"""The items of a conversation: what clients see of them, and the turns that the model reads."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from deeptalk.serving.audio_formats import AudioFormat, SoundIn
from deeptalk.serving.turns import Ear, Said, Turn
from deeptalk.serving.wire import ClientError, parse_base64
from deeptalk.serving.words import heard_words

Role = Literal["system", "user", "assistant"]
ROLES = ("system", "user", "assistant")
SLACK_MS = 120
"""How far a cut may lie behind the end of the sound; it is then taken as the end."""

MAX_CHARACTERS = 2**16
"""What an item may have as JSON, its sound not counted."""


@dataclass(slots=True, eq=False)
class Item:
    """One item. Items that are no messages (tool calls) are kept for the client alone.

    An answer has ``said`` these words within ``sound_ms`` of sound that was sent; ``is_whole`` once all of
    its sound was. ``heard_ms`` is where it was cut, also while it is still being made.
    """

    id: str
    role: Role | None
    content: list[dict[str, Any]]
    status: str = "completed"
    turns: list[Turn] = field(default_factory=list)
    other: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    sound_ms: float = 0.0
    is_whole: bool = False
    heard_ms: float | None = None

    def to_json(self, *, status: str | None = None) -> dict[str, Any]:
        """The item as clients see it; sound is not given back."""
        common = {"id": self.id, "object": "realtime.item"}
        if self.role is None:
            return self.other | common
        return common | {
            "type": "message",
            "status": status or self.status,
            "role": self.role,
            "content": self.content,
        }

    def conclude(self, turn: Said | None, *, is_whole: bool) -> None:
        """Note how an answer ended: the model remembers it as it made it, or what was heard or sent of it."""
        self.is_whole = is_whole
        self.turns = [] if turn is None or not turn.text else [turn]
        if self.turns:
            self._keep(self.said.strip() if self.heard_ms is None else self._heard())

    def cut(self, *, heard_ms: float) -> None:
        """Leave the words that were heard, for the model and for the client."""
        self.heard_ms = heard_ms
        if self.turns:
            self._keep(self._heard())
        for part in self.content:
            part["transcript"] = self._heard()

    def _heard(self) -> str:
        assert self.heard_ms is not None
        return heard_words(self.said, cut_ms=self.heard_ms, sound_ms=self.sound_ms, is_whole=self.is_whole)

    def _keep(self, text: str) -> None:
        if not isinstance(self.turns[0], Said) or self.turns[0].text != text:
            self.turns = [Said(role="assistant", text=text)] if text else []


class Conversation:
    """The items in their order."""

    def __init__(self, *, max_items: int, frame_ms: float) -> None:
        self._items: list[Item] = []
        self._max_items, self._frame_ms = max_items, frame_ms

    @property
    def turns(self) -> list[Turn]:
        """What the model reads."""
        return [turn for item in self._items for turn in item.turns]

    def add(self, item: Item, *, after: str | None = None) -> str | None:
        """Put an item behind another (by default the last, ``"root"``: first); the id before it."""
        if len(self._items) >= self._max_items:
            raise ClientError("invalid_value", f"A conversation has at most {self._max_items} items.")
        if any(item.id == other.id for other in self._items):
            raise ClientError("invalid_value", f"There is an item {item.id!r} already.", param="item.id")
        at = 0 if after == "root" else len(self._items) if after is None else self._index(after) + 1
        self._items.insert(at, item)
        return self._items[at - 1].id if at else None

    def get(self, item_id: Any, *, code: str = "item_not_found") -> Item:
        """The item of an id."""
        return self._items[self._index(item_id, code=code)]

    def delete(self, item_id: Any) -> Item:
        """Take an item out."""
        return self._items.pop(self._index(item_id))

    def truncate(self, item_id: Any, *, content_index: Any, audio_end_ms: Any) -> None:
        """Cut what an assistant has said at the sound that was heard, in whole frames of it."""
        item = self.get(item_id)
        if item.role != "assistant" or any(part.get("type") != "output_audio" for part in item.content):
            raise ClientError("item_truncate_invalid", "Only a spoken answer can be cut.", param="item_id")
        if content_index != 0 or isinstance(content_index, bool):
            raise ClientError("item_truncate_invalid", "content_index must be 0.", param="content_index")
        is_number = isinstance(audio_end_ms, int) and not isinstance(audio_end_ms, bool)
        if not is_number or not 0 <= audio_end_ms <= item.sound_ms + SLACK_MS:
            raise ClientError(
                "item_truncate_invalid",
                f"audio_end_ms must be a whole number from 0 to {int(item.sound_ms)}, the item's sound.",
                param="audio_end_ms",
            )
        is_end = audio_end_ms >= int(item.sound_ms)
        item.cut(heard_ms=item.sound_ms if is_end else audio_end_ms // self._frame_ms * self._frame_ms)

    def _index(self, item_id: Any, *, code: str = "item_not_found") -> int:
        for number, item in enumerate(self._items):
            if item.id == item_id:
                return number
        raise ClientError(code, "There is no item of this id.", param="item_id")


def new_id(prefix: str) -> str:
    """An id that nobody else has."""
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


def read_item(
    given: Any, *, audio_in: AudioFormat, new_ear: Callable[[], Ear] = Ear
) -> tuple[Item, list[Ear]]:
    """An item that a client brings, and the ears of its sound, which are closed."""
    if not isinstance(given, dict):
        raise ClientError("invalid_value", "item must be an object.", param="item")
    item_id = given.get("id") or new_id("item")
    if not isinstance(item_id, str) or len(item_id) > 64:
        raise ClientError("invalid_value", "item.id must be a string of at most 64 letters.", param="item.id")
    if not isinstance(given.get("type", "message"), str):
        raise ClientError("invalid_value", "item.type must be a string.", param="item.type")
    if given.get("type", "message") != "message":
        _check_size(given)
        return Item(id=item_id, role=None, content=[], other=dict(given)), []
    role = given.get("role")
    if role not in ROLES:
        raise ClientError("invalid_value", f"item.role must be one of {', '.join(ROLES)}.", param="item.role")
    parts = given.get("content")
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts
    ):
        raise ClientError(
            "invalid_value", "item.content must be a list of objects, each with a type.", param="item.content"
        )
    content = [shown(part) for part in parts]
    _check_size(content)
    turns = [turn for part in parts if (turn := _turn(part, role, audio_in, new_ear)) is not None]
    said = " ".join(turn.text for turn in turns if isinstance(turn, Said)) if role == "assistant" else ""
    ears = [turn for turn in turns if isinstance(turn, Ear)]
    return Item(id=item_id, role=role, content=content, turns=turns, said=said, is_whole=True), ears


def shown(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a message as clients see it: without sound, and a spoken one always with its transcript.

    That is null until there is one: stock clients refuse the part without it.
    """
    unheard = {"transcript": None} if part.get("type") == "input_audio" else {}
    return unheard | {key: value for key, value in part.items() if key != "audio"}


def _check_size(plain: Any) -> None:
    """Refuse what would fill the memory that a conversation may have, item by item."""
    if len(json.dumps(plain, ensure_ascii=False)) > MAX_CHARACTERS:
        raise ClientError(
            "invalid_value", f"An item has at most {MAX_CHARACTERS} characters without sound.", param="item"
        )


def _turn(
    part: Mapping[str, Any], role: Role, audio_in: AudioFormat, new_ear: Callable[[], Ear]
) -> Turn | None:
    """What the model reads of one part of a message; None for what it can't (pictures)."""
    if role == "user" and part.get("type") == "input_audio":
        data = parse_base64(part.get("audio"), param="item.content.audio")
        return _given_all(new_ear(), data, audio_in)
    text = part.get("text", part.get("transcript"))
    if text is None:
        return None
    if not isinstance(text, str):
        raise ClientError("invalid_value", "item.content.text must be a string.", param="item.content.text")
    return Said(role=role, text=text.strip()) if text.strip() else None


def _given_all(ear: Ear, data: bytes, audio_in: AudioFormat) -> Ear:
    """The ear with all its sound, closed."""
    if len(data) % audio_in.bytes_per_sample:
        raise ClientError("invalid_audio", "The sound ends within a sample.", param="item.content.audio")
    heard = SoundIn(audio_in)
    samples = torch.cat([heard.push(data), heard.finish()])
    if len(samples) < 1600:
        raise ClientError("invalid_audio", "Sound of at least 100 ms is needed.", param="item.content.audio")
    ear.push(samples)
    ear.close()
    return ear


def ears_of(turns: Iterable[Turn]) -> list[Ear]:
    """The spoken ones of some turns."""
    return [turn for turn in turns if isinstance(turn, Ear)]
