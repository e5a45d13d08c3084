"""Spoken questions and the answers given to them, in the layouts of public tools."""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.records import Row, check_ids, read_csv, read_json, read_texts
from deeptalk.files import write_text


@dataclass(frozen=True, kw_only=True, slots=True)
class QaItem:
    """A question with every right answer; without any it can be asked, not scored.

    ``question`` is empty where the data has only the recording; ``audio`` is not looked for.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    audio: Path | None
    lang: str = "en"


def read_questions(
    path: Path, *, layout: str | None = None, answer_column: str | None = None
) -> tuple[QaItem, ...]:
    """The questions of a file, or of a folder of OpenAudioBench.

    Args:
        path: the file; paths of recordings are relative to its folder.
        layout: one of `LAYOUTS`; told from the fields of the first record unless given.
        answer_column: where ``ultraeval`` has the right answer.

    Raises:
        DataError: the file can't be read as this layout; the text says where.
        ConfigError: the layout is unknown or can't be told.
    """
    path = question_file(path)
    rows = read_csv(path) if path.suffix == ".csv" else read_json(path)
    if layout is None:
        layout = "openaudiobench" if path.suffix == ".csv" else _layout_of(rows)
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout is called {layout!r}; there are: {', '.join(LAYOUTS)}.")
    folder = path.parent
    if layout == "openaudiobench":
        items = tuple(_openaudiobench(row, path) for row in rows)
    elif layout == "ultraeval":
        items = tuple(_ultraeval(row, folder, answer_column) for row in rows)
    elif layout == "voicebench":
        items = tuple(_voicebench(row, number) for number, row in enumerate(rows))
    else:
        items = tuple(_READERS[layout](row, folder) for row in rows)
    check_ids(path, (item.id for item in items))
    return items


def question_file(path: Path) -> Path:
    """The file of a set: of a folder of OpenAudioBench the CSV of its name."""
    return path / f"{path.name}.csv" if path.is_dir() else path


def read_answers(path: Path, items: Sequence[QaItem], *, field: str = "text") -> dict[str, str]:
    """What was answered, by id: questions that the file lacks are missing here.

    A JSON list of ``[answer, right answer]`` (``vita``) and lines with a ``response`` (``voicebench``) have
    no ids: they must have as many entries as ``items``. Other lines have an ``id`` and the text in
    ``field``; null stands for no answer.

    Raises:
        DataError: the file is of another set, or can't be read.
    """
    if path.suffix == ".json":
        return _read_vita_answers(path, items)
    rows = read_json(path)
    if rows and "response" in rows[0].values and "id" not in rows[0].values:
        _check_count(path, len(rows), len(items))
        return {item.id: row.text("response") for item, row in zip(items, rows, strict=True)}
    given = read_texts(path, field=field)
    known = {item.id for item in items}
    for name in given:
        if name not in known:
            raise DataError(f"{path}: {name!r} is no question of this set.")
    return given


def write_vita(path: Path, items: Sequence[QaItem], answers: Mapping[str, str]) -> None:
    """A list of ``[answer, right answers]`` of all questions, for VITA-Audio's scorer; no answer is empty."""
    pairs = [[answers.get(item.id, ""), list(item.answers)] for item in items]
    write_text(path, json.dumps(pairs, ensure_ascii=False, indent=1) + "\n")


