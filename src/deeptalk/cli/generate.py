"""``deeptalk eval answer`` and its neighbours: a model of ours at work on a public set."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json, Model, Voice
from deeptalk.cli.pairs import Listener
from deeptalk.cli.score import AllowMissing, AnswerColumn, Layout, QuestionSet

if TYPE_CHECKING:
    from deeptalk.evaluation.benchmarks.generation import Ask


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


def answer(
    questions: QuestionSet,
    out: Folder,
    layout: Layout = None,
    answer_column: AnswerColumn = None,
    asked: Annotated[Form, typer.Option("--from", help="How the questions are put.")] = Form.SPEECH,
    given: Annotated[Form, typer.Option("--to", help="How they are answered.")] = Form.SPEECH,
    model: Model = "pocket",
    voice: Voice = None,
    recogniser: Recogniser = None,
    whisper: Whisper = None,
    limit: Limit = None,
    max_text_tokens: MostTokens = 160,
    max_frames: MostFrames = 360,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Let a model answer a set of questions; `eval score-answers` scores DIR/answers.jsonl.

    Greedily, in batches. A question that can't be heard has no answer, and counts as wrong.
    """
    from deeptalk.errors import DataError
    from deeptalk.evaluation.benchmarks.generation import Ask
    from deeptalk.evaluation.benchmarks.question_sets import read_questions

    asks = []
    for item in read_questions(questions, layout=layout, answer_column=answer_column):
        if asked is Form.SPEECH and item.audio is None:
            raise DataError(f"{questions}: question {item.id!r} has no recording; ask with --from text.")
        if asked is Form.TEXT and not item.question.strip():
            raise DataError(f"{questions}: question {item.id!r} has no text; ask with --from speech.")
        asks.append(Ask(id=item.id, audio=item.audio if asked is Form.SPEECH else None, text=item.question))
    _run(
        asks[:limit],
        out,
        mode="speaker" if given is Form.SPEECH else "text",
        model=model,
        voice=voice,
        recogniser=recogniser,
        whisper=whisper,
        limits=(max_text_tokens, max_frames),
        allow_missing=allow_missing,
        is_json=json,
    )


def transcribe(
    references: Annotated[
        Path, typer.Argument(metavar="REFERENCES", help="Folder of Kaldi, .tsv with .wrd, or .jsonl.")
    ],
    out: Folder,
    model: Model = "pocket",
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
    _run(
        asks[:limit],
        out,
        mode="asr",
        model=model,
        limits=(max_text_tokens, None),
        allow_missing=allow_missing,
        is_json=json,
    )


def say(
    texts: Annotated[
        Path, typer.Argument(metavar="LIST", help="A list of Seed-TTS, two to five fields between |.")
    ],
    out: Folder,
    model: Model = "pocket",
    voice: Voice = None,
    recogniser: Recogniser = None,
    whisper: Whisper = None,
    limit: Limit = None,
    max_text_tokens: MostTokens = 160,
    max_frames: MostFrames = 360,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Let a model read a list of texts aloud, into DIR/audio/ID.wav.

    `eval score-transcripts LIST DIR/answers.jsonl --field transcript` scores what a recogniser heard.
    """
    from deeptalk.evaluation.benchmarks.generation import Ask
    from deeptalk.evaluation.benchmarks.speech_lists import read_say_list
    from deeptalk.streams.prompt import READ_ALOUD

    items = read_say_list(texts)
    asks = [Ask(id=item.id, audio=None, text=READ_ALOUD.format(text=item.text)) for item in items]
    _run(
        asks[:limit],
        out,
        mode="speaker",
        model=model,
        voice=voice,
        recogniser=recogniser,
        whisper=whisper,
        limits=(max_text_tokens, max_frames),
        allow_missing=allow_missing,
        is_json=json,
    )


def _run(
    asks: "Sequence[Ask]",
    out: Path,
    *,
    mode: str,
    model: str,
    limits: tuple[int, int | None],
    allow_missing: bool,
    is_json: bool,
    voice: str | None = None,
    recogniser: Listener | None = None,
    whisper: Path | None = None,
) -> None:
    """Open the model, ask, tell; exit status 1 if something is missing that may not be."""
    import sys
    from dataclasses import asdict

    from deeptalk.cli.evaluation import about_model, check_place
    from deeptalk.cli.opening import longest_clip_seconds, open_model
    from deeptalk.cli.output import console, print_json
    from deeptalk.cli.pairs import open_recogniser
    from deeptalk.cli.progress import bars
    from deeptalk.cli.transcribe import LONGEST_SECONDS
    from deeptalk.decoding.answer import Limits
    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.answers import Respondent
    from deeptalk.evaluation.benchmarks.generation import ANSWERS, Generator, generate
    from deeptalk.model.weights import model_folder
    from deeptalk.training.interruption import Interruption

    is_spoken = mode == "speaker"
    if not is_spoken and (voice or recogniser) is not None:
        raise ConfigError("--voice and --recogniser are for spoken answers; there are none with --to text.")
    check_place(out / ANSWERS)
    loaded = open_model(model)
    if is_spoken:
        voice = voice or loaded.voices[0]
        if voice not in loaded.voices:
            raise ConfigError(f"No voice is called {voice!r}; this model has: {', '.join(loaded.voices)}.")
        mode = f"speaker:{voice}"
    listener = None if recogniser is None else open_recogniser(recogniser, loaded, whisper)
    most_tokens, most_frames = limits
    most = Limits(max_text_tokens=most_tokens, max_frames=most_frames or Limits().max_frames)
    generator = Generator(
        respondent=Respondent(loaded.engine, limits=most),
        mode=mode,
        longest_seconds=min(LONGEST_SECONDS, longest_clip_seconds(loaded.model)),
        codec=loaded.codec if is_spoken else None,
    )
    settings = about_model(loaded, model_folder(model)) | {
        "mode": mode,
        "from": "text" if all(ask.audio is None for ask in asks) else "speech",
        "decoding": "greedy",
        "limits": asdict(most),
        "longest_seconds": generator.longest_seconds,
    }
    with bars() as show, Interruption() as interruption:
        found = generate(
            asks,
            generator,
            out,
            settings=settings,
            recogniser=listener,
            progress=show,
            should_stop=lambda: interruption.requested,
        )
    if found is None:
        print(f"interrupted; the same command goes on with {out}", file=sys.stderr)
        raise typer.Exit(130)
    missing = [one for one in found if one.reason or (is_spoken and one.audio is None)]
    counts = {
        "num_items": len(found),
        "num_missing": len(missing),
        "num_runaway": sum(one.finish_reason == "length" for one in found),
    }
    heard_by = listener and {"name": listener.name, "hash": listener.hash}
    if is_json:
        print_json({"answers": str(out / ANSWERS), **counts, "recogniser": heard_by, "settings": settings})
    else:
        shown = "  ".join(f"{name.removeprefix('num_')} {count}" for name, count in counts.items())
        console().print(f"{out / ANSWERS}: {shown}")
    if missing and not allow_missing:
        reason = missing[0].reason or "no sound"
        print(
            f"{len(missing)} of {len(found)} items lack an answer, first {missing[0].id!r} ({reason}); "
            "they count as wrong (with --allow-missing this is no failure).",
            file=sys.stderr,
        )
        raise typer.Exit(1)
