"""Questions and answers to listen to in a report: read from files, or spoken anew by the model."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deeptalk.audio import load_waveform
from deeptalk.decoding import LoadedModel
from deeptalk.errors import DataError
from deeptalk.evaluation.answers import Respondent
from deeptalk.evaluation.benchmarks.clips import clip_of
from deeptalk.evaluation.benchmarks.pocket_results import PocketResults
from deeptalk.evaluation.benchmarks.report_page import Sample
from deeptalk.evaluation.pocket import ItemResult, sound_of
from deeptalk.evaluation.questions import EvalItem, EvalSet
from deeptalk.model.identity import model_hash
from deeptalk.shapes import Float, Tensor

SPOKEN, HEARD = "speech_to_text", "speech_to_speech/bigram"
"""The rows that tell what was answered in speech, and what the judge heard of it."""

DEFAULT_VOICE = "rms"
"""The voice of an evaluation that does not tell its own."""

_RATE = 24_000

Verdicts = Mapping[str, Mapping[str, ItemResult]]


def read_samples(results: PocketResults, asked: EvalSet, folder: Path, *, number: int) -> list[Sample]:
    """Questions with a file ``ID.wav`` in a folder; DataError where there is none."""
    verdicts = _verdicts(results)
    items = _in_turn(verdicts, asked, lambda item: (folder / f"{item.id}.wav").is_file())[:number]
    if not items:
        raise DataError(f"{folder}: no file ID.wav of a question that the results have an answer to.")
    sounds = [load_waveform(folder / f"{item.id}.wav", sample_rate=_RATE) for item in items]
    return _samples(items, asked, verdicts, sounds, rate=_RATE)


def speak_samples(
    results: PocketResults, asked: EvalSet, loaded: LoadedModel, *, number: int
) -> list[Sample]:
    """Questions that the measured model answers once more, greedily as it did.

    Raises:
        DataError: the results are of another model, or have no spoken questions.
    """
    if results.about.get("model", model_hash(loaded.model)) != model_hash(loaded.model):
        raise DataError("the results are of another model than --model; name the one that was measured.")
    verdicts = _verdicts(results)
    items = _in_turn(verdicts, asked, lambda item: True)[:number]
    if not items:
        raise DataError("the results have no spoken questions; make them with `deeptalk eval pocket --out`.")
    respondent = Respondent(loaded.engine)
    spoken = [respondent.spoken(asked.speech(item.turns[0])) for item in items]
    given = respondent.answer(spoken, mode=f"speaker:{results.about.get('voice', DEFAULT_VOICE)}")
    sounds = [sound_of(answer, loaded.codec) for answer in given]
    return _samples(items, asked, verdicts, sounds, rate=loaded.codec.sample_rate)


def _verdicts(results: PocketResults) -> Verdicts:
    return {row: {item.id: item for item in results.items if item.row == row} for row in (SPOKEN, HEARD)}


def _in_turn(verdicts: Verdicts, asked: EvalSet, is_there: Callable[[EvalItem], bool]) -> list[EvalItem]:
    """The questions with a verdict, right and wrong ones of every category in turn."""
    judged = verdicts[HEARD] or verdicts[SPOKEN]
    groups: defaultdict[tuple[str, bool], list[EvalItem]] = defaultdict(list)
    for item in asked.items:
        if item.id in judged and item.id in verdicts[SPOKEN] and is_there(item):
            groups[item.category, judged[item.id].is_right].append(item)
    longest = max(map(len, groups.values()), default=0)
    return [group[n] for n in range(longest) for group in groups.values() if n < len(group)]


def _samples(
    items: Sequence[EvalItem],
    asked: EvalSet,
    verdicts: Verdicts,
    sounds: Sequence[Float[Tensor, "S"]],
    *,
    rate: int,
) -> list[Sample]:
    found = []
    for item, sound in zip(items, sounds, strict=True):
        said, heard, turn = verdicts[SPOKEN][item.id], verdicts[HEARD].get(item.id), item.turns[0]
        found.append(
            Sample(
                id=item.id,
                category=item.category,
                voice=turn.voice,
                question=turn.text,
                answer=item.answers[-1],
                given=said.given,
                heard=None if heard is None else heard.given,
                is_right=(heard or said).is_right,
                asked_clip=clip_of(asked.speech(turn), sample_rate=16_000),
                given_clip=clip_of(sound, sample_rate=rate),
            )
        )
    return found
