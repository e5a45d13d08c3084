"""Corpora for speech recognition; the layouts are those that lhotse's recipes of the same names read."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deeptalk.data.corpora.corpus import NOT_STATED, Corpus, Manifests
from deeptalk.data.manifest import Record
from deeptalk.errors import DataError


def _read_librispeech(folder: Path) -> Manifests:
    """``PART/SPEAKER/CHAPTER/`` with a transcript file and a FLAC for each of its lines."""
    root = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    parts = sorted(path for path in root.iterdir() if path.is_dir() and any(path.glob("*/*/*.trans.txt")))
    if not parts:
        raise DataError(f"{root}: no PART/SPEAKER/CHAPTER/*.trans.txt of LibriSpeech below it.")
    manifests: dict[str, Iterator[Record]] = {
        f"librispeech-{part.name}": _librispeech_part(part) for part in parts
    }
    to_read = [part for part in parts if part.name.startswith("train")]
    if to_read:
        manifests["librispeech-sentences"] = _sentences(to_read)
    return manifests


def _librispeech_part(part: Path) -> Iterator[Record]:
    for chapter in sorted(part.glob("*/*")):
        for path in sorted(chapter.glob("*.trans.txt")):
            for name, text in _transcripts(path):
                audio = chapter / f"{name}.flac"
                yield {
                    "id": name,
                    "audio": str(audio.resolve()),
                    "text": text,
                    "speaker": chapter.parent.name,
                }


def _sentences(parts: list[Path]) -> Iterator[Record]:
    """What pairs of stage RL are asked to read: each text once, in lower case as a person would type it."""
    seen: set[str] = set()
    for part in parts:
        for record in _librispeech_part(part):
            text = str(record["text"]).lower()
            if text not in seen:
                seen.add(text)
                yield {"id": record["id"], "text": text}


def _read_aishell(folder: Path) -> Manifests:
    """``wav/PART/SPEAKER/ID.wav`` (unpacked), and one file with every transcript, words parted by spaces."""
    root = folder / "data_aishell" if (folder / "data_aishell").is_dir() else folder
    path = root / "transcript" / "aishell_transcript_v0.8.txt"
    if not path.is_file():
        raise DataError(f"{path} is missing; give the folder data_aishell of AISHELL-1.")
    texts = {name: "".join(text.split()).translate(_NARROW).upper() for name, text in _transcripts(path)}
    parts = [part for part in ("train", "dev", "test") if (root / "wav" / part).is_dir()]
    if not parts:
        raise DataError(f"{root / 'wav'} holds no train, dev or test; unpack the archives of speakers in it.")
    return {f"aishell-1-{part}": _aishell_part(root / "wav" / part, texts) for part in parts}


_NARROW = str.maketrans("ａｂｃｋｔ", "abckt")
"""Wide letters that stand in some of AISHELL-1's transcripts; recipes write them narrow, and in capitals."""


def _aishell_part(folder: Path, texts: dict[str, str]) -> Iterator[Record]:
    for path in sorted(folder.glob("*/*.wav")):
        text = texts.get(path.stem, "")
        yield {"id": path.stem, "audio": str(path.resolve()), "text": text, "speaker": path.parent.name}


def _transcripts(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of a file of transcripts: the name of a recording, and its words."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as UTF-8 ({error}).") from error
    for line in lines:
        name, _, text = line.partition(" ")
        yield name, text


def _read_wenetspeech(folder: Path) -> Manifests:
    """``WenetSpeech.json`` names long recordings with their segments, each in one or more subsets.

    Subsets none of whose recordings are there are left out: few people unpack them all.
    """
    path = folder / "WenetSpeech.json"
    try:
        audios = json.loads(path.read_text(encoding="utf-8"))["audios"]
        manifests = defaultdict[str, list[tuple[Any, Any]]](list)
        for audio in audios:
            for segment in audio["segments"]:
                for subset in segment["subsets"]:
                    manifests[subset].append((audio, segment))
        names = {
            subset: f"wenetspeech-{subset.lower().replace('_', '-')}"
            for subset, found in manifests.items()
            if any((folder / audio["path"]).is_file() for audio, _ in found)
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not the index of WenetSpeech ({type(error).__name__}: {error})."
        ) from error
    if not names:
        raise DataError(f"{folder} holds none of the recordings that {path.name} names.")
    if "L" in names:
        names["L"] = "wenetspeech"  # the 10,000 hours of high confidence that the paper trains on
    return {name: _segments(folder, manifests[subset]) for subset, name in names.items()}


def _segments(folder: Path, found: list[tuple[Any, Any]]) -> Iterator[Record]:
    """Segments as records; one that lacks something is an empty record, to be rejected and counted."""
    for audio, segment in found:
        try:
            begin, end = segment["begin_time"], segment["end_time"]
            yield {
                "id": segment["sid"],
                "audio": str((folder / audio["path"]).resolve()),
                "offset": begin,
                "duration": round(end - begin, 6),
                "text": segment["text"].strip(),
            }
        except (LookupError, TypeError, AttributeError):
            yield {}


LIBRISPEECH = Corpus(
    name="librispeech",
    kind="recording",
    licence="CC-BY-4.0",
    source="https://www.openslr.org/12",
    lang="en",
    read=_read_librispeech,
)

AISHELL = Corpus(
    name="aishell-1",
    kind="recording",
    licence="Apache-2.0",
    source="https://www.openslr.org/33",
    lang="zh",
    read=_read_aishell,
)

WENETSPEECH = Corpus(
    name="wenetspeech",
    kind="recording",
    licence=NOT_STATED,
    source="https://github.com/wenet-e2e/WenetSpeech",
    lang="zh",
    read=_read_wenetspeech,
)
