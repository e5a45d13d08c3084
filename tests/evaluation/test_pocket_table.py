"""The rows of the pocket table: on a random model, and on listeners that are known to be right or wrong."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from small_set import ITEMS, REFUSAL

from deeptalk.decoding import LoadedModel
from deeptalk.errors import DataError
from deeptalk.evaluation.answers import Answered, Asked
from deeptalk.evaluation.pocket import DIGITS, Judges, PocketEvaluation, PocketReport
from deeptalk.evaluation.questions import EvalItem, EvalSet, EvalTurn
from deeptalk.streams import Turn

QUESTIONS = [text for _, _, asked, _ in ITEMS for text in asked]
ANSWERS = [text for _, _, _, answers in ITEMS for text in answers]
FIVE = ("facts", "reasoning", "arithmetic", "strings", "smalltalk")


class Numbered(EvalSet):
    """The same questions; the speech of a turn is one sample, the turn's number."""

    def speech(self, turn: EvalTurn, *, sample_rate: int = 16_000) -> torch.Tensor:
        numbers = [turn is t for item in self.items for t in item.turns]
        return torch.tensor([float(numbers.index(True))])


class Oracle:
    """Answers with what stands in the set, but for the turns for which it is given something else."""

    def __init__(self, said: dict[int, str] | None = None, *, reason: str = "stop") -> None:
        self.said, self.reason = said or {}, reason

    def hear(self, samples: torch.Tensor) -> torch.Tensor:
        return samples[:, None]

    def spoken(self, *samples: torch.Tensor) -> Asked:
        speech = tuple(self.hear(part) for part in samples)
        return Asked(turns=tuple(Turn(role="user", num_speech_frames=1) for _ in speech), speech=speech)

    def written(self, text: str) -> Asked:
        return Asked(turns=(Turn(role="user", text=text),))

    def answer(self, asked: Sequence[Asked], *, mode: str) -> list[Answered]:
        return [self._answer(question, mode) for question in asked]

    def _answer(self, asked: Asked, mode: str) -> Answered:
        number = int(asked.speech[-1]) if asked.speech else QUESTIONS.index(asked.turns[0].text)
        text = self.said.get(number, QUESTIONS[number] if mode == "asr" else ANSWERS[number])
        codes = torch.full((1 if mode.startswith("speaker:") else 0, 7), number)
        return Answered(text=text, codes=codes, finish_reason=self.reason)


class Echo:
    """A judge that hears the answer of the number that is played to it."""

    def transcribe(self, samples: torch.Tensor, *, sample_rate: int) -> str:
        assert sample_rate == 24_000
        return ANSWERS[int(samples[0])].lower()


def asked_of(
    oracle: Oracle,
    folder: Path,
    loaded: LoadedModel,
    *,
    judges: Judges | None = None,
    limit: int | None = None,
) -> PocketReport:
    codec = SimpleNamespace(sample_rate=24_000, decode=lambda codes: codes[:, 0].float())
    run = PocketEvaluation(
        dataclasses.replace(loaded, codec=codec), Numbered(folder), voice="slt", limit=limit
    )
    run.respondent = oracle
    return run.run(judges=judges, refusal=REFUSAL, num_timed=0)


def values(report: PocketReport) -> dict[str, float]:
    return {score.name: score.value for score in report.scores}


@pytest.fixture
def judges() -> Judges:
    return Judges(bigram=Echo(), unigram=Echo())


