"""Verdicts and error rates of the public tools themselves, stored, against ours: row by row, all of them.

The files of ``fixtures`` were made once by the tools that their first line names, on rows written by hand
(numbers, marks, accents, Chinese and English, nothing at all; words apart and together) and rows drawn.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from deeptalk.evaluation.benchmarks.error_rates import count_errors, score_transcripts
from deeptalk.evaluation.benchmarks.normalizers import normalizer
from deeptalk.evaluation.benchmarks.qa_rules import rule
from deeptalk.evaluation.benchmarks.question_sets import QaItem
from deeptalk.evaluation.benchmarks.scoring import score_questions

FIXTURES = Path(__file__).parent / "fixtures"
SCORED_BY = ("wenet", "whisper-en", "whisper-basic", "seedtts-en", "seedtts-zh")


def stored(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a file was made with, and its rows."""
    head, *rows = map(json.loads, (FIXTURES / name).read_text(encoding="utf-8").splitlines())
    return head, rows


@pytest.mark.parametrize("name", ["contain-words", "has-answer"])
def test_every_verdict_is_that_of_the_public_scorer(name: str) -> None:
    _, rows = stored("verdicts.jsonl")
    assert len(rows) >= 300
    mine = [rule(name)(row["answer"], row["references"]) for row in rows]
    apart = [row for row, verdict in zip(rows, mine, strict=True) if row[name] != verdict]
    assert apart == []
    assert 100 < sum(mine) < len(rows) - 100


def test_a_whole_set_scores_as_its_verdicts_say() -> None:
    _, rows = stored("verdicts.jsonl")
    items = [
        QaItem(id=str(n), question="", answers=tuple(row["references"]), audio=None)
        for n, row in enumerate(rows)
    ]
    answers = {str(n): row["answer"] for n, row in enumerate(rows)}
    report = score_questions(items, answers, rules=["contain-words", "has-answer"], data="d")
    counts = {score.name: (score.count, score.total) for score in report.scores}
    assert counts == {name: (sum(row[name] for row in rows), len(rows)) for name in counts}


@pytest.mark.parametrize(
    ("name", "file", "least"),
    [*((name, "transcripts.jsonl", 500) for name in SCORED_BY), ("open-asr", "compounds.jsonl", 320)],
)
def test_every_utterance_has_the_errors_that_the_public_scorer_counts(
    name: str, file: str, least: int
) -> None:
    """Errors and units of each; an utterance without units can't be scored there either."""
    _, rows = stored(file)
    chosen, apart = normalizer(name), []
    for row in rows:
        reference = chosen.units(row["reference"])
        errors = count_errors(reference, chosen.units(row["heard"]), joins_words=chosen.joins_words)
        if ([errors.total, errors.num_units] if reference else None) != row[name]:
            apart.append(row)
    assert apart == []
    assert sum(row[name] is not None for row in rows) >= least


@pytest.mark.parametrize("name", ["seedtts-en", "seedtts-zh"])
def test_the_mean_over_utterances_is_that_of_seed_tts(name: str) -> None:
    head, rows = stored("transcripts.jsonl")
    kept = {str(n): row for n, row in enumerate(rows) if row[name] is not None}
    report = score_transcripts(
        {key: row["reference"] for key, row in kept.items()},
        {key: row["heard"] for key, row in kept.items()},
        normalizer(name),
    )
    assert report.mean_score().value == pytest.approx(head["utterance_means"][name], abs=0.01)


def test_a_figure_says_nothing_without_its_normaliser() -> None:
    spoken = {"a": "Mr. Brown won't pay $20.", "b": "It's twenty-one, isn't it?", "c": "The colour is grey."}
    heard = {"a": "mister brown will not pay 20 dollars", "b": "it is 21 is not it", "c": "the color is gray"}
    figures = {
        name: round(score_transcripts(spoken, heard, normalizer(name)).corpus_score().value, 2)
        for name in ("whisper-en", "whisper-basic", "seedtts-en", "wenet")
    }
    assert figures == stored("transcripts.jsonl")[0]["three_sentences"]
    assert (figures["whisper-en"], len(set(figures.values()))) == (0.0, 4)
