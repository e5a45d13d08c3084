"""Manifests of published corpora, of a folder of one's own, and of evaluation sets."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deeptalk.cli.output import complain, console, print_json
from deeptalk.cli.progress import bars
from deeptalk.data.corpora import CORPORA, KnownQuestions, Prepared, prepare_records, read_folder
from deeptalk.data.corpora.corpus import NOT_STATED
from deeptalk.data.manifest import Kind, Record, write_lines
from deeptalk.data.shar import unpack_shar
from deeptalk.data.shards import Processes
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.question_sets import read_questions
from deeptalk.evaluation.benchmarks.speech_lists import read_references, read_say_list, read_speech

_EVERY = 1_000
"""Records between two words about progress."""

SEED_TTS_LISTS = {"zh/meta.lst": "zh", "en/meta.lst": "en", "zh/hardcase.lst": "hard"}
"""Of the published folder by the name that the paper's table 1 has for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Manifest:
    kind: Kind
    records: Iterable[Record]


def prepare_corpus(
    name: str,
    source: Path,
    out: Path,
    *,
    is_evaluation: bool,
    against: tuple[Path, ...] = (),
    licence: str | None = None,
    workers: int = 2,
    json: bool = False,
) -> None:
    """Write the manifests of a corpus into ``out``, all of them or none, and tell what was written.

    Raises:
        ConfigError: the options don't fit the corpus.
        DataError: the corpus isn't laid out as docs/data.md says, or nothing of it can be used.
    """
    if is_evaluation:
        if against:
            raise ConfigError(f"{name} is an evaluation set itself; --against is for training data.")
        _prepare_evaluation(name, source, out, licence=licence, json=json)
        return
    note = {"source": name, "license": licence or NOT_STATED}
    if name == "folder" and is_speech_list(source):
        note["source"] = source.resolve().stem
        manifests = {note["source"]: _Manifest(kind="recording", records=_listed(source))}
    elif name == "folder":
        note["source"] = source.resolve().name
        manifests = {
            key: _Manifest(kind=own.kind, records=own.records) for key, own in read_folder(source).items()
        }
    elif name == "shar":
        note["source"] = _shar_name(source)
        manifests = {note["source"]: _unpacked(source, out, workers=workers)}
    else:
        corpus = CORPORA[name]
        note["license"] = licence or corpus.licence
        if corpus.lang is not None:
            note["lang"] = corpus.lang
        manifests = {
            key: _Manifest(kind="sentence" if key.endswith("-sentences") else corpus.kind, records=records)
            for key, records in corpus.read(source).items()
        }
    known = KnownQuestions({str(path): _asked(path) for path in against}) if against else None
    with _together(out) as unfinished, bars() as show:
        prepared = [
            prepare_records(
                unfinished / f"{key}.jsonl",
                manifest.records,
                kind=manifest.kind,
                note=note,
                known=known,
                progress=_every(show, key),
            )
            for key, manifest in manifests.items()
        ]
    for one in prepared:
        _tell(out, one, note["license"], json=json)


def is_speech_list(path: Path) -> bool:
    """Whether a path is fairseq's ``.tsv`` (with a ``.wrd``), or a folder of Kaldi's ``wav.scp``."""
    return path.suffix == ".tsv" or (path.is_dir() and (path / "wav.scp").is_file())


def _listed(source: Path) -> Iterator[Record]:
    for item in read_speech(source):
        yield {"id": item.id, "audio": str(item.audio.resolve()), "text": item.text}


def _shar_name(source: Path) -> str:
    """What a folder of Shar is called: `deeptalk shar` writes it into one called shar."""
    folder = source.resolve()
    return folder.parent.name if folder.name == "shar" else folder.name


def _unpacked(source: Path, out: Path, *, workers: int) -> _Manifest:
    """The records of a Shar folder, whose sound and codes come to lie in speech/ of the data."""
    with bars() as show:
        found = unpack_shar(
            source,
            out / "speech" / _shar_name(source),
            workers=Processes(workers),
            progress=lambda done, total: show("shards", done, total),
        )
    for reason, count in found.rejects.items():
        complain(DataError(f"{source}: {count:,} left out, {reason}"))
    return _Manifest(kind=found.kind, records=found.records)


def _asked(path: Path) -> list[str]:
    """What an evaluation set asks, or has transcribed or said."""
    if path.suffix == ".lst" or is_speech_list(path):
        return list(read_references(path)[0].values())
    texts = [item.question for item in read_questions(path) if item.question]
    if not texts:
        raise DataError(f"{path} has recordings only: without their words nothing can be compared with it.")
    return texts


def _prepare_evaluation(name: str, source: Path, out: Path, *, licence: str | None, json: bool) -> None:
    """Question sets as lines that `deeptalk eval score-answers` reads, and sentences to say."""
    sets = _say_lists(source) if name == "seed-tts" else {name: _questions(source)}
    note = {"source": name, "license": licence or NOT_STATED}
    with _together(out) as unfinished:
        counts = {
            key: write_lines(unfinished / f"{key}.jsonl", ({**record, **note} for record in records))
            for key, records in sets.items()
        }
    kind = "sentence" if name == "seed-tts" else "questions"
    for key, count in counts.items():
        prepared = Prepared(manifest=key, kind=kind, num_records=count, hours=0.0)
        _tell(out, prepared, note["license"], json=json)


def _questions(source: Path) -> list[dict[str, Any]]:
    return [
        {
            "id": item.id,
            "audio": None if item.audio is None else str(item.audio.resolve()),
            "question": item.question,
            "answers": list(item.answers),
            "lang": item.lang,
        }
        for item in read_questions(source)
    ]


def _say_lists(source: Path) -> dict[str, list[dict[str, Any]]]:
    root = source / "seedtts_testset" if (source / "seedtts_testset").is_dir() else source
    found = {part: root / name for name, part in SEED_TTS_LISTS.items() if (root / name).is_file()}
    if not found:
        raise DataError(f"{root} holds none of {', '.join(SEED_TTS_LISTS)}; give the unpacked test set.")
    return {
        f"seed-tts-{part}": [
            {"id": item.id, "text": item.text, "lang": "en" if part == "en" else "zh"}
            | {
                key: str(value.resolve()) if isinstance(value, Path) else value
                for key in ("prompt_text", "prompt_audio", "target_audio")
                if (value := getattr(item, key)) is not None
            }
            for item in read_say_list(path)
        ]
        for part, path in found.items()
    }


@contextmanager
def _together(out: Path) -> Iterator[Path]:
    """A folder whose files come to lie in ``out`` once all are written."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
        yield Path(folder)
        for path in sorted(Path(folder).iterdir()):
            path.replace(out / path.name)


def _every(show: Callable[..., None], name: str) -> Callable[[int], None]:
    """Word about progress once in a while: nobody knows how many records there are."""

    def tell(number: int) -> None:
        if number % _EVERY == 0:
            show(name, number, None)

    return tell


def _tell(out: Path, prepared: Prepared, licence: str, *, json: bool) -> None:
    told = {**asdict(prepared), "licence": licence, "path": str(out / f"{prepared.manifest}.jsonl")}
    if json:
        print_json(told)
        return
    hours = f", {prepared.hours:,.2f} hours" if prepared.hours else ""
    console().print(f"{told['path']}: {prepared.num_records:,} records{hours}, licence {licence}")
    for what, counts in (("left out", prepared.rejects), ("left out, asked by", prepared.overlaps)):
        for reason, count in counts.items():
            console().print(f"  {what} {reason}: {count:,}")
    if prepared.num_not_compared:
        console().print(f"  not compared, their questions have no words: {prepared.num_not_compared:,}")
