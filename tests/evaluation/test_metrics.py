import math

import pytest

from deeptalk.evaluation.metrics import exact_score, share_score, wer_score, word_errors
from deeptalk.evaluation.normalize import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The capital of France is Paris.", "the capital of france is paris"),
        ("  I don't know 'that'! ", "i don't know that"),
        ("twenty-three", "twenty three"),
        ("C, A, T.", "c a t"),
        ("", ""),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "errors"),
    [("a b c", "a b c", 0), ("a c", "a b c", 1), ("a x b c", "a b c", 1), ("", "a b", 2), ("x y", "a b", 2)],
)
def test_word_errors(prediction: str, reference: str, errors: int) -> None:
    assert word_errors(prediction.split(), reference.split()) == errors


def test_exact_counts_every_reference() -> None:
    score = exact_score("t", ["Paris.", "", "x"], ["paris", "Rome", "Oslo"])
    assert (score.count, score.total) == (1, 3)
    assert score.low < score.value < score.high


def test_wilson_interval_is_the_published_one() -> None:
    score = share_score("t", 81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(score.low, 2), round(score.high, 2)) == (25.53, 36.62)


def test_nothing_measured_is_not_a_number() -> None:
    assert math.isnan(share_score("t", 0, 0).value)
    assert math.isnan(wer_score("t", [], []).value)


def test_wer_is_over_the_corpus() -> None:
    score = wer_score("t", ["a b", "c d e f"], ["a x", "c d e f"])
    assert (score.count, score.total) == (1, 6)
    assert score.value == pytest.approx(100 / 6)