def test_who_knows_everything_gets_all_points(
    questions_folder: Path, loaded: LoadedModel, judges: Judges
) -> None:
    report = asked_of(Oracle(), questions_folder, loaded, judges=judges)
    figures = values(report)
    wrong = {name: value for name, value in figures.items() if "wer" in name or name == "refused_inside"}
    assert set(wrong) == {
        "read_aloud_wer/bigram",
        "read_aloud_wer/unigram",
        "transcription_wer",
        "refused_inside",
    }
    assert set(wrong.values()) == {0.0}
    right = {name: value for name, value in figures.items() if name not in wrong}
    rows = {f"{row}/{part}" for row in ("text_to_text", "speech_to_text") for part in (*FIVE, "all", "mean")}
    rows |= {"speech_to_text/text_only", "speech_to_speech/bigram", "speech_to_speech/unigram"}
    assert set(right) == rows | {"refused_outside", "follow_up"}
    assert set(right.values()) == {100.0}
    assert all(item.is_right for item in report.items)
    assert report.num_runaway == 0
    assert report.not_run == ["real_digits (no --fsdd DIR)"]


def test_who_refuses_everything_gets_none_but_refusals(questions_folder: Path, loaded: LoadedModel) -> None:
    report = asked_of(Oracle(dict.fromkeys(range(99), REFUSAL)), questions_folder, loaded)
    figures = values(report)
    assert figures["refused_outside"] == figures["refused_inside"] == 100.0
    for row in ("text_to_text/mean", "speech_to_text/all", "follow_up"):
        assert figures[row] == 0.0
    assert figures["transcription_wer"] > 100.0
    wrong = [item for item in report.items if not item.is_right]
    assert {item.row for item in wrong} == {"text_to_text", "speech_to_text", "transcription", "follow_up"}
    assert report.not_run[:2] == ["speech_to_speech (no judge)", "read_aloud_wer (no judge)"]


def test_every_mistake_counts_once(questions_folder: Path, loaded: LoadedModel, judges: Judges) -> None:
    mistakes = {0: "It is Rome.", QUESTIONS.index("and of Norway"): "Bergen."}
    report = asked_of(Oracle(mistakes, reason="length"), questions_folder, loaded, judges=judges)
    scores = {score.name: score for score in report.scores}
    counts = {name: (scores[name].count, scores[name].total) for name in scores}
    assert counts["text_to_text/facts"] == (1, 2)
    assert counts["text_to_text/all"] == counts["speech_to_text/all"] == (5, 6)
    assert scores["text_to_text/mean"].value == pytest.approx((50 + 4 * 100) / 5)
    assert counts["speech_to_text/text_only"] == (0, 1)
    assert counts["follow_up"] == (2, 3)
    assert counts["speech_to_speech/bigram"] == (6, 6)  # the voice said the right thing all the same
    assert counts["read_aloud_wer/bigram"] == (1, 12)  # the text said Rome
    assert counts["transcription_wer"] == (3, 19)
    assert report.num_runaway == 6
    given = {(item.row, item.id): (item.given, item.is_right) for item in report.items}
    assert given["text_to_text", "0"] == ("It is Rome.", False)
    assert given["follow_up", "8"] == ("Bergen.", False)


def test_a_limit_is_of_each_kind(questions_folder: Path, loaded: LoadedModel) -> None:
    report = asked_of(Oracle(), questions_folder, loaded, limit=1)
    totals = {score.name: score.total for score in report.scores}
    kinds = [name for name in totals if name.startswith("text_to_text/")]
    assert all(totals[name] == 1 for name in kinds if not name.endswith(("/all", "/mean")))
    assert totals["text_to_text/all"] == len(kinds) - 2
    assert totals["refused_outside"] == totals["follow_up"] == 1


def test_a_set_without_a_category_gives_no_number(tmp_path: Path, loaded: LoadedModel) -> None:
    (tmp_path / "questions.jsonl").write_text("")
    figures = values(asked_of(Oracle(), tmp_path, loaded))
    assert all(math.isnan(value) for value in figures.values())


