"""Recordings with their texts (to transcribe) and texts to say, in the layouts of public tools."""

from dataclasses import dataclass
from pathlib import Path

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.records import (
    check_ids,
    read_json,
    read_lines,
    read_pairs,
    read_texts,
    unique,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechItem:
    """A recording, which is not looked for, and what is said in it."""

    id: str
    audio: Path
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SayItem:
    """A text to say; the list may have a prompt for the voice, and the text as a person said it."""

    id: str
    text: str
    prompt_text: str | None = None
    prompt_audio: Path | None = None
    target_audio: Path | None = None


def read_speech(path: Path) -> tuple[SpeechItem, ...]:
    """The utterances of a set, told by what ``path`` is.

    A folder has Kaldi's ``wav.scp`` and ``text``; a ``.tsv`` is fairseq's, with a ``.wrd`` of as many lines
    beside it; a ``.jsonl`` has ``id``, ``audio`` and ``text``. Recipes of Kaldi, WeNet and fairseq prepare
    LibriSpeech, AISHELL-1 and WenetSpeech as these.

    Raises:
        DataError: a file can't be read, or two of them don't fit each other.
        ConfigError: ``path`` is none of these.
    """
    if path.is_dir():
        items = _kaldi(path)
    elif path.suffix == ".tsv":
        items = _fairseq(path)
    elif path.suffix == ".jsonl":
        items = [
            SpeechItem(id=row.text("id"), audio=path.parent / row.text("audio"), text=row.text("text"))
            for row in read_json(path)
        ]
    else:
        raise ConfigError(f"{path}: a folder with wav.scp and text, a .tsv or a .jsonl is expected.")
    check_ids(path, (item.id for item in items))
    return tuple(items)


def read_transcripts(path: Path, *, field: str = "text") -> dict[str, str]:
    """What was heard, by id: lines of JSON with ``id`` and ``field``, or of an id and a text (Kaldi).

    Null stands for no transcript: the utterance is missing here.
    """
    return read_texts(path, field=field) if path.suffix == ".jsonl" else read_pairs(path)


def read_references(path: Path) -> tuple[dict[str, str], Path]:
    """The right texts by id, and the file that they are in.

    ``path`` is what `read_speech` takes, a Seed-TTS list (``.lst``), or a file of an id and a text a line.
    """
    if path.suffix == ".lst":
        return {item.id: item.text for item in read_say_list(path)}, path
    if path.suffix == ".jsonl":
        return unique((row.place, row.text("id"), row.text("text")) for row in read_json(path)), path
    if path.is_dir() or path.suffix == ".tsv":
        file = path / "text" if path.is_dir() else path.with_suffix(".wrd")
        return {item.id: item.text for item in read_speech(path)}, file
    return read_pairs(path), path


def read_say_list(path: Path) -> tuple[SayItem, ...]:
    """The lines of a Seed-TTS list (``meta.lst``, ``hardcase.lst``), two to five fields between ``|``.

    Raises:
        DataError: a line has another number of fields or no text, or an id comes twice.
    """
    items = []
    for place, line in read_lines(path):
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 2:
            item = SayItem(id=fields[0], text=fields[1])
        elif len(fields) == 3:
            name = fields[0].removesuffix(".wav")
            item = SayItem(id=name, text=fields[1], prompt_audio=path.parent / fields[2])
        elif len(fields) in (4, 5):
            item = SayItem(
                id=fields[0],
                text=fields[3],
                prompt_text=fields[1],
                prompt_audio=path.parent / fields[2],
                target_audio=path.parent / fields[4] if len(fields) == 5 else None,
            )
        else:
            raise DataError(f"{place}: two to five fields between | are expected, got {len(fields)}.")
        if not item.id or not item.text:
            raise DataError(f"{place}: the id or the text is empty.")
        items.append(item)
    check_ids(path, (item.id for item in items))
    return tuple(items)


def _kaldi(folder: Path) -> list[SpeechItem]:
    audio, texts = read_pairs(folder / "wav.scp"), read_pairs(folder / "text")
    if apart := sorted(audio.keys() ^ texts.keys()):
        raise DataError(f"{folder}: {len(apart)} ids are in one of wav.scp and text only, as {apart[0]!r}.")
    return [SpeechItem(id=name, audio=folder / audio[name], text=text) for name, text in texts.items()]


def _fairseq(path: Path) -> list[SpeechItem]:
    (_, root), *entries = read_lines(path) or [("", "")]
    texts = read_lines(path.with_suffix(".wrd"))
    if len(entries) != len(texts):
        raise DataError(f"{path}: {len(entries)} recordings, and {len(texts)} lines in its .wrd.")
    names = [entry.split("\t")[0] for _, entry in entries]
    return [
        SpeechItem(id=Path(name).stem, audio=Path(root.strip()) / name, text=text.strip())
        for name, (_, text) in zip(names, texts, strict=True)
    ]
