"""Whether training data say what an evaluation set asks: shared runs of words (method.md, section 9.2)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from deeptalk.data.manifest import Record

_CHARACTERS = "㐀-鿿豈-﫿぀-ヿ"
_WORD = re.compile(rf"[{_CHARACTERS}]|[^\W_{_CHARACTERS}]+")
"""A character of a script without spaces, or a word."""

FEWEST = 4
"""Shorter questions count only where a text is exactly that."""


class KnownQuestions:
    """The questions of evaluation sets, to be found in training texts.

    A text overlaps a question if both have a run of ``length`` words in common; a question of fewer words
    must stand in it as a whole. Case and marks don't count. Chinese and Japanese characters are words each.
    """

    def __init__(self, questions: Mapping[str, Iterable[str]], *, length: int = 8) -> None:
        self._runs: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._whole: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for name, texts in questions.items():
            for text in texts:
                words = words_of(text)
                if len(words) >= FEWEST:
                    for run in _runs(words, min(length, len(words))):
                        self._runs[run].add(name)
                elif words:
                    self._whole[words].add(name)
        self._lengths = sorted({len(run) for run in self._runs})

    def sets_of(self, record: Record) -> set[str]:
        """The evaluation sets that ask what a record says; of a dialogue only the user's turns count."""
        return {name for text in texts_of(record) for name in self.sets_of_text(text)}

    def sets_of_text(self, text: str) -> set[str]:
        """The evaluation sets that ask what a text says."""
        words = words_of(text)
        found = set(self._whole.get(words, ()))
        for length in self._lengths:
            for run in _runs(words, length):
                found |= self._runs.get(run, set())
        return found


def texts_of(record: Record) -> Iterator[str]:
    """What is compared of a record: of a dialogue the user's turns, "" where nobody knows their words."""
    if "messages" in record:
        yield from (message["text"] for message in record["messages"] if message["role"] == "user")
    else:
        yield record["text"]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case and without marks."""
    return tuple(_WORD.findall(text.casefold().replace("'", "").replace("’", "")))


def _runs(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (words[i : i + length] for i in range(len(words) - length + 1))
