"""``deeptalk prepare``: the data that a family of recipes trains on, from nothing or from a corpus."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json
from deeptalk.errors import ConfigError


class Corpus(StrEnum):
    """What can be prepared."""

    POCKET = "pocket"
    FOLDER = "folder"
    SHAR = "shar"
    WENETSPEECH = "wenetspeech"
    AUDIOQA_1M = "audioqa-1m"
    MATH_INSTRUCT = "math-instruct"
    CAMEL_AI_MATH = "camel-ai-math"
    DOLLY_15K = "dolly-15k"
    LIBRISPEECH = "librispeech"
    AISHELL_1 = "aishell-1"
    SEED_TTS = "seed-tts"
    LLAMA_QUESTIONS = "llama-questions"
    WEB_QUESTIONS = "web-questions"
    TRIVIA_QA = "trivia-qa"


QUESTION_SETS = (Corpus.LLAMA_QUESTIONS, Corpus.WEB_QUESTIONS, Corpus.TRIVIA_QA)


def prepare(
    corpus: Annotated[Corpus, typer.Argument(help="Which data.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="Where a published corpus, or your own, lies unpacked.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder of the data: build/data, of pocket build/pocket/data.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="SET",
            help="An evaluation set: what asks the same is left out; repeatable.",
            show_default=False,
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            metavar="TEXT",
            help="Noted in every record, for the publisher's.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", help="The same seed gives the same texts; 0.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Processes at a time; 2.", min=1, show_default=False),
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few clips of each kind, for a trial.")] = False,
    json: Json = False,
) -> None:
    """Make manifests of a corpus; those of pocket are written and spoken first.

    DIR holds a published corpus as it was unpacked, recordings and JSON lines of your own (folder), or Shar
    of lhotse; docs/data.md describes each layout. --seed and --tiny are for pocket, which flite and espeak-ng
    speak for hours, --workers for pocket and shar; an interrupted run goes on where it was.
    """
    if corpus is Corpus.POCKET:
        if source is not None or against or licence:
            raise ConfigError("pocket is made from nothing: it takes no DIR, no --against and no --licence.")
        _pocket(out or Path("build/pocket/data"), seed=seed or 0, workers=workers or 2, tiny=tiny, json=json)
        return
    if seed is not None or tiny or (workers is not None and corpus is not Corpus.SHAR):
        raise ConfigError(
            f"{corpus.value} is read as it is: --seed and --tiny are for pocket, --workers for pocket and "
            "shar alone."
        )
    from deeptalk.cli.corpora import prepare_corpus
    from deeptalk.data.corpora import CORPORA

    if source is None:
        known = CORPORA.get(corpus.value)
        where = "" if known is None else f" It is published at {known.source}."
        raise ConfigError(f"say where {corpus.value} lies: deeptalk prepare {corpus.value} DIR.{where}")
    if not source.exists():
        raise ConfigError(f"{source} doesn't exist; give the folder that holds {corpus.value}.")

    prepare_corpus(
        corpus.value,
        source,
        out or Path("build/data"),
        is_evaluation=corpus is Corpus.SEED_TTS or corpus in QUESTION_SETS,
        against=tuple(against or ()),
        licence=licence,
        workers=workers or 2,
        json=json,
    )


def _pocket(out: Path, *, seed: int, workers: int, tiny: bool, json: bool) -> None:
    from deeptalk.cli.output import print_counts
    from deeptalk.cli.progress import bars
    from deeptalk.data.pocket import SpeechSizes, prepare_speech, prepare_text

    if not (out / "durations.json").is_file():
        print_counts("text", prepare_text(out, seed=seed, workers=workers), is_json=json)
    sizes = SpeechSizes().tiny() if tiny else SpeechSizes()
    with bars() as show:
        hours = prepare_speech(out, seed=seed, workers=workers, sizes=sizes, progress=show)
    print_counts("hours of speech", hours, is_json=json)