@pytest.mark.usefixtures("short_answers")
def test_a_random_model_fills_every_row(questions: EvalSet, loaded: LoadedModel) -> None:
    told = []
    run = PocketEvaluation(loaded, questions, voice="slt")
    report = run.run(
        refusal=REFUSAL, num_timed=1, progress=lambda name, done, total: told.append((done, total))
    )
    figures = values(report)
    expected = {"transcription_wer", "refused_outside", "refused_inside", "follow_up"}
    expected |= {"first_audio_p50", "real_time_factor_p50", "text_to_text/mean", "speech_to_text/mean"}
    assert expected <= set(figures)
    assert figures["text_to_text/all"] == 0.0
    assert figures["first_audio_p50"] > 0
    rows = [item.row for item in report.items]
    assert {row: rows.count(row) for row in sorted(set(rows))} == {
        "follow_up": 3,
        "refusal": 2,
        "speech_to_text": 6,
        "text_to_text": 6,
        "transcription": 7,
    }
    assert report.not_run == [
        "speech_to_speech (no judge)",
        "read_aloud_wer (no judge)",
        "real_digits (no --fsdd DIR)",
    ]
    assert told == [(n, 7) for n in range(8)]
    plain = report.to_dict()
    assert plain["scores"]["follow_up"]["total"] == 3
    assert "name" not in plain["scores"]["follow_up"]


def test_the_questions_nearest_to_three_seconds_are_timed(tmp_path: Path, loaded: LoadedModel) -> None:
    lines = []
    for category, seconds in (
        ("facts", 1.0),
        ("strings", 3.2),
        ("refusal", 3.0),
        ("facts", 2.9),
        ("facts", 9.0),
    ):
        asked = {"role": "user", "text": "what", "voice": "none", "offset": 0.0, "duration": seconds}
        messages = [asked, {"role": "assistant", "text": "that"}]
        lines.append(json.dumps({"id": str(seconds), "category": category, "messages": messages}) + "\n")
    (tmp_path / "questions.jsonl").write_text("".join(lines))
    heard = []
    talk = SimpleNamespace(
        listen=lambda samples: heard.append(int(samples)),
        reply=lambda: iter(()),
        last_reply=SimpleNamespace(time_to_first_audio_ms=50.0, real_time_factor=0.25),
    )
    fake = SimpleNamespace(engine=loaded.engine, conversation=lambda *, voice: talk)
    run = PocketEvaluation(fake, Numbered(tmp_path), voice="slt")  # pyright: ignore[reportArgumentType]
    run.latency(2)
    assert heard == [3, 1]
    assert values(run.report) == {"first_audio_p50": 50.0, "real_time_factor_p50": 0.25}
    silent = SimpleNamespace(time_to_first_audio_ms=None, real_time_factor=None)
    replies = iter([silent, talk.last_reply, talk.last_reply])
    talk.listen = lambda samples: setattr(talk, "last_reply", next(replies))
    run = PocketEvaluation(fake, Numbered(tmp_path), voice="slt")  # pyright: ignore[reportArgumentType]
    run.latency(3)
    first = run.report.scores[0]
    assert (first.value, first.count, first.total, first.low, first.high) == (50.0, 2, 3, 50.0, float("inf"))


@pytest.mark.usefixtures("short_answers")
def test_digits_of_real_people_are_heard_and_chosen(
    questions: EvalSet, loaded: LoadedModel, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    for digit in (3, 7):
        wave = 0.1 * generator.standard_normal(4_000)
        soundfile.write(tmp_path / f"{digit}_jackson_0.wav", wave, 8_000)
    run = PocketEvaluation(loaded, questions, voice="slt")
    run.real_digits(tmp_path)
    scores = {score.name: score for score in run.report.scores}
    assert set(scores) == {"real_digits/free", "real_digits/of_ten"}
    assert all(score.total == 2 for score in scores.values())
    assert {item.answer for item in run.report.items} == {DIGITS[3], DIGITS[7]}
    with pytest.raises(DataError, match=r"DIGIT_SPEAKER_TAKE\.wav"):
        run.real_digits(tmp_path / "nowhere")


def test_items_keep_the_order_of_the_file(questions: EvalSet) -> None:
    assert all(isinstance(item, EvalItem) for item in questions.items)
    assert [item.turns[0].text for item in questions.of("facts")] == ["capital of France", "capital of Spain"]
