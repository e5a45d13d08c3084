"""What is stripped from a text before two texts are compared."""

import re

_NOT_WORD = re.compile(r"[^a-z0-9' ]+")


def plain_words(text: str) -> list[str]:
    """The words of ``text`` in lower case, without punctuation; the project's normaliser ``plain-en``.

    Numbers are written as words everywhere in the pocket domain, so there is no number rule. An apostrophe
    stays inside a word ("don't") and is dropped at its ends.
    """
    cleaned = _NOT_WORD.sub(" ", text.lower().replace("’", "'").replace("-", " "))
    return [word for word in (piece.strip("'") for piece in cleaned.split()) if word]


def plain(text: str) -> str:
    """``plain_words`` joined by single spaces: two answers are *exact* when these are equal."""
    return " ".join(plain_words(text))
