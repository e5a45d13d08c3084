"""From a record to what the model learns from it: one function per kind of task.

| task | the user | the assistant | mode |
|---|---|---|---|
| ``asr`` | speech | its text | asr |
| ``speech_to_text`` | speech, history mixed | text, all turns | text |
| ``speech_to_speech`` | speech, history mixed | text and codes, last turn | speaker |
| ``text_to_text`` | text | text, all turns | text |
| ``text_as_heard`` | text, frame by frame as a ``worded`` model hears it | text, all turns | text |
| ``text_to_speech`` | text | text and codes, last turn | speaker |
| ``read_aloud`` | "Read this aloud: …" | the same words, with codes | speaker |
| ``recite`` | nothing | text that is given, with codes | speaker |
| ``repeat`` | "Read this aloud: …" | the same words | text |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch

from deeptalk.data.library import AnswerLibrary, Clip, ClipLibrary, SpeechReader, codes_of_message
from deeptalk.data.manifest import Kind
from deeptalk.errors import ConfigError, DataError
from deeptalk.shapes import Tensor
from deeptalk.streams import Example, StreamLayout, Turn, encode_dialogue
from deeptalk.streams.layout import IGNORE, TEXT, num_encoder_frames, num_speech_frames
from deeptalk.streams.prompt import READ_ALOUD, count_positions
from deeptalk.streams.text import TextCodec

TaskName = Literal[
    "asr",
    "speech_to_text",
    "speech_to_speech",
    "text_to_text",
    "text_as_heard",
    "text_to_speech",
    "read_aloud",
    "recite",
    "repeat",
]
Item = TypeVar("Item")
TASKS: tuple[TaskName, ...] = get_args(TaskName)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenExample:
    """An example and its clips in order, log-mel or encoder output."""

    example: Example
    speech: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskContext:
    """All that turning records into examples needs; `stride` is the adapter's.

    An earlier user turn is given as speech with probability `speech_history` where somebody says it. Clips of
    more than `max_frames` encoder frames can't be heard, as augmentation leaves them.
    """

    tokenizer: TextCodec
    layout: StreamLayout
    clips: ClipLibrary
    answers: AnswerLibrary
    reader: SpeechReader | None
    stride: int
    max_positions: int
    max_frames: int | None = None
    speech_history: float = 0.7


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """What an example will be made of: all is chosen, no speech is read; its frames are told ahead."""

    turns: tuple[tuple[Turn, Clip | None], ...]
    mode: str
    learns_text: bool = True

    def size(self, context: TaskContext) -> int:
        """How many positions the example will take."""
        turns = [turn for turn, _ in self.turns]
        return count_positions(turns, tokenizer=context.tokenizer, layout=context.layout, mode=self.mode)


def manifest_kind(task: str) -> Kind:
    """Which kind of manifest a task reads; `ConfigError` names the tasks there are."""
    if task not in TASKS:
        raise ConfigError(f"there is no task {task!r}; tasks are {', '.join(TASKS)}")
    if task == "repeat":
        return "sentence"
    if task in ("asr", "read_aloud", "recite"):
        return "recording"
    return "text" if task in ("text_to_text", "text_as_heard") else "dialogue"


def make_example(
    record: Mapping[str, Any], task: TaskName, context: TaskContext, generator: np.random.Generator
) -> SpokenExample:
    """The example of a record; `DataError` with a countable reason where it can't be made."""
    plan = plan_example(record, task, context, generator)
    turns, speech = [], []
    for turn, clip in plan.turns:
        if clip is not None:
            read = _read(clip, context, generator)
            turn = replace(turn, num_speech_frames=_num_positions(_num_frames(read, context), context))
            speech.append(read)
        turns.append(turn)
    example = encode_dialogue(turns, tokenizer=context.tokenizer, layout=context.layout, mode=plan.mode)
    if example.grid.shape[1] > context.max_positions:
        raise DataError("too long")
    if not plan.learns_text:
        example.labels[TEXT] = IGNORE
    return SpokenExample(example=example, speech=tuple(speech))


def plan_example(
    record: Mapping[str, Any], task: TaskName, context: TaskContext, generator: np.random.Generator
) -> Plan:
    """Choose what the example of a record is made of, by the same chance that `make_example` would take."""
    return _PLANNERS[task](record, context, generator)


