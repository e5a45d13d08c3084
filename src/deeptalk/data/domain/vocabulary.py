"""The words of the domain, as they are written inside a sentence."""

import re
from collections.abc import Iterable

WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")


def words_of(text: str) -> list[str]:
    """The words of a text without punctuation, as written."""
    return WORD.findall(text)


def collect_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The different words of the texts, sorted; capitalised only where they are never written small."""
    seen = {word for text in texts for word in words_of(text)}
    return tuple(sorted(word for word in seen if word.lower() == word or word.lower() not in seen))
