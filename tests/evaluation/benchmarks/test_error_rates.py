"""Errors against jiwer and against a search of all alignments; nothing of a corpus is left out."""

from functools import cache

import jiwer
import pytest
from benchmark_texts import pairs

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.error_rates import count_errors, score_transcripts
from deeptalk.evaluation.benchmarks.normalizers import NORMALIZERS, normalizer

PAIRS = pairs(520, seed=1)


def most_substitutions(reference: tuple[str, ...], heard: tuple[str, ...]) -> tuple[int, int, int]:
    """Substitutions, deletions and insertions of the best of all alignments, one by one."""

    @cache
    def best(i: int, j: int) -> tuple[int, int, int, int]:
        ways = []
        if i < len(reference) and j < len(heard):
            cost, s, d, n = best(i + 1, j + 1)
            same = reference[i] == heard[j]
            ways.append((cost + (not same), s - (not same), d, n))
        if i < len(reference):
            cost, s, d, n = best(i + 1, j)
            ways.append((cost + 1, s, d + 1, n))
        if j < len(heard):
            cost, s, d, n = best(i, j + 1)
            ways.append((cost + 1, s, d, n + 1))
        return min(ways, default=(0, 0, 0, 0))

    _, substitutions, deletions, insertions = best(0, 0)
    return -substitutions, deletions, insertions


@pytest.mark.parametrize(
    ("reference", "heard", "expected"),
    [
        ("a b c", "a b c", (0, 0, 0)),
        ("a b c", "", (0, 3, 0)),
        ("", "a b", (0, 0, 2)),
        ("a b", "b a", (2, 0, 0)),
        ("a b c d", "a x c", (1, 1, 0)),
        ("a", "b c d", (1, 0, 2)),
    ],
)
def test_errors_by_hand(reference: str, heard: str, expected: tuple[int, int, int]) -> None:
    errors = count_errors(reference.split(), heard.split())
    assert (errors.substitutions, errors.deletions, errors.insertions) == expected
    assert errors.num_units == len(reference.split())


@pytest.mark.parametrize(
    ("reference", "heard", "expected"),
    [
        ("white paper", "whitepaper", (0, 0, 0)),
        ("a whitepaper", "a white paper", (0, 0, 0)),
        ("a b c d", "abcd", (0, 0, 0)),
        ("note book", "notes book", (1, 0, 0)),
        ("over night", "overnight overnight", (0, 0, 1)),
        ("ab cd", "a bcd", (2, 0, 0)),
        ("ice cream now", "icecream", (0, 1, 0)),
    ],
)
def test_words_apart_are_the_one_word_that_they_are_together(
    reference: str, heard: str, expected: tuple[int, int, int]
) -> None:
    errors = count_errors(reference.split(), heard.split(), joins_words=True)
    assert (errors.substitutions, errors.deletions, errors.insertions) == expected
    assert errors.num_units == len(reference.split())


def test_of_520_pairs_every_error_is_counted_as_a_search_does() -> None:
    for reference, heard in PAIRS:
        left, right = (tuple(normalizer("wenet").units(text)) for text in (reference, heard))
        errors = count_errors(left, right)
        assert (errors.substitutions, errors.deletions, errors.insertions) == most_substitutions(left, right)


@pytest.mark.parametrize("name", [name for name in NORMALIZERS if name != "cn-tn"])
def test_rates_of_a_corpus_are_those_of_jiwer(name: str) -> None:
    if name == "seedtts-zh-t2s":
        pytest.importorskip("opencc", reason="it needs deeptalk[zh]")
    chosen = normalizer(name)
    kept = [(r, h) for r, h in PAIRS if chosen.units(r)]
    assert len(kept) >= 300
    report = score_transcripts(
        {str(i): r for i, (r, _) in enumerate(kept)}, {str(i): h for i, (_, h) in enumerate(kept)}, chosen
    )
    texts = [[" ".join(chosen.units(text)) for text in side] for side in zip(*kept, strict=True)]
    corpus = jiwer.process_words(*texts)
    assert report.corpus_score().value == pytest.approx(100 * corpus.wer)
    assert report.total.total == corpus.substitutions + corpus.deletions + corpus.insertions
    means = [jiwer.wer(r, h) for r, h in zip(*texts, strict=True)]
    score = report.mean_score()
    assert score.value == pytest.approx(100 * sum(means) / len(means))
    assert (score.count, score.total) == (sum(rate > 0 for rate in means), len(kept))
    assert score.low < score.value < score.high


def test_corpus_and_utterances_differ_and_nothing_is_capped() -> None:
    report = score_transcripts(
        {"a": "one", "b": "a b c d e f g h i"}, {"a": "x y z", "b": "a b c d e f g h i"}, normalizer("wenet")
    )
    assert (report.corpus_score().value, report.mean_score().value) == (30.0, 150.0)
    assert report.corpus_score().name == "wenet/corpus"
    assert report.corpus_score().unit == "% CER"
    assert (report.corpus_score().count, report.corpus_score().total) == (3, 10)


def test_an_utterance_without_a_hypothesis_has_lost_all_its_words() -> None:
    references = {"a": "one two", "b": "three four", "c": "five"}
    report = score_transcripts(references, {"a": "one two", "c": ""}, normalizer("seedtts-en"))
    assert report.missing == ("b",)
    assert report.total.deletions == 3
    assert report.corpus_score().value == pytest.approx(60.0)
    assert len(report.utterances) == 3


def test_what_can_not_be_scored_is_named() -> None:
    words = normalizer("seedtts-en")
    with pytest.raises(DataError, match="no references"):
        score_transcripts({}, {}, words)
    with pytest.raises(DataError, match=r"reference of 'a' is empty after seedtts-en: '\.\.'"):
        score_transcripts({"a": ".."}, {"a": "x"}, words)
    with pytest.raises(DataError, match="2 utterances have no reference, the first is 'b'"):
        score_transcripts({"a": "x"}, {"a": "x", "b": "y", "c": "z"}, words)
