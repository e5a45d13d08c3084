"""``deeptalk eval score-speech`` and ``recode``: a list that was read aloud, and the codec's ceiling."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json, Model
from deeptalk.cli.generate import Folder, Language, Limit, Recogniser, Whisper
from deeptalk.cli.score import AllowMissing, BootstrapSeed, Out

if TYPE_CHECKING:
    from deeptalk.cli.generate import Ran, Work
    from deeptalk.decoding import LoadedModel
    from deeptalk.evaluation.benchmarks.speech_lists import SayItem

List = Annotated[
    Path, typer.Argument(metavar="LIST", help="A list of Seed-TTS, two to five fields between |.")
]


def score_speech(
    texts: List,
    run: Annotated[
        Path, typer.Argument(metavar="DIR", help="What `eval say` or `eval recode` wrote: a run's folder.")
    ],
    name: Annotated[str, typer.Option("--normalizer", metavar="NAME", help="As seedtts-en or seedtts-zh.")],
    speaker_model: Annotated[
        Path | None,
        typer.Option("--speaker-model", metavar="DIR", help="WavLM with x-vectors: likeness to the prompts."),
    ] = None,
    quality: Annotated[bool, typer.Option("--quality", help="DNSMOS, by speechmos.")] = False,
    allow_missing: AllowMissing = False,
    seed: BootstrapSeed = 0,
    out: Out = None,
    json: Json = False,
) -> None:
    """Score a list that was read aloud: errors against the list and against the model's own text, coverage.

    What has no sound or no transcript has lost all its words. The mean over utterances is the headline.
    """
    from deeptalk.cli.evaluation import check_place
    from deeptalk.cli.score import finish
    from deeptalk.evaluation.benchmarks.generation import ANSWERS, AUDIO
    from deeptalk.evaluation.benchmarks.normalizers import normalizer
    from deeptalk.evaluation.benchmarks.scoring import about_answers
    from deeptalk.evaluation.benchmarks.speech_lists import read_say_list
    from deeptalk.evaluation.benchmarks.spoken_answers import read_spoken
    from deeptalk.evaluation.benchmarks.synthesis import speech_report
    from deeptalk.evaluation.benchmarks.voice_scorers import dnsmos, wavlm
    from deeptalk.files import digest_of

    chosen, items = normalizer(name), read_say_list(texts)
    if out is not None:
        check_place(out)
    report = speech_report(
        items,
        read_spoken(run / ANSWERS),
        run / AUDIO,
        chosen,
        data=digest_of(texts) or "",
        speaker=None if speaker_model is None else wavlm(speaker_model),
        quality=dnsmos() if quality else None,
        seed=seed,
        about=about_answers(run / ANSWERS, set_name=texts.stem, field="transcript"),
    )
    finish(report, out, allow_missing=allow_missing, is_json=json)


def recode(
    texts: List,
    out: Folder,
    model: Model = "pocket",
    natural: Annotated[
        bool, typer.Option("--natural", help="Leave the recordings as they are: the recogniser's own floor.")
    ] = False,
    recogniser: Recogniser = None,
    whisper: Whisper = None,
    language: Language = None,
    limit: Limit = None,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Put a list's own recordings (its fifth field) through a model's codec: what its speech can reach.

    `eval score-speech LIST DIR` scores the result, as it does a model's.
    """
    from deeptalk.cli.evaluation import check_place
    from deeptalk.cli.generate import Work, tell_run
    from deeptalk.cli.opening import open_model
    from deeptalk.errors import DataError
    from deeptalk.evaluation.benchmarks.generation import ANSWERS
    from deeptalk.evaluation.benchmarks.speech_lists import read_say_list

    items = read_say_list(texts)[:limit]
    if lacking := [item.id for item in items if item.target_audio is None]:
        raise DataError(
            f"{texts}: {lacking[0]!r} has no recording in a fifth field; there is nothing to recode."
        )
    check_place(out / ANSWERS)
    work = Work(
        out=out,
        model=model,
        mode="natural" if natural else "recoded",
        recogniser=recogniser,
        whisper=whisper,
        language=language,
        max_text_tokens=1,
    )
    ran = recoded(items, work, open_model(model))
    tell_run(
        out / ANSWERS,
        ran.given,
        ran.settings,
        ran.heard_by,
        is_spoken=True,
        allow_missing=allow_missing,
        is_json=json,
    )


def recoded(items: "Sequence[SayItem]", work: "Work", loaded: "LoadedModel") -> "Ran":
    """The recordings of a list through the codec, or with the mode ``natural`` as they are, and listened to.

    Leaves with 130 after an interruption.
    """
    import sys
    from importlib.metadata import version

    from deeptalk.cli.generate import Ran, note_listener
    from deeptalk.cli.pairs import open_recogniser
    from deeptalk.cli.progress import bars
    from deeptalk.evaluation.benchmarks.generation import Ask, generate
    from deeptalk.evaluation.benchmarks.machine import device_name, git_hash
    from deeptalk.evaluation.benchmarks.recode import Recoder
    from deeptalk.evaluation.benchmarks.records import RECOGNISER
    from deeptalk.evaluation.benchmarks.report_schema import RUN, check_report
    from deeptalk.files import digest_of
    from deeptalk.model.weights import model_folder
    from deeptalk.training.interruption import Interruption

    natural, listener = work.mode == "natural", None
    if work.recogniser is not None:
        listener = open_recogniser(work.recogniser, loaded, work.whisper, language=work.language)
    settings = dict.fromkeys(RUN["properties"]) | {
        "mode": work.mode,
        "codec": None if natural else digest_of(model_folder(work.model) / "codec" / "model.safetensors"),
        "from": "speech",
        "deeptalk": version("deeptalk"),
        "git": git_hash(),
        "device": device_name(loaded.model.device),
    }
    check_report(settings, RUN)
    asks = [Ask(id=item.id, audio=item.target_audio, text=item.text) for item in items]
    with bars() as show, Interruption() as interruption:
        found = generate(
            asks,
            Recoder(sample_rate=loaded.codec.sample_rate, codec=None if natural else loaded.codec),
            work.out,
            settings=settings,
            recogniser=listener,
            progress=show,
            should_stop=lambda: interruption.requested,
        )
    if found is None:
        print(f"interrupted; the same command goes on with {work.out}", file=sys.stderr)
        raise typer.Exit(130)
    heard_by = note_listener(work.out / RECOGNISER, listener, language=work.language)
    return Ran(given=found, settings=settings, heard_by=heard_by)
