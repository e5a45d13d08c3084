"""Every figure of the pocket model's table, by one function and one command (``deeptalk eval pocket``)."""

import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from deeptalk.audio import load_waveform
from deeptalk.codec import Codec
from deeptalk.decoding import LoadedModel
from deeptalk.decoding.answer import Limits
from deeptalk.errors import DataError
from deeptalk.evaluation.answers import Answered, Asked, Respondent
from deeptalk.evaluation.benchmarks.intervals import median_interval
from deeptalk.evaluation.judge import SpeechJudge
from deeptalk.evaluation.metrics import Score, exact_score, share_score, wer_score
from deeptalk.evaluation.normalize import plain
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalItem, EvalSet
from deeptalk.shapes import Float, Tensor
from deeptalk.streams import Turn

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TIMED_SECONDS = 3.0
"""The length of the questions whose answers are timed."""

Part = Literal["text", "speech", "transcription", "refusals", "follow-ups", "digits", "latency"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What is asked one after the other, each for some rows of the table."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemResult:
    """What one question was answered with, by row of the report."""

    id: str
    row: str
    question: str
    answer: str
    given: str
    is_right: bool


@dataclass(slots=True)
class PocketReport:
    """Scores by name, every single verdict, and notes such as the judge's floor."""

    scores: list[Score] = field(default_factory=list)
    items: list[ItemResult] = field(default_factory=list)
    num_runaway: int = 0
    not_run: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single verdicts."""
        return {
            "scores": {score.name: score.to_dict() for score in self.scores},
            "num_runaway": self.num_runaway,
            "not_run": list(self.not_run),
            "median_bounds": "bootstrap",
        }

    def since(self, earlier: "PocketReport") -> "PocketReport":
        """What has come to an earlier state of this report."""
        return PocketReport(
            scores=self.scores[len(earlier.scores) :],
            items=self.items[len(earlier.items) :],
            num_runaway=self.num_runaway - earlier.num_runaway,
            not_run=self.not_run[len(earlier.not_run) :],
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PocketReport":
        """A report from its fields as plain values; the opposite of ``asdict``."""
        return cls(
            scores=[Score(**score) for score in values["scores"]],
            items=[ItemResult(**item) for item in values["items"]],
            num_runaway=values["num_runaway"],
            not_run=list(values["not_run"]),
        )

    def add(self, part: "PocketReport") -> None:
        """Put what came of a part behind what is here."""
        self.scores += part.scores
        self.items += part.items
        self.num_runaway += part.num_runaway
        self.not_run += part.not_run


class PocketEvaluation:
    """Asks one model all questions of an evaluation set."""

    def __init__(
        self,
        loaded: LoadedModel,
        questions: EvalSet,
        *,
        voice: str,
        limit: int | None = None,
        every: int = 1,
        limits: Limits | None = None,
    ) -> None:
        self.loaded, self.questions, self.every = loaded, questions, every
        self.respondent = Respondent(loaded.engine, limits=limits)
        self.mode = f"speaker:{voice}"
        self.limit = limit
        self.report = PocketReport()

    def run(
        self,
        *,
        judges: "Judges | None" = None,
        fsdd: Path | None = None,
        refusal: str,
        num_timed: int = 20,
        parts: Sequence[Part] = PARTS,
        progress: Progress | None = None,
        done: Mapping[str, PocketReport] | None = None,
        keep: Callable[[Part, PocketReport], None] | None = None,
    ) -> PocketReport:
        """The rows of some parts of the table; those that lack what they need are listed as not run.

        Parts in ``done`` are taken from there; ``keep`` is given every other one when it has ended, so that
        an interrupted evaluation can go on.
        """
        tell = progress or (lambda _name, _done, _total: None)
        known: dict[Part, Callable[[], None]] = {
            "text": self.text_to_text,
            "speech": lambda: self.speech_to_speech(judges),
            "transcription": self.transcription,
            "refusals": lambda: self.refusals(refusal),
            "follow-ups": self.follow_ups,
            "digits": lambda: self.real_digits(fsdd),
            "latency": lambda: self.latency(num_timed),
        }
        steps: dict[Part, Callable[[], None]] = {name: known[name] for name in PARTS if name in parts}
        for number, (name, step) in enumerate(steps.items()):
            tell(name, number, len(steps))
            if done is not None and name in done:
                self.report.add(done[name])
                continue
            before = deepcopy(self.report)
            step()
            if keep is not None:
                keep(name, self.report.since(before))
        tell("done", len(steps), len(steps))
        return self.report

    def text_to_text(self) -> None:
        """Written questions of the five categories; the headline is the mean of the five."""
        items = self._items(*FIVE_CATEGORIES)
        given = self.respondent.answer([self.respondent.written(i.turns[0].text) for i in items], mode="text")
        self._five("text_to_text", items, given)

    def speech_to_speech(self, judges: "Judges | None") -> None:
        """Spoken questions: the text row is scored as text, the sound by the judge."""
        items = self._items(*FIVE_CATEGORIES)
        given = self.respondent.answer([self._asked(item) for item in items], mode=self.mode)
        self._five("speech_to_text", items, given)
        only = [(i, g) for i, g in zip(items, given, strict=True) if i.text_only]
        self._exact("speech_to_text/text_only", [i for i, _ in only], [g for _, g in only])
        self.report.num_runaway += sum(g.finish_reason == "length" for g in given)
        in_domain = [plain(i.answers[-1]) for i in items]
        if judges is None:
            self.report.not_run += ["speech_to_speech (no judge)", "read_aloud_wer (no judge)"]
            return
        sounds = [sound_of(g, self.loaded.codec) for g in given]
        for name, judge in judges.named():
            heard = [judge.transcribe(s, sample_rate=self.loaded.codec.sample_rate) for s in sounds]
            score = exact_score(f"speech_to_speech/{name}", heard, [i.answers[-1] for i in items])
            self.report.scores.append(score)
            self.report.scores.append(wer_score(f"read_aloud_wer/{name}", heard, [g.text for g in given]))
            self._note(f"speech_to_speech/{name}", items, heard, in_domain)

    def transcription(self) -> None:
        """Word error rate over every clip of the set: questions and reading sentences."""
        items = self._items(*FIVE_CATEGORIES, "reading")
        given = self.respondent.answer([self._asked(item) for item in items], mode="asr")
        texts = [item.turns[0].text for item in items]
        self.report.scores.append(wer_score("transcription_wer", [g.text for g in given], texts))
        self._note("transcription", items, [g.text for g in given], [plain(t) for t in texts])

    def refusals(self, refusal: str) -> None:
        """Spoken questions outside the domain that are refused, and inside it that are."""
        outside = self._items("refusal")
        given = self.respondent.answer([self._asked(item) for item in outside], mode="text")
        count = sum(plain(g.text) == plain(refusal) for g in given)
        self.report.scores.append(share_score("refused_outside", count, len(outside)))
        self._note("refusal", outside, [g.text for g in given], [plain(i.answers[-1]) for i in outside])
        inside = [r for r in self.report.items if r.row == "speech_to_text"]
        wrongly = sum(plain(r.given) == plain(refusal) for r in inside)
        self.report.scores.append(share_score("refused_inside", wrongly, len(inside)))

    def follow_ups(self) -> None:
        """Spoken dialogues; the model's own answers are the history, the turns after the first are scored."""
        items = [item for item in self._items("dialogue") if len(item.turns) > 1]
        told: list[list[Turn]] = [[] for _ in items]
        heard: list[list[Float[Tensor, "U D"]]] = [[] for _ in items]
        texts, references, asked_items = [], [], []
        for number in range(max((len(item.turns) for item in items), default=0)):
            now = [i for i, item in enumerate(items) if len(item.turns) > number]
            for i in now:
                heard[i].append(self._frames(items[i], number))
                told[i].append(Turn(role="user", num_speech_frames=len(heard[i][-1])))
            asked = [Asked(turns=tuple(told[i]), speech=tuple(heard[i])) for i in now]
            for i, given in zip(now, self.respondent.answer(asked, mode="text"), strict=True):
                told[i].append(Turn(role="assistant", text=given.text or "."))
                if number:
                    texts.append(given.text)
                    references.append(items[i].answers[number])
                    asked_items.append(items[i])
        self.report.scores.append(exact_score("follow_up", texts, references))
        self._note("follow_up", asked_items, texts, [plain(r) for r in references])

    def real_digits(self, folder: Path | None) -> None:
        """Digits said by real people (FSDD): free transcription, and the likeliest of the ten beside it."""
        if folder is None:
            self.report.not_run.append("real_digits (no --fsdd DIR)")
            return
        paths = digit_recordings(folder)
        random.Random(0).shuffle(paths)
        paths = paths[: self.limit] if self.limit else paths
        asked = [self.respondent.spoken(load_waveform(path, sample_rate=16_000)) for path in paths]
        digits = [DIGITS[int(path.name[0])] for path in paths]
        free = [g.text for g in self.respondent.answer(asked, mode="asr")]
        self.report.scores.append(exact_score("real_digits/free", free, digits))
        chosen = [DIGITS[self.respondent.choose(question, DIGITS, mode="asr")] for question in asked]
        self.report.scores.append(exact_score("real_digits/of_ten", chosen, digits))
        for path, text, digit in zip(paths, free, digits, strict=True):
            self._add("real_digits", path.stem, digit, digit, text, plain(text) == digit)

    def latency(self, num_timed: int) -> None:
        """Medians: first audio after the end of a question that was handed over whole, real-time factor.

        Asked are the ``num_timed`` questions whose length is nearest to ``TIMED_SECONDS``; ``count`` of
        ``total`` have sound, for the others the time is infinite. Bounds are 95 % intervals of the medians.
        """
        first, factors = [], []
        items = self._items(*FIVE_CATEGORIES)
        nearest = sorted(items, key=lambda item: abs(item.turns[0].duration - TIMED_SECONDS))
        for item in nearest[:num_timed]:
            talk = self.loaded.conversation(voice=self.mode.partition(":")[2])
            talk.listen(self.questions.speech(item.turns[0]))
            for _ in talk.reply():
                pass
            waited, factor = talk.last_reply.time_to_first_audio_ms, talk.last_reply.real_time_factor
            first.append(math.inf if waited is None else waited)
            factors.append(math.inf if factor is None else factor)
        if first:
            for name, values, unit in (
                ("first_audio_p50", first, "ms"),
                ("real_time_factor_p50", factors, "x"),
            ):
                low, high = median_interval(values)
                self.report.scores.append(
                    Score(
                        name=name,
                        value=statistics.median(values),
                        unit=unit,
                        count=sum(math.isfinite(value) for value in values),
                        total=len(values),
                        low=low,
                        high=high,
                    )
                )

    def _items(self, *categories: str) -> tuple[EvalItem, ...]:
        items, kept = self.questions.of(*categories)[:: self.every], Counter[str]()
        found = []
        for item in items:
            if self.limit is None or kept[item.category] < self.limit:
                found.append(item)
                kept[item.category] += 1
        return tuple(found)

    def _frames(self, item: EvalItem, turn: int) -> Float[Tensor, "U D"]:
        return self.respondent.hear(self.questions.speech(item.turns[turn]))

    def _asked(self, item: EvalItem) -> Asked:
        return self.respondent.spoken(self.questions.speech(item.turns[0]))

    def _five(self, row: str, items: Sequence[EvalItem], given: Sequence[Answered]) -> None:
        """One score for each category, their mean, and all together."""
        means = []
        for category in FIVE_CATEGORIES:
            kept = [(i, g) for i, g in zip(items, given, strict=True) if i.category == category]
            if kept:
                score = self._exact(f"{row}/{category}", [i for i, _ in kept], [g for _, g in kept])
                means.append(score.value)
        total = self._exact(f"{row}/all", items, given)
        mean = sum(means) / len(means) if means else float("nan")
        self.report.scores.append(
            Score(
                name=f"{row}/mean",
                value=mean,
                unit="%",
                count=total.count,
                total=total.total,
                low=total.low,
                high=total.high,
            )
        )
        self._note(row, items, [g.text for g in given], [plain(i.answers[-1]) for i in items])

    def _exact(self, name: str, items: Sequence[EvalItem], given: Sequence[Answered]) -> Score:
        score = exact_score(name, [g.text for g in given], [i.answers[-1] for i in items])
        self.report.scores.append(score)
        return score

    def _note(self, row: str, items: Sequence[EvalItem], given: Sequence[str], right: Sequence[str]) -> None:
        for item, text, wanted in zip(items, given, right, strict=True):
            self._add(row, item.id, item.turns[-1].text, wanted, text, plain(text) == wanted)

    def _add(self, row: str, id: str, question: str, answer: str, given: str, is_right: bool) -> None:
        self.report.items.append(
            ItemResult(id=id, row=row, question=question, answer=answer, given=given, is_right=is_right)
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Judges:
    """The judge with its closed bigram, and with the closed unigram as the check without word order."""

    bigram: SpeechJudge
    unigram: SpeechJudge | None = None

    def named(self) -> Iterator[tuple[str, SpeechJudge]]:
        """Those that there are, with their names."""
        yield "bigram", self.bigram
        if self.unigram is not None:
            yield "unigram", self.unigram


def digit_recordings(folder: Path) -> list[Path]:
    """The files of the Free Spoken Digit Dataset in a folder; DataError where there are none."""
    paths = sorted(folder.glob("[0-9]_*_*.wav"))
    if not paths:
        raise DataError(f"{folder}: no files named DIGIT_SPEAKER_TAKE.wav.")
    return paths


def sound_of(answered: Answered, codec: Codec) -> Float[Tensor, "S"]:
    """The sound of an answer; an empty one is silence of a tenth of a second."""
    if not len(answered.codes):
        return torch.zeros(codec.sample_rate // 10)
    with torch.inference_mode():
        return codec.decode(answered.codes.T[None])[0]


def open_judges(folder: Path, *, seed: int = 0) -> Judges:
    """The judge over all answers of the domain; ``folder`` has phones for words that CMUdict lacks."""
    from deeptalk.data.domain import build_domain, eval_questions

    items = [*build_domain(seed=seed), *eval_questions(seed=seed)]
    corpus = sorted({m.text for item in items for m in item.messages if m.role == "assistant"})
    path = folder / "judge_lexicon.json"
    try:
        lexicon = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable lexicon ({error}).") from error
    return Judges(
        bigram=SpeechJudge(corpus, lexicon=lexicon, order=2),
        unigram=SpeechJudge(corpus, lexicon=lexicon, order=1),
    )


def judge_floor(judges: Judges, questions: EvalSet, *, voice: str, limit: int | None = None) -> list[Score]:
    """What the judge makes of recordings of the synthesiser itself saying the right answers; needs flite."""
    from deeptalk.data.synthesis import ANSWER_VOICES, synthesise

    items = questions.of(*FIVE_CATEGORIES)[:limit]
    texts = [item.answers[-1] for item in items]
    sounds = [synthesise(text, ANSWER_VOICES[voice]) for text in texts]
    scores = []
    for name, judge in judges.named():
        heard = [
            judge.transcribe(torch.from_numpy(said.samples).float() / 32_768, sample_rate=said.sample_rate)
            for said in sounds
        ]
        scores.append(exact_score(f"judge_floor/{name}", heard, texts))
        scores.append(wer_score(f"judge_floor_wer/{name}", heard, texts))
    return scores
