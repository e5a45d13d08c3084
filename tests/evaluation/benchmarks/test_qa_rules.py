"""Each rule by hand where it surprises, and against a second computation on 600 rows."""

import random
import re
import string
import unicodedata

import pytest
import regex
from benchmark_texts import pairs

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.number_words import named_number
from deeptalk.evaluation.benchmarks.qa_rules import (
    RULES,
    contains_words,
    has_answer,
    rule,
    rule_version,
    whole_words,
)


@pytest.mark.parametrize(
    ("answer", "references", "verdicts"),
    [
        ("It is Paris.", ["Paris"], "yes yes yes"),
        ("What a party!", ["art"], "yes no no"),
        ("It is not Paris.", ["Paris"], "yes yes yes"),
        ("Obama, Barack", ["Barack Obama"], "yes no yes"),
        ("There are 21.", ["twenty one"], "yes no yes"),
        ("There are twenty-one.", ["21"], "no no yes"),
        ("There are 21.", ["twenty one", "a score"], "no no yes"),
        ("The colour is grey.", ["gray color"], "no no yes"),
        ("Beyonce sang it.", ["Beyoncé"], "no no yes"),
        ("Beyonce\u0301 sang it.", ["BEYONCÉ"], "no yes yes"),
        ("In the u s a.", ["U.S.A."], "yes no yes"),
        ("In the U.S.A.", ["U.S.A."], "yes yes yes"),
        ("new york city", ["York New"], "yes no yes"),
        ("the the", ["the The the"], "yes no no"),
        ("one thing", ["the one who"], "no no no"),
        ("1 thing", ["the one who"], "yes no no"),
        ("", ["x"], "no no no"),
        ("C++ of course", ["C++"], "yes yes yes"),
        ("ccc", ["C++"], "yes no no"),
        ("back\\slash", ["back\\slash"], "yes yes yes"),
    ],
)
def test_by_hand(answer: str, references: list[str], verdicts: str) -> None:
    found = [RULES[name](answer, references) for name in ("contain-words", "has-answer", "whole-words")]
    assert " ".join("yes" if right else "no" for right in found) == verdicts


UNHEARD = ("(uh)", "[noise]", "<unk>", "hmm,")


def rows(count: int) -> list[tuple[str, list[str]]]:
    """Answers, and right ones that stand in them, nearly stand in them, or do not."""
    rng, made = random.Random(5), []
    numbers = ["twenty one", "21", "five", "5", "forty-two", "New York", "U.S.", "café", "it's"]
    for reference, heard in pairs(4 * count, seed=8):
        words = [word for word in reference.split() if re.search(r"\w", word) and word not in UNHEARD]
        if not words or not re.search(r"[a-z]", reference):
            continue
        words += rng.sample(numbers, 2)
        rng.shuffle(words)
        references = [
            " ".join(rng.sample(words, min(len(words), rng.randint(1, 2)))) for _ in range(rng.randint(1, 3))
        ]
        made.append((f"{heard} {rng.choice(numbers)}", references))
    return made[:count]


ROWS = rows(600)


def contains_again(answer: str, references: list[str]) -> bool:
    marks = re.escape("".join(set(string.punctuation) - set("'\\")))
    cleaned = [re.sub(f"[{marks}]", " ", reference).lower().strip() for reference in references]
    for reference in cleaned:
        if not [word for word in reference.split(" ") if word not in answer.lower()]:
            return True
    digits = [named_number(reference) for reference in cleaned]
    return all(digits) and bool([number for number in digits if str(number) in answer.lower()])


def has_again(answer: str, references: list[str]) -> bool:
    """Tokens by the expression that DPR uses, between marks that no text has."""
    pattern = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")

    def joined(text: str) -> str:
        tokens = pattern.findall(unicodedata.normalize("NFD", text))
        return "".join(f"\0{token.lower()}\0" for token in tokens)

    return any(joined(reference) in joined(answer) for reference in references)


def whole_again(answer: str, references: list[str]) -> bool:
    from whisper_normalizer.english import EnglishTextNormalizer

    clean = EnglishTextNormalizer()
    for reference in references:
        said = clean(answer).split()
        for word in clean(reference).split():
            if not re.search(r"\w", word):
                continue
            if word not in said:
                break
            said.remove(word)
        else:
            return True
    return False


@pytest.mark.parametrize(
    ("first", "second"),
    [(contains_words, contains_again), (has_answer, has_again), (whole_words, whole_again)],
)
def test_of_600_rows_every_verdict_is_that_of_a_second_computation(first, second) -> None:
    assert len(ROWS) == 600
    verdicts = [first(answer, references) for answer, references in ROWS]
    assert verdicts == [second(answer, references) for answer, references in ROWS]
    assert 100 < sum(verdicts) < 500


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("references", [[], [""], ["Paris", "  "], ["Paris", "..."]])
def test_a_right_answer_of_which_nothing_is_left_is_an_error(name: str, references: list[str]) -> None:
    if name == "has-answer" and references[-1:] == ["..."]:
        assert rule(name)("well...", references)
        return
    with pytest.raises(DataError, match="right answer"):
        rule(name)("Paris", references)


def test_a_rule_that_stands_on_a_library_has_its_version() -> None:
    assert [rule_version(name).split()[0] for name in RULES] == ["1", "1", "transformers"]


def test_an_unknown_rule() -> None:
    with pytest.raises(ConfigError, match="'exact'; there are: contain-words, has-answer, whole-words"):
        rule("exact")
