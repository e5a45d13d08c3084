"""From a record to what the model learns from it: one function per kind of task.

| task | the user | the assistant | mode |
|---|---|---|---|
| ``asr`` | speech | its text | asr |
| ``speech_to_text`` | speech, history mixed | text, all turns | text |
| ``speech_to_speech`` | speech, history mixed | text and codes, last turn | speaker |
| ``text_to_text`` | text | text, all turns | text |
| ``text_to_speech`` | text | text and codes, last turn | speaker |
| ``read_aloud`` | "Read this aloud: …" | the same words, with codes | speaker |
| ``repeat`` | "Read this aloud: …" | the same words | text |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch

from deeptalk.data.library import AnswerLibrary, Clip, ClipLibrary, SpeechReader, codes_of_message
from deeptalk.data.manifest import Kind
from deeptalk.errors import ConfigError, DataError
from deeptalk.shapes import Tensor
from deeptalk.streams import Example, StreamLayout, Turn, encode_dialogue
from deeptalk.streams.layout import num_encoder_frames, num_speech_frames
from deeptalk.streams.prompt import READ_ALOUD
from deeptalk.streams.text import TextCodec

TaskName = Literal[
    "asr", "speech_to_text", "speech_to_speech", "text_to_text", "text_to_speech", "read_aloud", "repeat"
]
Item = TypeVar("Item")
TASKS: tuple[TaskName, ...] = get_args(TaskName)

_TEMPLATE_TOKENS = 4
_LETTERS_PER_SECOND = 14.0
_ENCODER_FRAMES_PER_SECOND = 50.0
_MARGIN_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenExample:
    """An example and its clips in order, log-mel or encoder output."""

    example: Example
    speech: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskContext:
    """All that turning records into examples needs; `stride` is the adapter's.

    An earlier user turn is given as speech with probability `speech_history` where somebody says it.
    """

    tokenizer: TextCodec
    layout: StreamLayout
    clips: ClipLibrary
    answers: AnswerLibrary
    reader: SpeechReader | None
    stride: int
    max_positions: int
    speech_history: float = 0.7


def manifest_kind(task: str) -> Kind:
    """Which kind of manifest a task reads; `ConfigError` names the tasks there are."""
    if task not in TASKS:
        raise ConfigError(f"there is no task {task!r}; tasks are {', '.join(TASKS)}")
    if task == "repeat":
        return "sentence"
    if task in ("asr", "read_aloud"):
        return "recording"
    return "text" if task == "text_to_text" else "dialogue"


def make_example(
    record: Mapping[str, Any], task: TaskName, context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    """The example of a record; `DataError` with a countable reason where it can't be made."""
    return _MAKERS[task](record, context, generator)


def usable(record: Mapping[str, Any], task: TaskName, context: TaskContext) -> str | None:
    """Why a record can never serve a task, or None; told once, before anything is drawn."""
    if task in ("speech_to_text", "speech_to_speech") and not _spoken_ends(record, task, context):
        return (
            "question without speech"
            if task == "speech_to_text"
            else "no spoken question with a spoken answer"
        )
    if task == "text_to_speech" and not _answered(record, context):
        return "answer without codes"
    if task == "read_aloud" and not context.answers.speakers(record["text"]):
        return "answer without codes"
    return None


def estimate_size(record: Mapping[str, Any], task: TaskName, context: TaskContext) -> int:
    """About how many positions an example takes: text is counted, speech estimated."""

    def tokens(text: str) -> int:
        return len(context.tokenizer.encode(context.layout.template.lead + text)) + _TEMPLATE_TOKENS

    if "messages" not in record:
        words = tokens(record["text"])
        if task == "asr":
            return round(words + _speech_frames(record, context))
        asked = tokens(READ_ALOUD.format(text=record["text"]))
        return asked + (
            max(words, context.answers.longest(record["text"])) if task == "read_aloud" else words
        )
    total, messages = 0.0, record["messages"]
    for message in messages:
        is_heard = task.startswith("speech_to") and message["role"] == "user"
        total += _speech_frames(message, context) if is_heard else tokens(message["text"])
    is_spoken = task in ("speech_to_speech", "text_to_speech")
    return round(total + (context.answers.longest(messages[-1]["text"]) if is_spoken else 0))


