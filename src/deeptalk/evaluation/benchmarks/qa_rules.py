"""When an answer to a question is right: named rules over the text of the answer and the right answers.

Every rule takes the answer as it was given and all right answers of the question. A right answer of which a
rule leaves nothing is an error in the data: in public scorers it makes every answer right, an empty one too.
"""

import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.normalizers import normalizer
from deeptalk.evaluation.benchmarks.number_words import named_number

Rule = Callable[[str, Sequence[str]], bool]

_TO_SPACE = str.maketrans({mark: " " for mark in string.punctuation if mark not in "'\\"})


def contains_words(answer: str, references: Sequence[str]) -> bool:
    """Every word of some reference is a substring of the answer, in any order (rule ``contain-words``).

    Nearest to the paper's scores: the rule of its authors' neighbours (VITA-Audio), flaws included. A word is
    found inside another ("art" in "party"), the answer keeps its punctuation, and "not Paris" is right for
    "Paris". Where all references name numbers, their digits are tried too: see `named_number`.

    Raises:
        DataError: a reference has no words, or there is none.
    """
    cleaned = [reference.translate(_TO_SPACE).lower().strip() for reference in references]
    _check(cleaned, references)
    said = answer.lower()
    if any(_all_within(said, reference) for reference in cleaned):
        return True
    numbers = [named_number(reference) for reference in cleaned]
    return None not in numbers and any(number in said for number in numbers if number is not None)


def has_answer(answer: str, references: Sequence[str]) -> bool:
    """Some reference's tokens stand in the answer, in a row (rule ``has-answer`` of DPR, arXiv 2004.04906).

    Tokens are runs of letters, digits and marks, and other visible characters one by one, after canonical
    decomposition (NFD) and without case. Accents count: "Beyonce" is not "Beyoncé"; so do all marks.

    Raises:
        DataError: a reference has no tokens, or there is none.
    """
    wanted = [_tokens(reference) for reference in references]
    _check(wanted, references)
    said = _tokens(answer)
    return any(
        said[at : at + len(tokens)] == tokens
        for tokens in wanted
        for at in range(len(said) - len(tokens) + 1)
    )


def whole_words(answer: str, references: Sequence[str]) -> bool:
    """Every word of some reference is a word of the answer, as often (rule ``whole-words``, ours).

    What ``contain-words`` should be: both sides pass ``whisper-en``, which writes numbers as digits, opens
    contractions and drops marks, and words are compared whole. A negation still counts as right.

    Raises:
        DataError: a reference has no words, or there is none.
        ConfigError: `whisper_normalizer` is not installed.
    """
    units = normalizer("whisper-en").units
    wanted, said = [_words(units(reference)) for reference in references], _words(units(answer))
    _check(wanted, references)
    return any(words <= said for words in wanted)


RULES: Mapping[str, Rule] = {
    "contain-words": contains_words,
    "has-answer": has_answer,
    "whole-words": whole_words,
}
"""The rules by name; the first two are always shown side by side."""


def rule(name: str) -> Rule:
    """The rule of a name; ConfigError where there is none."""
    if name not in RULES:
        raise ConfigError(f"no scoring rule is called {name!r}; there are: {', '.join(RULES)}.")
    return RULES[name]


def rule_version(name: str) -> str:
    """What tells a rule's verdicts from those of another release: a library's version, or our own count."""
    return normalizer("whisper-en").version if name == "whole-words" else "1"


def _check(cleaned: Sequence[object], references: Sequence[str]) -> None:
    if not references:
        raise DataError("a question has no right answer to compare with.")
    for kept, reference in zip(cleaned, references, strict=True):
        if not kept:
            raise DataError(f"nothing is left of the right answer {reference!r}: correct or remove it.")


def _words(units: Sequence[str]) -> Counter[str]:
    return Counter(unit for unit in units if any(character.isalnum() for character in unit))


def _all_within(text: str, words: str) -> bool:
    return all(word in text for word in words.split(" "))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for kind, run in groupby(unicodedata.normalize("NFD", text), _kind):
        if kind == "word":
            tokens.append("".join(run).lower())
        elif kind == "mark":
            tokens += (character.lower() for character in run)
    return tokens


def _kind(character: str) -> str:
    first = unicodedata.category(character)[0]
    return "word" if first in "LNM" else "nothing" if first in "ZC" else "mark"
