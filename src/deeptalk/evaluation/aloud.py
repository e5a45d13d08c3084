"""Reading aloud, as table 1 of the paper asks it: given texts, how they are drawn, and who listens.

Two lists: `answers` are right answers of the evaluation set, `hard` numbers in rows and words that repeat.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from deeptalk.data.domain.facts import all_facts
from deeptalk.data.domain.numbers import say_number
from deeptalk.decoding import DecodingOptions, LoadedModel, Sampling
from deeptalk.decoding.answer import Limits
from deeptalk.evaluation.answers import Answered, Respondent
from deeptalk.evaluation.metrics import Score, wer_score
from deeptalk.evaluation.pocket import Judges, sound_of
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet
from deeptalk.streams.prompt import READ_ALOUD

NUM_HARD = 60
_MOST_FRAMES = 142


@dataclass(frozen=True, kw_only=True, slots=True)
class Aloud:
    """What came of one list of texts: scores by judge and reference, and how long the answers were."""

    scores: tuple[Score, ...]
    mean_frames: float
    num_runaway: int


def hard_texts(number: int = NUM_HARD, *, seed: int = 0) -> list[str]:
    """Rows of numbers and statements with a repeated word, half of each; the same for the same seed."""
    chance = random.Random(seed)
    facts = [fact.answer.rstrip(".") for fact in all_facts() if not fact.text_only]
    texts = []
    for index in range(number):
        if index % 2:
            words = chance.choice(facts).split()
            at = chance.randrange(1, len(words))
            texts.append(" ".join([*words[:at], *[words[at]] * chance.randint(2, 3), *words[at + 1 :]]) + ".")
        else:
            numbers = (say_number(chance.randint(0, 99)) for _ in range(chance.randint(3, 5)))
            texts.append(", ".join(numbers).capitalize() + ".")
    return texts


def answer_texts(questions: EvalSet, *, every: int = 1) -> list[str]:
    """Different right answers of the evaluation set, in its order."""
    return list(dict.fromkeys(item.answers[-1] for item in questions.of(*FIVE_CATEGORIES)))[::every]


def read_aloud(
    loaded: LoadedModel, texts: Sequence[str], judges: Judges, *, top_k: int, voice: str, seed: int = 0
) -> Aloud:
    """Let a model read texts aloud, codes drawn from the `top_k` likeliest, and score what is heard."""
    limits = Limits(max_frames=_MOST_FRAMES, max_text_tokens=80)
    drawn = Sampling(temperature=1.0, top_k=top_k)
    respondent = Respondent(loaded.engine, options=DecodingOptions(codec=drawn, limits=limits))
    asked = [respondent.written(READ_ALOUD.format(text=text)) for text in texts]
    seeds = [seed + number for number in range(len(texts))]
    given = respondent.answer(asked, mode=f"speaker:{voice}", seeds=seeds)
    return Aloud(
        scores=tuple(score_aloud(given, texts, loaded, judges)),
        mean_frames=sum(len(one.codes) for one in given) / max(1, len(given)),
        num_runaway=sum(one.finish_reason == "length" for one in given),
    )


def aloud_floor(texts: Sequence[str], judges: Judges, *, voice: str) -> Iterator[Score]:
    """Word error rates of the synthesiser's own recordings of the texts; needs flite."""
    from deeptalk.data.synthesis import ANSWER_VOICES, synthesise

    said = [synthesise(text, ANSWER_VOICES[voice]) for text in texts]
    for name, judge in judges.named():
        heard = [
            judge.transcribe(torch.from_numpy(one.samples).float() / 32_768, sample_rate=one.sample_rate)
            for one in said
        ]
        yield wer_score(f"floor_wer/{name}", heard, texts)


def score_aloud(
    given: Sequence[Answered], texts: Sequence[str], loaded: LoadedModel, judges: Judges
) -> Iterator[Score]:
    """Word error rates against the texts that were asked for and against the model's own, by each judge."""
    with torch.inference_mode():
        sounds = [sound_of(one, loaded.codec) for one in given]
    for name, judge in judges.named():
        heard = [judge.transcribe(sound, sample_rate=loaded.codec.sample_rate) for sound in sounds]
        yield wer_score(f"target_wer/{name}", heard, texts)
        yield wer_score(f"own_wer/{name}", heard, [one.text for one in given])
