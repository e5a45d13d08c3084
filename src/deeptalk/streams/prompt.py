"""Turns of a dialogue as a grid of ids, one column per position (method.md, sections 2.3 and 4).

``prompt | p0 | item 0 | item 1 | …``: p0 is the last word of the template before the answer and carries the
mode token. Text answers begin at item 0, codebook *i* at item *i* + 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from deeptalk.errors import DataError
from deeptalk.shapes import Int, Tensor
from deeptalk.streams.delay import DelayPattern
from deeptalk.streams.layout import IGNORE, TEXT, StreamLayout, row_of
from deeptalk.streams.modality import Kind, Row
from deeptalk.streams.text import TextCodec

NO_SPEECH = -1
"""The ``speech_at`` of a position that holds no speech frame."""

READ_ALOUD = "Read this aloud: {text}"
"""How a user asks to hear a text."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Turn:
    """One turn of a dialogue: text, or for the user ``num_speech_frames`` adapter frames of speech.

    Speech may come with its text, which the model is not shown: it is what training says was heard. Instead
    of sound, a user's turn of as many frames may hold the text id that each is ``heard_as``.
    ``codes`` (without delay), ``speaker`` and ``said`` belong to an assistant's turn that was recorded; the
    latter is the number of the word that each frame says, and its phones.
    """

    role: Literal["system", "user", "assistant"]
    text: str | None = None
    num_speech_frames: int | None = None
    heard_as: tuple[int, ...] | None = None
    codes: Int[Tensor, "L Q"] | None = None
    said: Int[Tensor, "L S"] | None = None
    speaker: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise DataError(f"role must be system, user or assistant, got {self.role!r}.")
        if self.num_speech_frames is None:
            if self.text is None:
                raise DataError(f"A turn of the {self.role} needs text or speech.")
        elif self.role != "user" or self.num_speech_frames < 1:
            raise DataError("Speech of at least one frame may come in the user's turns only.")
        if self.heard_as is not None and len(self.heard_as) != self.num_speech_frames:
            raise DataError(
                f"heard_as needs {self.num_speech_frames} ids, one for each frame, got {len(self.heard_as)}."
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prompt:
    """A dialogue up to p0; ``speech_at`` counts the adapter frames of all its clips, -1 elsewhere."""

    grid: Int[Tensor, "K T"]
    kind: Int[Tensor, "T"]
    speech_at: Int[Tensor, "T"]
    row: Row


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """A dialogue with its answers; ``labels[:, q]`` is what position q has to predict, or ``IGNORE``.

    ``said[q]`` is what sounds in the frame whose first code position q predicts, where known: the text id in
    which the word begins, and phones. ``heard`` are the text ids of each clip, none where nobody knows.
    """

    grid: Int[Tensor, "K T"]
    labels: Int[Tensor, "K T"]
    kind: Int[Tensor, "T"]
    speech_at: Int[Tensor, "T"]
    row: Row
    said: Int[Tensor, "T S"] | None = None
    heard: tuple[Int[Tensor, "W"], ...] = ()


class _Columns:
    """A grid that grows to the right; the codec streams are padded unless set."""

    def __init__(self, layout: StreamLayout) -> None:
        self.layout = layout
        self.text: list[int] = []
        self.kind: list[int] = []
        self.speech_at: list[int] = []
        self.audio: list[tuple[int, Tensor | int]] = []
        self.targets: list[tuple[int, int]] = []
        self.num_frames = 0

    def add_text(self, ids: Sequence[int], kind: Kind) -> None:
        self.text += ids
        self.kind += [int(kind)] * len(ids)
        self.speech_at += [NO_SPEECH] * len(ids)

    def add_speech(self, num_frames: int, heard_as: Sequence[int] | None = None) -> None:
        start, size = len(self.text), num_frames + 2
        self.audio += [(start, self.layout.boa), (start + size - 1, self.layout.eoa)]
        self.kind += [int(Kind.SPEECH)] * size
        if heard_as is not None:
            self.text += [self.layout.text_aud, *heard_as, self.layout.text_aud]
            self.speech_at += [NO_SPEECH] * size
            return
        self.text += [self.layout.text_aud] * size
        frames = range(self.num_frames, self.num_frames + num_frames)
        self.speech_at += [NO_SPEECH, *frames, NO_SPEECH]
        self.num_frames += num_frames

    def add_mode(self, mode_id: int) -> None:
        """Make the last column p0."""
        self.kind[-1] = int(Kind.ANSWER)
        self.audio.append((len(self.text) - 1, mode_id))

    def add_answer(self, ids: Sequence[int], codes: Tensor | None) -> None:
        """Write the items of an answer: text and, delayed, codes."""
        start = len(self.text)
        delayed = None if codes is None else _delayed(codes, self.layout)
        length = max(len(ids), 0 if delayed is None else delayed.shape[-1])
        self.targets.append((start, start + len(ids)))
        self.add_text([*ids, *[self.layout.text_pad] * (length - len(ids))], Kind.ANSWER)
        if delayed is not None:
            self.audio.append((start, delayed))

    def grid(self) -> Int[Tensor, "K T"]:
        streams, steps = self.layout.num_streams, len(self.text)
        grid = torch.full((streams, steps), self.layout.pad_audio)
        grid[TEXT] = torch.tensor(self.text)
        for start, ids in self.audio:
            if isinstance(ids, int):
                grid[1:, start] = ids
            else:
                grid[1:, start : start + ids.shape[-1]] = ids
        return grid


def encode_prompt(
    turns: Sequence[Turn],
    *,
    tokenizer: TextCodec,
    layout: StreamLayout,
    mode: str,
    is_continuation: bool = False,
) -> Prompt:
    """The positions up to p0, where an answer to the last turn begins.

    ``turns`` end with the user's; ``mode`` is ``text``, ``asr``, ``answer`` or ``speaker:<name>``. A
    continuation follows an answer that is in the cache already, so it has no BOS.
    """
    if not turns or turns[-1].role != "user":
        raise DataError("A prompt must end with a turn of the user: the answer follows it.")
    columns = _Columns(layout)
    _write_history(columns, turns, tokenizer=tokenizer, mode=mode, is_continuation=is_continuation)
    _open_answer(columns, tokenizer, layout.mode_id(mode))
    return Prompt(
        grid=columns.grid(),
        kind=torch.tensor(columns.kind),
        speech_at=torch.tensor(columns.speech_at),
        row=row_of(mode),
    )


def encode_dialogue(
    turns: Sequence[Turn],
    *,
    tokenizer: TextCodec,
    layout: StreamLayout,
    mode: str,
    max_positions: int | None = None,
) -> Example:
    """A whole dialogue with labels; its last turn is the assistant's.

    In mode ``text`` all answers are learnt, else the last alone, earlier ones being text. A dialogue of
    more than ``max_positions`` positions is a ``DataError``: nothing is cut.
    """
    if not turns or turns[-1].role != "assistant":
        raise DataError("A dialogue to learn from must end with a turn of the assistant.")
    answer = turns[-1]
    codes = _checked_codes(answer, layout, mode)
    columns = _Columns(layout)
    _write_history(columns, turns[:-1], tokenizer=tokenizer, mode=mode)
    _open_answer(columns, tokenizer, layout.mode_id(mode))
    columns.add_answer(_answer_ids(answer, tokenizer, layout), codes)
    if max_positions is not None and len(columns.text) > max_positions:
        raise DataError(f"A dialogue has {len(columns.text)} positions, at most {max_positions} are allowed.")
    grid = columns.grid()
    return Example(
        grid=grid,
        labels=_labels(grid, columns.targets, layout, learns_codes=codes is not None),
        kind=torch.tensor(columns.kind),
        speech_at=torch.tensor(columns.speech_at),
        row=row_of(mode),
        said=None if codes is None else _placed_said(answer, columns, tokenizer, layout),
        heard=tuple(
            _user_ids(turn, tokenizer, layout)
            for turn in turns
            if turn.num_speech_frames is not None and turn.heard_as is None
        ),
    )


def count_positions(turns: Sequence[Turn], *, tokenizer: TextCodec, layout: StreamLayout, mode: str) -> int:
    """How many positions `encode_dialogue` would give these turns, without making the grid."""
    total = int(layout.template.bos)
    for turn in turns:
        before, after = layout.template.around(turn.role)
        is_last = turn is turns[-1]
        is_open = is_last or (turn.role == "assistant" and mode == "text")
        total += _num_tokens(tokenizer, before) + (0 if is_open else _num_tokens(tokenizer, after))
        if turn.num_speech_frames is not None:
            total += turn.num_speech_frames + 2
            continue
        words = len(tokenizer.encode(layout.template.lead + (turn.text or "")))
        items = words + 1 if turn.role == "assistant" else words
        if is_last and turn.codes is not None and row_of(mode) is Row.SPEECH:
            items = max(items, len(turn.codes) + 1 + layout.num_codebooks)
        total += items
    return total


@lru_cache(maxsize=64)
def _num_tokens(tokenizer: TextCodec, text: str) -> int:
    return len(tokenizer.encode(text)) if text else 0


def _write_history(
    columns: _Columns,
    turns: Sequence[Turn],
    *,
    tokenizer: TextCodec,
    mode: str,
    is_continuation: bool = False,
) -> None:
    layout = columns.layout
    if layout.template.bos and not is_continuation:
        columns.add_text([layout.bos_id], Kind.TEMPLATE)
    for turn in turns:
        if turn.role == "assistant" and mode == "text":
            _open_answer(columns, tokenizer, layout.pad_audio)
            columns.add_answer(_answer_ids(turn, tokenizer, layout), None)
            continue
        before, after = layout.template.around(turn.role)
        columns.add_text(tokenizer.encode(before) if before else [], Kind.TEMPLATE)
        if turn.num_speech_frames is not None:
            columns.add_speech(turn.num_speech_frames, turn.heard_as)
        elif turn.role == "assistant":
            columns.add_text(_answer_ids(turn, tokenizer, layout), Kind.TEXT)
        else:
            columns.add_text(tokenizer.encode(layout.template.lead + (turn.text or "")), Kind.TEXT)
        columns.add_text(tokenizer.encode(after) if after else [], Kind.TEMPLATE)


def _open_answer(columns: _Columns, tokenizer: TextCodec, mode_id: int) -> None:
    before, _ = columns.layout.template.around("assistant")
    columns.add_text(tokenizer.encode(before), Kind.TEMPLATE)
    columns.add_mode(mode_id)


def _answer_ids(turn: Turn, tokenizer: TextCodec, layout: StreamLayout) -> list[int]:
    return [*tokenizer.encode(layout.template.lead + (turn.text or "")), layout.eos_id]


def _user_ids(turn: Turn, tokenizer: TextCodec, layout: StreamLayout) -> Int[Tensor, "W"]:
    """The ids that a turn would have if it were typed."""
    ids = [] if turn.text is None else tokenizer.encode(layout.template.lead + turn.text)
    return torch.tensor(ids, dtype=torch.long)


def _checked_codes(answer: Turn, layout: StreamLayout, mode: str) -> Tensor | None:
    """The codes that ``mode`` learns from: none for text, those of the last turn for speech."""
    if row_of(mode) is Row.TEXT:
        return None
    codes = answer.codes
    if codes is None:
        raise DataError(f"Mode {mode} needs the codes of the last answer; it has text only.")
    if codes.ndim != 2 or codes.shape[0] < 1 or codes.shape[1] != layout.num_codebooks:
        raise DataError(f"Codes must have shape [L >= 1, {layout.num_codebooks}], got {list(codes.shape)}.")
    least, most = int(codes.min()), int(codes.max())
    if least < 0 or most >= layout.codebook_size:
        raise DataError(f"Codes must be from 0 to {layout.codebook_size - 1}, got {least} to {most}.")
    return codes


def _delayed(codes: Int[Tensor, "L Q"], layout: StreamLayout) -> Int[Tensor, "Q T2"]:
    """Codes and EOA of every codebook, codebook i beginning i + 1 items late."""
    ends = torch.full((1, layout.num_codebooks), layout.eoa)
    whole = torch.cat([codes.long(), ends]).T[None]
    pattern = DelayPattern(tuple(range(1, layout.num_codebooks + 1)))
    return pattern.apply(whole, pad_ids=layout.pad_ids[1:])[0]


def _placed_said(
    answer: Turn, columns: _Columns, tokenizer: TextCodec, layout: StreamLayout
) -> Int[Tensor, "T S"] | None:
    """What the answer says, at the positions that predict the first code of each frame."""
    if answer.said is None:
        return None
    start, size = columns.targets[-1][0], len(columns.text)
    placed = torch.full((size, answer.said.shape[1]), IGNORE)
    placed[start : start + len(answer.said)] = answer.said
    first_ids = _first_ids(layout.template.lead + (answer.text or ""), tokenizer)
    for frame, word in enumerate(answer.said[:, 0].tolist(), start):
        placed[frame, 0] = first_ids[word] if 0 <= word < len(first_ids) else IGNORE
    return placed


def _first_ids(text: str, tokenizer: TextCodec) -> list[int]:
    """The id in which each word begins; words are parted by spaces and have a letter or digit."""
    found: list[int] = []
    between = True
    for token in tokenizer.encode(text):
        piece = tokenizer.decode([token])
        if piece[:1].isspace():
            between = True
        if between and any(map(str.isalnum, piece)):
            found.append(token)
            between = False
    return found


def _labels(
    grid: Int[Tensor, "K T"], targets: list[tuple[int, int]], layout: StreamLayout, *, learns_codes: bool
) -> Int[Tensor, "K T"]:
    """What each position predicts: the grid one position later, where that is text, a code or EOA."""
    learnt = torch.full_like(grid, IGNORE)
    for start, end in targets:
        learnt[TEXT, start:end] = grid[TEXT, start:end]
    if learns_codes:
        start = targets[-1][0]
        items = grid[1:, start:]
        learnt[1:, start:] = torch.where(items <= layout.eoa, items, IGNORE)
    labels = torch.full_like(grid, IGNORE)
    labels[:, :-1] = learnt[:, 1:]
    return labels