def usable(record: Mapping[str, Any], task: TaskName, context: TaskContext) -> str | None:
    """Why a record can never serve a task, or None; told once, before anything is drawn."""
    if task in ("speech_to_text", "speech_to_speech") and not _spoken_ends(record, task, context):
        if task == "speech_to_text":
            return "question without speech"
        return _fault_of_voices(record, context) or "no spoken question with a spoken answer"
    if task == "text_to_speech" and not _answered(record, context):
        if not _is_told(record["messages"]):
            return "question without words"
        return _fault_of_voices(record, context) or "answer without codes"
    if task in ("read_aloud", "recite") and not context.answers.speakers(record["text"]):
        return "answer without codes"
    return None


def _plan_asr(record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator) -> Plan:
    return Plan(
        turns=(
            _heard(Clip.of(record), record["text"], context, generator),
            (Turn(role="assistant", text=record["text"]), None),
        ),
        mode="asr",
    )


def _plan_text(record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator) -> Plan:
    return Plan(turns=tuple(_written(message) for message in record["messages"]), mode="text")


def _plan_text_as_heard(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> Plan:
    """Facts of text reach the questions that are heard: most of the user's turns look like heard words."""
    turns = (
        _as_heard(message["text"], context, generator)
        if message["role"] == "user" and generator.random() < _HEARD_SHARE
        else _written(message)
        for message in record["messages"]
    )
    return Plan(turns=tuple(turns), mode="text")


def _plan_speech_to_text(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> Plan:
    last = _pick(_spoken_ends(record, "speech_to_text", context), generator)
    return Plan(turns=_mixed(record["messages"][: last + 1], context, generator), mode="text")


def _plan_speech_to_speech(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> Plan:
    last = _pick(_spoken_ends(record, "speech_to_speech", context), generator)
    turns = _mixed(record["messages"][:last], context, generator)
    return _with_answer(turns, record["messages"][last], context, generator)


def _plan_text_to_speech(
    record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator
) -> Plan:
    last = _pick(_answered(record, context), generator)
    turns = tuple(_written(message) for message in record["messages"][:last])
    return _with_answer(turns, record["messages"][last], context, generator)


def _plan_read_aloud(record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator) -> Plan:
    return _with_answer((_asked_aloud(record),), {"text": record["text"]}, context, generator)


def _plan_recite(record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator) -> Plan:
    """No prompt says what to say, as in an answer: the speech has its own text stream alone to read."""
    return replace(_with_answer((), {"text": record["text"]}, context, generator), learns_text=False)


def _plan_repeat(record: Mapping[str, Any], context: TaskContext, generator: np.random.Generator) -> Plan:
    answer = (Turn(role="assistant", text=record["text"]), None)
    return Plan(turns=(_asked_aloud(record), answer), mode="text")


_Planner = Callable[[Mapping[str, Any], TaskContext, np.random.Generator], Plan]
_PLANNERS: dict[TaskName, _Planner] = {
    "asr": _plan_asr,
    "speech_to_text": _plan_speech_to_text,
    "speech_to_speech": _plan_speech_to_speech,
    "text_to_text": _plan_text,
    "text_as_heard": _plan_text_as_heard,
    "text_to_speech": _plan_text_to_speech,
    "read_aloud": _plan_read_aloud,
    "recite": _plan_recite,
    "repeat": _plan_repeat,
}

_PlannedTurn = tuple[Turn, Clip | None]
_HEARD_SHARE, _HEARD_WRONG, _HEARD_TWICE = 0.85, 0.04, 0.3
_FRAMES_PER_LETTER = (0.5, 1.0)
"""Of speech frames of four encoder frames, 80 ms."""


def _written(message: Mapping[str, Any]) -> _PlannedTurn:
    return Turn(role=message["role"], text=message["text"]), None


def _as_heard(text: str, context: TaskContext, generator: np.random.Generator) -> _PlannedTurn:
    """Each id once or twice among frames that say nothing, as many as its letters take; a few are wrong."""
    layout, tokenizer = context.layout, context.tokenizer
    rate = generator.uniform(*_FRAMES_PER_LETTER) * 4 / context.stride
    nothing = layout.text_eot
    heard = [nothing] * int(generator.integers(3))
    for token in tokenizer.encode(layout.template.lead + text):
        letters = sum(map(str.isalnum, tokenizer.decode([token])))
        frames = [nothing] * max(1, round(letters * rate * generator.uniform(0.7, 1.3)))
        at = int(generator.integers(len(frames)))
        is_wrong = generator.random() < _HEARD_WRONG
        frames[at] = int(generator.integers(layout.vocab_size)) if is_wrong else token
        if at + 1 < len(frames) and generator.random() < _HEARD_TWICE:
            frames[at + 1] = frames[at]
        heard += frames
    heard += [nothing] * int(generator.integers(3))
    return Turn(role="user", text=text, num_speech_frames=len(heard), heard_as=tuple(heard)), None


def _asked_aloud(record: Mapping[str, Any]) -> _PlannedTurn:
    return Turn(role="user", text=READ_ALOUD.format(text=record["text"])), None


def _with_answer(
    turns: tuple[_PlannedTurn, ...],
    message: Mapping[str, Any],
    context: TaskContext,
    generator: np.random.Generator,
) -> Plan:
    """The dialogue ended by a spoken answer, in the voice of the record or one of those that say it."""
    text = message["text"]
    if "codes" in message:
        speaker = message.get("speaker")
        codes = codes_of_message(message, codebook_size=context.layout.codebook_size)
        said = None
    else:
        speakers = context.answers.speakers(text)
        if not speakers:
            raise DataError("answer without codes")
        speaker = _pick(speakers, generator)
        codes, said = context.answers.read(text, speaker), context.answers.said(text, speaker)
    answer = Turn(role="assistant", text=text, codes=codes, said=said, speaker=speaker)
    return Plan(turns=(*turns, (answer, None)), mode=f"speaker:{speaker}" if speaker else "answer")


def _mixed(
    messages: Sequence[Mapping[str, Any]], context: TaskContext, generator: np.random.Generator
) -> tuple[_PlannedTurn, ...]:
    """Turns of a dialogue, the last question as speech, earlier ones as speech or text by lot."""
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    turns: list[_PlannedTurn] = []
    for i, message in enumerate(messages):
        is_last = i == last
        is_by_lot = message["role"] == "user" and (is_last or generator.random() < context.speech_history)
        heard = is_by_lot or not message["text"]
        clip = _clip_of(message, context, generator) if heard else None
        if clip is None and is_last:
            raise DataError("question without speech")
        turns.append(_written(message) if clip is None else _heard(clip, message["text"], context, generator))
    return tuple(turns)


def _heard(clip: Clip, text: str, context: TaskContext, generator: np.random.Generator) -> _PlannedTurn:
    if context.reader is None:
        raise DataError("no reader of speech")
    clip = context.reader.place(clip, generator)
    frames = max(1, context.reader.num_frames(clip))
    _check_length(frames, context)
    return Turn(role="user", text=text, num_speech_frames=_num_positions(frames, context)), clip


def _read(clip: Clip, context: TaskContext, generator: np.random.Generator) -> Tensor:
    assert context.reader is not None, "a plan with clips was made with a reader"
    speech = context.reader.read(clip, generator)
    if _num_frames(speech, context) < 1:
        raise DataError("speech empty")
    _check_length(_num_frames(speech, context), context)
    if not torch.isfinite(speech).all():
        raise DataError("speech not finite")
    return speech


def _check_length(frames: int, context: TaskContext) -> None:
    if context.max_frames is not None and frames > context.max_frames:
        raise DataError("speech longer than the encoder hears")


def _num_frames(speech: Tensor, context: TaskContext) -> int:
    """Encoder frames of a clip that was read."""
    is_encoded = context.reader is not None and context.reader.is_encoded
    return speech.shape[0] if is_encoded else num_encoder_frames(speech.shape[1])


def _num_positions(frames: int, context: TaskContext) -> int:
    return num_speech_frames(frames, stride=context.stride)


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
    """Places of answers that somebody speaks, to questions whose words are known."""
    messages = record["messages"]
    return [
        i
        for i, message in enumerate(messages)
        if i and message["role"] == "assistant" and _is_told(messages[:i]) and _has_codes(message, context)
    ]


def _is_told(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the words of all turns are known; of some questions there is only the sound."""
    return all(message["text"] for message in messages)


def _has_codes(message: Mapping[str, Any], context: TaskContext) -> bool:
    if "codes" in message:
        return _has_voice(message, context)
    return bool(context.answers.speakers(message["text"]))


def _has_voice(message: Mapping[str, Any], context: TaskContext) -> bool:
    """Whether the model has the voice of an answer, or nobody says whose it is."""
    return message.get("speaker") is None or message["speaker"] in context.layout.speakers


def _fault_of_voices(record: Mapping[str, Any], context: TaskContext) -> str | None:
    is_known = all(_has_voice(message, context) for message in record["messages"] if "codes" in message)
    return None if is_known else "unknown speaker"


def _pick(items: Sequence[Item], generator: np.random.Generator) -> Item:
    if not items:
        raise DataError("nothing to choose from")
    return items[int(generator.integers(len(items)))]
