"""Speech that was made from texts: what it says, whose voice it has, how it sounds.

Truth is the list's text (``target``) or what the model itself wrote (``self``): the first compares systems,
the second tells whether text and speech go together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deeptalk.errors import AudioError, DataError
from deeptalk.evaluation.benchmarks.error_rates import ErrorReport, score_transcripts
from deeptalk.evaluation.benchmarks.generation import read_sound
from deeptalk.evaluation.benchmarks.intervals import bootstrap_interval
from deeptalk.evaluation.benchmarks.normalizers import Normalizer
from deeptalk.evaluation.benchmarks.scoring import BenchmarkReport, ScoredItem
from deeptalk.evaluation.benchmarks.speech_lists import SayItem
from deeptalk.evaluation.benchmarks.spoken_answers import SpokenLine
from deeptalk.evaluation.benchmarks.voice_scorers import Embed, Measure
from deeptalk.evaluation.metrics import Score, share_score
from deeptalk.shapes import Float, Tensor


def speech_report(
    items: Sequence[SayItem],
    lines: Mapping[str, SpokenLine],
    folder: Path,
    normalizer: Normalizer,
    *,
    data: str,
    speaker: tuple[Embed, str] | None = None,
    quality: tuple[Measure, str] | None = None,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> BenchmarkReport:
    """All scores of a list that was read aloud: `speech_errors`, `coverage`, and what is asked for besides.

    ``folder`` holds the sounds; ``speaker`` and ``quality`` are scorers with their versions. Raises as
    `speech_errors` and `similarities` do.
    """
    reports = speech_errors(items, lines, normalizer)
    scores: list[Score] = []
    rules: dict[str, str] = {}
    shares: dict[str, Sequence[tuple[float, float]]] = {}

    def add(score: Score, of_items: Sequence[tuple[float, float]], version: str) -> None:
        scores.append(score)
        rules[score.name], shares[score.name] = version, of_items

    for reference, report in reports.items():
        version = f"{normalizer.name} {normalizer.version}"
        errors = {u.id: u.errors for u in report.utterances}
        known = [errors.get(item.id) for item in items]  # what an item has no text for has no share
        rates = [(0.0, 0.0) if one is None else (one.rate, 1.0) for one in known]
        counts = [(0.0, 0.0) if one is None else (float(one.total), float(one.num_units)) for one in known]
        add(replace(report.mean_score(seed=seed), name=f"{reference}/utterances"), rates, version)
        add(replace(report.corpus_score(seed=seed), name=f"{reference}/corpus"), counts, version)
    has_sound = [_sound(folder / f"{item.id}.wav") is not None for item in items]
    add(coverage(items, folder), [(float(one), 1.0) for one in has_sound], "1")
    measured = []
    if speaker is not None:
        measured.append(("similarity", similarities(items, folder, speaker[0]), "cosine", 0.0, speaker[1]))
    if quality is not None:
        found = qualities(items, folder, quality[0])
        measured += [(name, values, "of 5", 1.0, quality[1]) for name, values in found.items()]
    for name, values, unit, least, version in measured:
        score = mean_of(name, values, unit=unit, missing=least, seed=seed)
        if score is not None:
            add(score, [(least if value is None else value, 1.0) for value in values], version)
    target = reports["target"]
    return BenchmarkReport(
        kind="tts",
        data=data,
        rules=rules,
        scores=tuple(scores),
        num_items=len(items),
        num_missing=len(target.missing),
        num_unjudged=0,
        errors=target.total.to_dict(),
        items=tuple(
            ScoredItem(
                id=item.id,
                given=lines[item.id].transcript if item.id in lines else None,
                parts={name: of_items[number] for name, of_items in shares.items()},
                reason="missing" if item.id in target.missing else "",
            )
            for number, item in enumerate(items)
        ),
        about=about or {},
    )


def speech_errors(
    items: Sequence[SayItem], lines: Mapping[str, SpokenLine], normalizer: Normalizer
) -> dict[str, ErrorReport]:
    """Errors of what was heard against both truths, and of the model's own text against the list's.

    ``target`` has every item; ``self`` and ``text`` those whose text the model wrote, and are absent where it
    wrote none. What has no transcript has lost all its words.

    Raises:
        DataError: nobody has listened, or the lines are of another list.
    """
    if unknown := [name for name in lines if name not in {item.id for item in items}]:
        raise DataError(f"{unknown[0]!r} is not in the list: are these lines of another one?")
    heard = {name: line.transcript for name, line in lines.items() if line.transcript is not None}
    if not heard:
        raise DataError("nobody has listened: there are no transcripts; run `eval say` with --recogniser.")
    targets = {item.id: item.text for item in items}
    reports = {"target": score_transcripts(targets, heard, normalizer)}
    written = {
        item.id: text
        for item in items
        if (line := lines.get(item.id)) and (text := line.text) and normalizer.units(text)
    }
    if written:
        kept = {name: text for name, text in heard.items() if name in written}
        reports["self"] = score_transcripts(written, kept, normalizer)
        reports["text"] = score_transcripts({name: targets[name] for name in written}, written, normalizer)
    return reports


def coverage(items: Sequence[SayItem], folder: Path) -> Score:
    """How many items have a file ``ID.wav`` with sound."""
    return share_score("coverage", sum(_sound(folder / f"{i.id}.wav") is not None for i in items), len(items))


def mean_of(
    name: str, values: Sequence[float | None], *, unit: str, missing: float | None = None, seed: int = 0
) -> Score | None:
    """The mean of a figure, ``count`` of ``total`` items have one; others count as ``missing``, or not.

    None where nothing was measured.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    counted = known if missing is None else [missing if value is None else value for value in values]
    low, high = bootstrap_interval([(value, 1.0) for value in counted], seed=seed)
    return Score(
        name=name,
        value=sum(counted) / len(counted),
        unit=unit,
        count=len(known),
        total=len(values),
        low=low,
        high=high,
    )


def similarities(items: Sequence[SayItem], folder: Path, embed: Embed) -> list[float | None]:
    """Of each item the cosine between the voice of its prompt and that of ``ID.wav``, None without a sound.

    Raises:
        DataError: the list has no prompts: a voice of the model's own has nothing to be like.
    """
    prompts = [item.prompt_audio for item in items]
    if None in prompts:
        raise DataError(
            "the list has no prompt recordings: similarity is for voices that were given, not for those of "
            "the model."
        )
    found: list[float | None] = []
    for item, prompt in zip(items, prompts, strict=True):
        sound = _sound(folder / f"{item.id}.wav")
        if sound is None:
            found.append(None)
            continue
        assert prompt is not None
        given, said = embed(read_sound(prompt)), embed(sound)
        found.append(float((said @ given) / (said.norm() * given.norm())))
    return found


def qualities(items: Sequence[SayItem], folder: Path, measure: Measure) -> dict[str, list[float | None]]:
    """By figure the value of each item's ``ID.wav``; None without a sound."""
    measured = [
        None if (sound := _sound(folder / f"{item.id}.wav")) is None else measure(sound) for item in items
    ]
    names = dict.fromkeys(name for one in measured if one is not None for name in one)
    return {name: [None if one is None else one[name] for one in measured] for name in names}


def _sound(path: Path) -> Float[Tensor, "S"] | None:
    try:
        sound = read_sound(path)
    except AudioError:
        return None
    return sound if len(sound) else None