def write_voicebench(path: Path, items: Sequence[QaItem], answers: Mapping[str, str]) -> None:
    """Lines with ``prompt``, ``reference`` and ``response`` of all questions, for VoiceBench's scorer."""
    lines = [
        {"prompt": item.question, "reference": list(item.answers), "response": answers.get(item.id, "")}
        for item in items
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _native(row: Row, folder: Path) -> QaItem:
    audio = row.values.get("audio")
    return QaItem(
        id=row.text("id"),
        question=row.text("question", default=""),
        answers=_answers(row, "answers"),
        audio=None if audio is None else folder / row.text("audio"),
        lang=row.text("lang", default="en"),
    )


def _vita(row: Row, folder: Path) -> QaItem:
    messages, audios = row.values.get("messages"), row.values.get("audios")
    try:
        asked, answered = messages[-2:]  # pyright: ignore  # a system message may come first
        question, (audio,) = _only(asked["content"]), audios  # pyright: ignore
        is_turn = (asked["role"], answered["role"]) == ("user", "assistant")
        said = Row(values={"content": answered["content"]}, place=row.place)
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(f"{row.place}: a question, its answer and one recording are expected.") from error
    if not is_turn or not isinstance(question, str) or not isinstance(audio, str):
        raise DataError(f"{row.place}: a question, its answer and one recording are expected.")
    return QaItem(
        id=Path(audio).stem,
        question=question.replace("<|audio|>", "").strip(),
        answers=_answers(said, "content"),
        audio=folder / audio,
    )


def _kimi(row: Row, folder: Path) -> QaItem:
    if "index" not in row.values:
        raise DataError(f"{row.place}: there is no 'index'.")
    return QaItem(
        id=str(row.values["index"]),
        question=row.text("question"),
        answers=_answers(row, "answer"),
        audio=folder / row.text("audio_path"),
    )


def _release(row: Row, folder: Path) -> QaItem:
    """The authors' own input, without right answers."""
    audio = row.text("wavpath")
    return QaItem(id=Path(audio).stem, question=row.text("question"), answers=(), audio=folder / audio)


def _ultraeval(row: Row, folder: Path, column: str | None) -> QaItem:
    if column is None or column not in row.values:
        raise DataError(
            f"{row.place}: name the column of the right answers, one of {', '.join(row.values)}; "
            f"got {column!r}."
        )
    audio = row.text("WavPath")
    return QaItem(
        id=Path(audio).stem,
        question=row.text("question", default=""),
        answers=_answers(row, column),
        audio=folder / audio,
    )


def _voicebench(row: Row, number: int) -> QaItem:
    """There are no ids: a question is known by its place. What only a judge can score has no answers."""
    answers = _answers(row, "reference") if row.values.get("reference") is not None else ()
    return QaItem(id=str(number), question=row.text("prompt"), answers=answers, audio=None)


_OPENAUDIOBENCH = {
    "llama_questions": ("Questions", "Answer", None),
    "web_questions": ("question", "answers", ";"),
    "trivia_qa": ("question", "answer_normalized_aliases", ","),
}


def _openaudiobench(row: Row, path: Path) -> QaItem:
    if path.stem not in _OPENAUDIOBENCH:
        raise DataError(
            f"{path}: no set of OpenAudioBench that is read; the file's name must be one of "
            f"{', '.join(name + '.csv' for name in _OPENAUDIOBENCH)}."
        )
    question, answers, separator = _OPENAUDIOBENCH[path.stem]
    audio = row.text("audio_filename")
    return QaItem(
        id=Path(audio).stem,
        question=row.text(question),
        answers=_answers(row, answers, separator=separator),
        audio=path.parent / "audios" / audio,
    )


_READERS: Mapping[str, Callable[[Row, Path], QaItem]] = {
    "native": _native,
    "vita": _vita,
    "kimi": _kimi,
    "release": _release,
}
LAYOUTS = (*_READERS, "ultraeval", "voicebench", "openaudiobench")
"""The layouts that are read."""

_TOLD_BY = {
    "messages": "vita",
    "audio_content": "kimi",
    "audio_path": "kimi",
    "WavPath": "ultraeval",
    "wavpath": "release",
    "answers": "native",
    "prompt": "voicebench",
}


def _layout_of(rows: Sequence[Row]) -> str:
    fields = rows[0].values if rows else {}
    for field, layout in _TOLD_BY.items():
        if field in fields:
            return layout
    raise ConfigError(
        f"the layout can't be told: none of the fields {', '.join(_TOLD_BY)} is among {', '.join(fields)}; "
        f"name it with --layout: {', '.join(LAYOUTS)}."
    )


def _answers(row: Row, name: str, *, separator: str | None = None) -> tuple[str, ...]:
    """One text, a list of them, a list written as text, or texts between separators."""
    value = _list_in(row, row.values.get(name))
    if isinstance(value, str):
        value = [part.strip() for part in value.split(separator)] if separator else [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{row.place}: {name!r} must be a text or a list of texts, got {value!r}.")
    return tuple(value)


def _list_in(row: Row, value: Any) -> Any:
    if not isinstance(value, str) or not (value.startswith("[") and value.endswith("]")):
        return value
    if re.search(r"""['"]\s+['"]""", value):
        raise DataError(f"{row.place}: a list without commas, {value[:60]!r}: its texts would run together.")
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _only(content: Any) -> Any:
    return content[0] if isinstance(content, list) and len(content) == 1 else content


def _read_vita_answers(path: Path, items: Sequence[QaItem]) -> dict[str, str]:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))
        answers = [
            (str(answer), [right] if isinstance(right, str) else list(right)) for answer, right in pairs
        ]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: a list of [answer, right answer] is expected ({error}).") from error
    _check_count(path, len(answers), len(items))
    for number, (item, (_, right)) in enumerate(zip(items, answers, strict=True)):
        if tuple(right) != item.answers:
            raise DataError(f"{path}, entry {number}: the right answer is {right}, not that of {item.id!r}.")
    return {item.id: answer for item, (answer, _) in zip(items, answers, strict=True)}


def _check_count(path: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise DataError(
            f"{path}: {found} answers to {wanted} questions, and no ids: which are missing can't be told."
        )
