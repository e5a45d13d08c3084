"""``deeptalk eval answer`` and its neighbours: a model of ours at work on a public set."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Json, Model, Seed, Temperature, TopK, Voice
from deeptalk.cli.pairs import Listener
from deeptalk.cli.score import AllowMissing, AnswerColumn, Layout, QuestionSet

if TYPE_CHECKING:
    from deeptalk.decoding import DecodingOptions, LoadedModel
    from deeptalk.decoding.answer import Limits
    from deeptalk.evaluation import recognisers
    from deeptalk.evaluation.benchmarks.generation import Ask, Given


class Form(StrEnum):
    """How a question is put, or an answer given."""

    SPEECH = "speech"
    TEXT = "text"


Folder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder of the run; a run that was interrupted goes on.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="The first N items only, for a trial.", min=1)
]
MostTokens = Annotated[
    int, typer.Option("--max-text-tokens", metavar="N", help="How long a text may be.", min=1)
]
MostFrames = Annotated[
    int, typer.Option("--max-frames", metavar="N", help="How long a spoken answer may be (of 85 ms).", min=1)
]
Recogniser = Annotated[
    Listener | None, typer.Option("--recogniser", help="Who writes down the spoken answers; nobody else.")
]
Whisper = Annotated[
    Path | None, typer.Option("--whisper", metavar="DIR", help="Folder of the recogniser whisper.")
]
Language = Annotated[
    str | None,
    typer.Option(
        "--language", metavar="NAME", help="What whisper hears, as en; it finds out by itself else."
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME", help="cpu or cuda:0; repeatable: a process for each."),
]


def answer(
    questions: QuestionSet,
    out: Folder,
    layout: Layout = None,
    answer_column: AnswerColumn = None,
    asked: Annotated[Form, typer.Option("--from", help="How the questions are put.")] = Form.SPEECH,
    given: Annotated[Form, typer.Option("--to", help="How they are answered.")] = Form.SPEECH,
    model: Model = "pocket",
    devices: Devices = None,
    voice: Voice = None,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    released: Annotated[
        bool,
        typer.Option(
            "--released", help="Draw and end answers as the authors' code does (docs/benchmarks.md)."
        ),
    ] = False,
    recogniser: Recogniser = None,
    whisper: Whisper = None,
    language: Language = None,
    limit: Limit = None,
    max_text_tokens: MostTokens = 160,
    max_frames: MostFrames = 360,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Let a model answer a set of questions; `eval score-answers` scores DIR/answers.jsonl.

    Greedily unless --temperature or --released is given, in batches. A question that can't be heard has no
    answer, and counts as wrong.
    """
    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.benchmarks.question_sets import read_questions

    if released and (temperature or top_k):
        raise ConfigError("--released draws as the authors' code does; leave out --temperature and --top-k.")
    drawing = Drawing(temperature=temperature, top_k=top_k, seed=seed)
    if released:
        drawing = Drawing(temperature=1.0, top_k=10, seed=seed, is_released=True)
    items = read_questions(questions, layout=layout, answer_column=answer_column)
    asks = asks_of(items, questions, asked)
    work = Work(
        out=out,
        model=model,
        devices=devices,
        mode="speaker" if given is Form.SPEECH else "text",
        voice=voice,
        drawing=drawing,
        recogniser=recogniser,
        whisper=whisper,
        language=language,
        max_text_tokens=max_text_tokens,
        max_frames=max_frames,
    )
    _tell(work, work.run(asks[:limit]), allow_missing=allow_missing, is_json=json)


