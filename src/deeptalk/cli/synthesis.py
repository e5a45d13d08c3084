"""``deeptalk eval score-speech`` and ``recode``: a list that was read aloud, and the codec's ceiling."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Json, Model
from deeptalk.cli.generate import Folder, Language, Limit, Recogniser, Whisper
from deeptalk.cli.score import AllowMissing, BootstrapSeed, Out

if TYPE_CHECKING:
    from deeptalk.evaluation.metrics import Score

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
    import sys

    from deeptalk.cli.evaluation import check_place, write_json
    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.generation import ANSWERS, AUDIO
    from deeptalk.evaluation.benchmarks.normalizers import normalizer
    from deeptalk.evaluation.benchmarks.scoring import about_answers
    from deeptalk.evaluation.benchmarks.speech_lists import read_say_list
    from deeptalk.evaluation.benchmarks.spoken_answers import read_spoken
    from deeptalk.evaluation.benchmarks.synthesis import (
        coverage,
        mean_of,
        qualities,
        similarities,
        speech_errors,
    )
    from deeptalk.evaluation.benchmarks.voice_scorers import dnsmos, wavlm
    from deeptalk.files import digest_of

    chosen, items = normalizer(name), read_say_list(texts)
    if out is not None:
        check_place(out)
    embed, speaker = (None, None) if speaker_model is None else wavlm(speaker_model)
    measure, scorer = dnsmos() if quality else (None, None)
    reports = speech_errors(items, read_spoken(run / ANSWERS), chosen)
    scores: dict[str, Score] = {}
    for reference, report in reports.items():
        scores[f"{reference}/utterances"] = report.mean_score(seed=seed)
        scores[f"{reference}/corpus"] = report.corpus_score(seed=seed)
    scores["coverage"] = covered = coverage(items, run / AUDIO)
    if embed is not None:
        found = similarities(items, run / AUDIO, embed)
        _add(scores, mean_of("similarity", found, unit="cosine", missing=0.0, seed=seed))
    if measure is not None:
        for figure, found in qualities(items, run / AUDIO, measure).items():
            _add(scores, mean_of(figure, found, unit="of 5", missing=1.0, seed=seed))
    missing = reports["target"].missing
    values: dict[str, Any] = {
        "kind": "tts",
        "data": digest_of(texts),
        "normalizer": {"name": chosen.name, "version": chosen.version},
        "scores": {score: value.to_dict() for score, value in scores.items()},
        "num_items": len(items),
        "num_missing": len(missing),
        "about": about_answers(run / ANSWERS, set_name=texts.stem),
        "speaker_model": speaker,
        "quality_model": scorer,
    }
    if out is not None:
        rows = [
            {
                "id": one.id,
                "errors": one.errors.total,
                "units": one.errors.num_units,
                "missing": one.is_missing,
            }
            for one in reports["target"].utterances
        ]
        write_json(out, values | {"items": rows})
    if json:
        print_json(values)
    else:
        for score, value in scores.items():
            shown = f"{value.count} of {value.total}"
            bounds = f"[{value.low:.2f}, {value.high:.2f}]"
            console().print(f"{score:<24}{value.value:>8.2f} {value.unit:<8}{shown:>14}  {bounds}")
        console().print(
            f"{chosen.name} {chosen.version}; sound of {covered.count}/{covered.total}", style="dim"
        )
    if missing and not allow_missing:
        print(
            f"{len(missing)} of {len(items)} items have no transcript, first {missing[0]!r}; all their words "
            "count as wrong (with --allow-missing this is no failure).",
            file=sys.stderr,
        )
        raise typer.Exit(1)


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
    import sys

    from deeptalk.cli.evaluation import check_place, write_json
    from deeptalk.cli.generate import tell_run
    from deeptalk.cli.opening import open_model
    from deeptalk.cli.pairs import open_recogniser
    from deeptalk.cli.progress import bars
    from deeptalk.errors import DataError
    from deeptalk.evaluation.benchmarks.generation import ANSWERS, Ask, generate
    from deeptalk.evaluation.benchmarks.recode import Recoder
    from deeptalk.evaluation.benchmarks.records import RECOGNISER
    from deeptalk.evaluation.benchmarks.speech_lists import read_say_list
    from deeptalk.files import digest_of
    from deeptalk.model.weights import model_folder
    from deeptalk.training.interruption import Interruption

    items = read_say_list(texts)[:limit]
    if lacking := [item.id for item in items if item.target_audio is None]:
        raise DataError(
            f"{texts}: {lacking[0]!r} has no recording in a fifth field; there is nothing to recode."
        )
    check_place(out / ANSWERS)
    loaded = open_model(model)
    listener = None
    if recogniser is not None:
        listener = open_recogniser(recogniser, loaded, whisper, language=language)
    codec = digest_of(model_folder(model) / "codec" / "model.safetensors")
    settings = {"mode": "natural" if natural else "recoded", "codec": None if natural else codec}
    asks = [Ask(id=item.id, audio=item.target_audio, text=item.text) for item in items]
    with bars() as show, Interruption() as interruption:
        found = generate(
            asks,
            Recoder(sample_rate=loaded.codec.sample_rate, codec=None if natural else loaded.codec),
            out,
            settings=settings,
            recogniser=listener,
            progress=show,
            should_stop=lambda: interruption.requested,
        )
    if found is None:
        print(f"interrupted; the same command goes on with {out}", file=sys.stderr)
        raise typer.Exit(130)
    heard_by = None if listener is None else {"name": listener.name, "hash": listener.hash}
    if heard_by is not None:
        write_json(out / RECOGNISER, heard_by)
    tell_run(
        out / ANSWERS, found, settings, heard_by, is_spoken=True, allow_missing=allow_missing, is_json=json
    )


def _add(scores: "dict[str, Score]", score: "Score | None") -> None:
    if score is not None:
        scores[score.name] = score