def _make_asr(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    heard = _heard(Clip.of(record), context, generator)
    return _encode([heard, (Turn(role="assistant", text=record["text"]), None)], "asr", context)


def _make_text(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    turns = [(Turn(role=m["role"], text=m["text"]), None) for m in record["messages"]]
    return _encode(turns, "text", context)


def _make_speech_to_text(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    last = _pick(_spoken_ends(record, "speech_to_text", context), generator)
    return _encode(
        _mixed(record["messages"][: last + 1], context, generator, must_hear=True), "text", context
    )


def _make_speech_to_speech(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    last = _pick(_spoken_ends(record, "speech_to_speech", context), generator)
    turns = _mixed(record["messages"][:last], context, generator, must_hear=True)
    return _with_answer(turns, record["messages"][last], context, generator)


def _make_text_to_speech(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    last = _pick(_answered(record, context), generator)
    turns = [(Turn(role=m["role"], text=m["text"]), None) for m in record["messages"][:last]]
    return _with_answer(turns, record["messages"][last], context, generator)


def _make_read_aloud(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    asked = [(Turn(role="user", text=READ_ALOUD.format(text=record["text"])), None)]
    return _with_answer(asked, {"role": "assistant", "text": record["text"]}, context, generator)


def _make_repeat(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    asked = Turn(role="user", text=READ_ALOUD.format(text=record["text"]))
    return _encode([(asked, None), (Turn(role="assistant", text=record["text"]), None)], "text", context)


_Maker = Callable[[Mapping[str, Any], TaskContext, np.random.Generator], SpokenExample]
_MAKERS: dict[TaskName, _Maker] = {
    "asr": _make_asr,
    "speech_to_text": _make_speech_to_text,
    "speech_to_speech": _make_speech_to_speech,
    "text_to_text": _make_text,
    "text_to_speech": _make_text_to_speech,
    "read_aloud": _make_read_aloud,
    "repeat": _make_repeat,
}

_HeardTurn = tuple[Turn, Tensor | None]


def _encode(turns: Sequence[_HeardTurn], mode: str, context: TaskContext) -> SpokenExample:
    example = encode_dialogue(
        [turn for turn, _ in turns], tokenizer=context.tokenizer, layout=context.layout, mode=mode
    )
    if example.grid.shape[1] > context.max_positions:
        raise DataError("too long")
    return SpokenExample(example=example, speech=tuple(clip for _, clip in turns if clip is not None))


def _with_answer(
    turns: Sequence[_HeardTurn],
    message: Mapping[str, Any],
    context: TaskContext,
    generator: np.random.Generator,
) -> SpokenExample:
    """The dialogue ended by a spoken answer, in the voice of the record or one of those that say it."""
    text = message["text"]
    if "codes" in message:
        speaker = message.get("speaker")
        codes = codes_of_message(message, codebook_size=context.layout.codebook_size)
    else:
        speakers = context.answers.speakers(text)
        if not speakers:
            raise DataError("answer without codes")
        speaker = _pick(speakers, generator)
        codes = context.answers.read(text, speaker)
    answer = Turn(role="assistant", text=text, codes=codes, speaker=speaker)
    return _encode([*turns, (answer, None)], f"speaker:{speaker}" if speaker else "answer", context)


def _mixed(
    messages: Sequence[Mapping[str, Any]],
    context: TaskContext,
    generator: np.random.Generator,
    *,
    must_hear: bool,
) -> list[_HeardTurn]:
    """Turns of a dialogue, the last question as speech, earlier ones as speech or text by lot."""
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    turns: list[_HeardTurn] = []
    for i, message in enumerate(messages):
        is_last = must_hear and i == last
        heard = message["role"] == "user" and (is_last or generator.random() < context.speech_history)
        clip = _clip_of(message, context, generator) if heard else None
        if clip is not None:
            turns.append(_heard(clip, context, generator))
        elif is_last:
            raise DataError("question without speech")
        else:
            turns.append((Turn(role=message["role"], text=message["text"]), None))
    return turns


def _heard(clip: Clip, context: TaskContext, generator: np.random.Generator) -> _HeardTurn:
    if context.reader is None:
        raise DataError("no reader of speech")
    speech = context.reader.read(clip, generator)
    frames = speech.shape[0] if context.reader.is_encoded else num_encoder_frames(speech.shape[1])
    if frames < 1 or not torch.isfinite(speech).all():
        raise DataError("speech empty or not finite")
    return Turn(role="user", num_speech_frames=num_speech_frames(frames, stride=context.stride)), speech


def _clip_of(message: Mapping[str, Any], context: TaskContext, generator: np.random.Generator) -> Clip | None:
    if "audio" in message:
        return Clip.of(message, id=f"{message['audio']}@{message.get('offset', 0.0)}")
    return context.clips.draw(message["text"], generator)


def _spoken_ends(record: Mapping[str, Any], task: str, context: TaskContext) -> list[int]:
    """Places of answers whose question somebody asks aloud, and for speech to speech somebody answers."""
    messages = record["messages"]
    return [
        i
        for i in range(1, len(messages))
        if messages[i]["role"] == "assistant"
        and messages[i - 1]["role"] == "user"
        and ("audio" in messages[i - 1] or messages[i - 1]["text"] in context.clips)
        and (task == "speech_to_text" or _has_codes(messages[i], context))
    ]


def _answered(record: Mapping[str, Any], context: TaskContext) -> list[int]:
    """Places of answers that somebody speaks."""
    return [
        i
        for i, message in enumerate(record["messages"])
        if i and message["role"] == "assistant" and _has_codes(message, context)
    ]


def _speech_frames(message: Mapping[str, Any], context: TaskContext) -> float:
    """About how many adapter frames the speech of a message takes."""
    seconds = message.get("duration") or len(message["text"]) / _LETTERS_PER_SECOND
    return _TEMPLATE_TOKENS + _ENCODER_FRAMES_PER_SECOND * (seconds + _MARGIN_SECONDS) / context.stride


def _has_codes(message: Mapping[str, Any], context: TaskContext) -> bool:
    return "codes" in message or bool(context.answers.speakers(message["text"]))


def _pick(items: Sequence[Item], generator: np.random.Generator) -> Item:
    if not items:
        raise DataError("nothing to choose from")
    return items[int(generator.integers(len(items)))]
