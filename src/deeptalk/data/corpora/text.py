"""Sets of written questions and answers: instruction data as their cards describe them."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deeptalk.data.corpora.corpus import Corpus, Manifests
from deeptalk.data.manifest import Record
from deeptalk.errors import DataError


def _dialogue(name: str, question: object, answer: object, **more: Any) -> Record:
    """One question with its answer; what is no text stays, so that it is rejected and counted."""
    asked = {"role": "user", "text": question.strip() if isinstance(question, str) else question}
    told = {"role": "assistant", "text": answer.strip() if isinstance(answer, str) else answer}
    return {"id": name, "messages": [asked, told], **more}


def _read_math_instruct(folder: Path) -> Manifests:
    """``MathInstruct.json``: one list of ``source``, ``instruction``, ``output``."""
    path = _file(folder, "MathInstruct.json")
    rows = _parse(path, path.read_bytes())
    if not isinstance(rows, list):
        raise DataError(f"{path}: a list of objects is expected.")
    records = (
        _dialogue(f"math-instruct-{i}", row.get("instruction"), row.get("output"), part=row.get("source"))
        for i, row in enumerate(map(_object, rows))
    )
    return {"math-instruct": records}


def _read_dolly(folder: Path) -> Manifests:
    """``databricks-dolly-15k.jsonl``: ``instruction``, ``context`` (often empty), ``response``."""
    return {"dolly-15k": _dolly(_file(folder, "databricks-dolly-15k.jsonl"))}


def _dolly(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            row = _object(_parse(path, line))
            question, context = row.get("instruction"), row.get("context")
            if isinstance(question, str) and isinstance(context, str) and context.strip():
                question = f"{question.strip()}\n\n{context.strip()}"
            yield _dialogue(f"dolly-15k-{number}", question, row.get("response"), part=row.get("category"))


def _read_camel_ai_math(folder: Path) -> Manifests:
    """``math.zip`` or its JSON files: ``message_1`` is a problem, ``message_2`` its solution."""
    archive = folder if folder.is_file() else folder / "math.zip"
    if archive.is_file():
        return {"camel-ai-math": _camel_of_zip(archive)}
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise DataError(f"{folder} holds neither math.zip nor JSON files of camel-ai/math.")
    return {"camel-ai-math": (_camel(path.stem, _parse(path, path.read_bytes())) for path in paths)}


def _camel_of_zip(archive: Path) -> Iterator[Record]:
    try:
        with zipfile.ZipFile(archive) as packed:
            for name in sorted(name for name in packed.namelist() if name.endswith(".json")):
                yield _camel(Path(name).stem, _parse(archive / name, packed.read(name)))
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive} is no readable archive ({error}).") from error


def _camel(name: str, given: object) -> Record:
    row = _object(given)
    topic = row.get("topic;", row.get("topic"))  # the key is published with the semicolon
    return _dialogue(f"camel-ai-math-{name}", row.get("message_1"), row.get("message_2"), part=topic)


def _file(folder: Path, name: str) -> Path:
    path = folder if folder.is_file() else folder / name
    if not path.is_file():
        raise DataError(f"{path} is missing; give the folder that {name} was downloaded into.")
    return path


def _parse(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{path} is not readable as JSON ({error}).") from error


def _object(row: object) -> Mapping[str, Any]:
    return row if isinstance(row, dict) else {}


MATH_INSTRUCT = Corpus(
    name="math-instruct",
    kind="text",
    licence="MIT",
    source="https://huggingface.co/datasets/TIGER-Lab/MathInstruct",
    lang="en",
    read=_read_math_instruct,
)

DOLLY = Corpus(
    name="dolly-15k",
    kind="text",
    licence="CC-BY-SA-3.0",
    source="https://huggingface.co/datasets/databricks/databricks-dolly-15k",
    lang="en",
    read=_read_dolly,
)

CAMEL_AI_MATH = Corpus(
    name="camel-ai-math",
    kind="text",
    licence="CC-BY-NC-4.0",
    source="https://huggingface.co/datasets/camel-ai/math",
    lang="en",
    read=_read_camel_ai_math,
)
