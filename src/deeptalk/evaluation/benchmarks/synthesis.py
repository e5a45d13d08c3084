"""Speech that was made from texts: what it says, whose voice it has, how it sounds.

Truth is the list's text (``target``) or what the model itself wrote (``self``): the first compares systems,
the second tells whether text and speech go together.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deeptalk.errors import AudioError, DataError
from deeptalk.evaluation.benchmarks.error_rates import ErrorReport, score_transcripts
from deeptalk.evaluation.benchmarks.generation import read_sound
from deeptalk.evaluation.benchmarks.intervals import bootstrap_interval
from deeptalk.evaluation.benchmarks.normalizers import Normalizer
from deeptalk.evaluation.benchmarks.speech_lists import SayItem
from deeptalk.evaluation.benchmarks.spoken_answers import SpokenLine
from deeptalk.evaluation.benchmarks.voice_scorers import Embed, Measure
from deeptalk.evaluation.metrics import Score, share_score
from deeptalk.shapes import Float, Tensor


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