def transcribe(
    references: Annotated[
        Path, typer.Argument(metavar="REFERENCES", help="Folder of Kaldi, .tsv with .wrd, or .jsonl.")
    ],
    out: Folder,
    model: Model = "pocket",
    devices: Devices = None,
    limit: Limit = None,
    max_text_tokens: MostTokens = 160,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Let a model write down a set of recordings; `eval score-transcripts` scores DIR/answers.jsonl.

    What is longer than 30 s, or than the model hears at a time, is split at its pauses.
    """
    from deeptalk.evaluation.benchmarks.generation import Ask
    from deeptalk.evaluation.benchmarks.speech_lists import read_speech

    asks = [Ask(id=item.id, audio=item.audio) for item in read_speech(references)]
    work = Work(out=out, model=model, devices=devices, mode="asr", max_text_tokens=max_text_tokens)
    _tell(work, work.run(asks[:limit]), allow_missing=allow_missing, is_json=json)


def say(
    texts: Annotated[
        Path, typer.Argument(metavar="LIST", help="A list of Seed-TTS, two to five fields between |.")
    ],
    out: Folder,
    model: Model = "pocket",
    devices: Devices = None,
    voice: Voice = None,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    recogniser: Recogniser = None,
    whisper: Whisper = None,
    language: Language = None,
    forced: Annotated[
        bool, typer.Option("--forced", help="Say the list's very words: the text row is given, not written.")
    ] = False,
    limit: Limit = None,
    max_text_tokens: MostTokens = 160,
    max_frames: MostFrames = 360,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Let a model read a list of texts aloud, into DIR/audio/ID.wav; `eval score-speech` scores it."""
    from deeptalk.evaluation.benchmarks.speech_lists import read_say_list

    work = Work(
        out=out,
        model=model,
        devices=devices,
        mode="speaker",
        voice=voice,
        drawing=Drawing(temperature=temperature, top_k=top_k, seed=seed),
        recogniser=recogniser,
        whisper=whisper,
        language=language,
        max_text_tokens=max_text_tokens,
        max_frames=max_frames,
        is_forced=forced,
    )
    asks = spoken_asks(read_say_list(texts), is_forced=forced)
    _tell(work, work.run(asks[:limit]), allow_missing=allow_missing, is_json=json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """How codes of speech are drawn; greedily at temperature 0.

    ``is_released``: any stream ends speech, and with it the text, each of whose tokens is penalised as often
    as it has come, as in the authors' code.
    """

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0
    is_released: bool = False

    def options(self, limits: "Limits") -> "DecodingOptions":
        """What the engine is told."""
        from deeptalk.decoding import DecodingOptions, Sampling

        text = Sampling(repetition_penalty=1.2, penalty="occurrence") if self.is_released else Sampling()
        codec = Sampling(temperature=self.temperature, top_k=self.top_k)
        return DecodingOptions(text=text, codec=codec, limits=limits, released=self.is_released)

    def told(self) -> dict[str, Any]:
        """For the record of a run."""
        if not self.temperature:
            return {"decoding": "greedy", "seed": None}
        decoding = {"temperature": self.temperature, "top_k": self.top_k, "released": self.is_released}
        return {"decoding": decoding, "seed": self.seed}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ran:
    """What came of a run: a line for each item, what it is of, and who has listened."""

    given: "tuple[Given, ...]"
    settings: dict[str, Any]
    heard_by: dict[str, str | None] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How a model is put to work on items; ``mode`` is ``text``, ``asr`` or ``speaker``."""

    out: Path
    model: str
    mode: str
    max_text_tokens: int
    max_frames: int | None = None
    devices: list[str] | None = None
    voice: str | None = None
    drawing: Drawing = Drawing()
    recogniser: Listener | None = None
    whisper: Path | None = None
    language: str | None = None
    is_forced: bool = False

    @property
    def is_spoken(self) -> bool:
        """Whether answers have sound."""
        return self.mode == "speaker"

    def run(self, asks: "Sequence[Ask]", *, loaded: "LoadedModel | None" = None) -> Ran:
        """Ask every item that has no answer yet; leaves with 130 after an interruption."""
        import sys
        from time import perf_counter

        from deeptalk.cli.evaluation import check_place
        from deeptalk.cli.opening import open_model
        from deeptalk.cli.pairs import open_recogniser
        from deeptalk.cli.progress import bars
        from deeptalk.errors import ConfigError
        from deeptalk.evaluation.benchmarks.generation import ANSWERS, generate
        from deeptalk.evaluation.benchmarks.records import RECOGNISER
        from deeptalk.evaluation.benchmarks.workers import Workers, check_device
        from deeptalk.training.interruption import Interruption

        if not self.is_spoken and (self.voice or self.recogniser) is not None:
            raise ConfigError(
                "--voice and --recogniser are for spoken answers; there are none with --to text."
            )
        check_place(self.out / ANSWERS)
        devices = [check_device(name) for name in self.devices or ["cpu"]]
        loaded = loaded or open_model(self.model, device=devices[0])
        listener = None
        if self.recogniser is not None:
            listener = open_recogniser(self.recogniser, loaded, self.whisper, language=self.language)
        plan, settings = self._plan(loaded, asks)
        generator = plan.generator(loaded)
        with bars() as show, Interruption() as interruption:

            def ask(answering: Any) -> "tuple[Given, ...] | None":
                return generate(
                    asks,
                    answering,
                    self.out,
                    settings=settings,
                    recogniser=listener,
                    progress=show,
                    should_stop=lambda: interruption.requested,
                    now=perf_counter,
                )

            if len(devices) == 1:
                found = ask(generator)
            else:
                with Workers(plan, devices, sample_rate=generator.sample_rate) as workers:
                    found = ask(workers)
        if found is None:
            print(f"interrupted; the same command goes on with {self.out}", file=sys.stderr)
            raise typer.Exit(130)
        heard_by = note_listener(self.out / RECOGNISER, listener, language=self.language)
        return Ran(given=found, settings=settings, heard_by=heard_by)

    def _plan(self, loaded: "LoadedModel", asks: "Sequence[Ask]") -> tuple[Any, dict[str, Any]]:
        """What the model does, and all that decides an answer but its question, for the record."""
        from dataclasses import asdict

        import torch

        from deeptalk.cli.evaluation import about_model
        from deeptalk.decoding.answer import Limits
        from deeptalk.errors import ConfigError
        from deeptalk.evaluation.benchmarks.generation import BATCH_SIZE
        from deeptalk.evaluation.benchmarks.machine import device_name
        from deeptalk.evaluation.benchmarks.report_schema import RUN, check_report
        from deeptalk.evaluation.benchmarks.workers import Plan
        from deeptalk.model.weights import model_folder

        mode = self.mode
        if self.is_spoken:
            voice = self.voice or loaded.voices[0]
            if voice not in loaded.voices:
                raise ConfigError(
                    f"No voice is called {voice!r}; this model has: {', '.join(loaded.voices)}."
                )
            mode = f"speaker:{voice}"
        most = Limits(max_text_tokens=self.max_text_tokens, max_frames=self.max_frames or Limits().max_frames)
        plan = Plan(
            model=self.model,
            mode=mode,
            longest_seconds=loaded.model.config.longest_part_seconds(0.0),
            options=self.drawing.options(most),
            seed=self.drawing.seed,
        )
        names = sorted({device_name(torch.device(name)) for name in self.devices or ["cpu"]})
        settings = about_model(loaded, model_folder(self.model)) | {
            "device": ", ".join(names),
            "batch_size": BATCH_SIZE,
            "template": "chat",
            "rows": "T S" if self.is_spoken else "T",
            **self.drawing.told(),
            "limits": asdict(most),
            "mode": mode,
            "from": "text" if all(ask.audio is None for ask in asks) else "speech",
            "text": "forced" if self.is_forced else None,
            "longest_seconds": plan.longest_seconds,
        }
        check_report(settings, RUN)
        return plan, settings


def note_listener(
    path: Path, listener: "recognisers.Recogniser | None", *, language: str | None
) -> dict[str, str | None] | None:
    """Who has listened to the answers, noted beside them; None where they were made again without one."""
    from deeptalk.cli.evaluation import write_json

    if listener is None:
        path.unlink(missing_ok=True)
        return None
    told = {"name": listener.name, "hash": listener.hash, "language": language}
    write_json(path, told)
    return told


def asks_of(items: Sequence[Any], path: Path, asked: Form) -> "list[Ask]":
    """Questions as they are put; DataError where one has no recording, or no text."""
    from deeptalk.errors import DataError
    from deeptalk.evaluation.benchmarks.generation import Ask

    for item in items:
        if asked is Form.SPEECH and item.audio is None:
            raise DataError(f"{path}: question {item.id!r} has no recording; ask with --from text.")
        if asked is Form.TEXT and not item.question.strip():
            raise DataError(f"{path}: question {item.id!r} has no text; ask with --from speech.")
    return [
        Ask(id=item.id, audio=item.audio if asked is Form.SPEECH else None, text=item.question)
        for item in items
    ]


def spoken_asks(items: Sequence[Any], *, is_forced: bool = False) -> "list[Ask]":
    """Texts to be read aloud: as the model writes them down first, or ``is_forced``, in their very words."""
    from deeptalk.evaluation.benchmarks.generation import Ask
    from deeptalk.streams.prompt import READ_ALOUD

    return [
        Ask(
            id=item.id,
            audio=None,
            text=READ_ALOUD.format(text=item.text),
            said=item.text if is_forced else None,
        )
        for item in items
    ]


def _tell(work: Work, ran: Ran, *, allow_missing: bool, is_json: bool) -> None:
    from deeptalk.evaluation.benchmarks.generation import ANSWERS

    path, spoken = work.out / ANSWERS, work.is_spoken
    tell_run(
        path,
        ran.given,
        ran.settings,
        ran.heard_by,
        is_spoken=spoken,
        allow_missing=allow_missing,
        is_json=is_json,
    )


def tell_run(
    path: Path,
    given: "Sequence[Given]",
    settings: dict[str, Any],
    heard_by: dict[str, str | None] | None,
    *,
    is_spoken: bool,
    allow_missing: bool,
    is_json: bool,
) -> None:
    """What came of a run; exit status 1 if something is missing that may not be."""
    import json
    import sys

    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.records import TIMING

    timing = json.loads((path.parent / TIMING).read_text(encoding="utf-8"))
    missing = [one for one in given if one.reason or (is_spoken and one.audio is None)]
    counts = {
        "num_items": len(given),
        "num_missing": len(missing),
        "num_runaway": sum(one.finish_reason == "length" for one in given),
    }
    if is_json:
        told = {"recogniser": heard_by, "timing": timing, "settings": settings}
        print_json({"answers": str(path), **counts, **told})
    else:
        shown = "  ".join(f"{name.removeprefix('num_')} {count}" for name, count in counts.items())
        speed = "" if timing["rtfx"] is None else f"  RTFx {timing['rtfx']:.1f}"
        console().print(f"{path}: {shown}{speed}")
    if missing and not allow_missing:
        reason = missing[0].reason or "no sound"
        print(
            f"{len(missing)} of {len(given)} items lack an answer, first {missing[0].id!r} ({reason}); "
            "they count as wrong (with --allow-missing this is no failure).",
            file=sys.stderr,
        )
        raise typer.Exit(1)
