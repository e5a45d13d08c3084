"""The table of the pocket model: what is asked of each figure, and what is hoped for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deeptalk.evaluation.metrics import Score


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One row: the score's name, its words, and both bounds; most figures shall be at least, some at most."""

    score: str
    title: str
    must: float
    goal: float
    at_most: bool = False

    def is_met(self, value: float) -> bool:
        """Whether the *must* bound holds; not for a figure that is no number."""
        return value <= self.must if self.at_most else value >= self.must


TARGETS = (
    Target(score="text_to_text/mean", title="text to text, exact, 5 categories", must=95.0, goal=99.0),
    Target(
        score="text_to_text/drop",
        title="  drop against its text backbone",
        must=3.0,
        goal=1.0,
        at_most=True,
    ),
    Target(score="speech_to_text/all", title="speech to text, exact", must=85.0, goal=95.0),
    Target(score="speech_to_text/text_only", title="  facts learnt from text only", must=70.0, goal=90.0),
    Target(score="speech_to_speech/bigram", title="speech to speech, exact, judged", must=75.0, goal=90.0),
    Target(
        score="read_aloud_wer/bigram",
        title="reading aloud, WER, judged",
        must=8.0,
        goal=3.0,
        at_most=True,
    ),
    Target(
        score="transcription_wer",
        title="transcription, held-out, WER",
        must=10.0,
        goal=4.0,
        at_most=True,
    ),
    Target(score="refused_outside", title="outside the domain, refused", must=80.0, goal=95.0),
    Target(score="refused_inside", title="  inside it, wrongly refused", must=5.0, goal=2.0, at_most=True),
    Target(score="follow_up", title="follow-ups, speech to text, exact", must=75.0, goal=90.0),
    Target(score="real_digits/free", title="digits of real people, free", must=50.0, goal=80.0),
    Target(
        score="first_audio_p50",
        title="first audio after a question of 3 s, median",
        must=250.0,
        goal=80.0,
        at_most=True,
    ),
    Target(
        score="real_time_factor_p50", title="real-time factor, median", must=0.35, goal=0.12, at_most=True
    ),
)


def table_rows(scores: Iterable[Score]) -> list[tuple[Target, Score | None]]:
    """Every row of the table with its score; None where it was not run."""
    by_name = {score.name: score for score in scores}
    return [(target, by_name.get(target.score)) for target in TARGETS]


def other_scores(scores: Iterable[Score]) -> Sequence[Score]:
    """The scores beside the table: categories, the judge's floor, the unigram judge, the choice of ten."""
    named = {target.score for target in TARGETS}
    return [score for score in scores if score.name not in named]
