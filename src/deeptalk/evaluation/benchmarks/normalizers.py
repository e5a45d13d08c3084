"""What is compared when a transcript is scored: the normalisers of published scorers, by name.

An error rate without the name of its normaliser says nothing: on the same texts they differ by tens of
points.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version

from deeptalk.errors import ConfigError
from deeptalk.evaluation.normalize import plain_words


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalizer:
    """``units`` are what errors are counted in: words, or characters where ``unit`` is CER.

    ``version`` names the rules: of a library where one is used, else of this file. With ``joins_words`` a
    word that is written apart, or two that are written as one, are no error.
    """

    name: str
    unit: str
    version: str
    units: Callable[[str], list[str]]
    joins_words: bool = False


_OWN, _SEEDTTS = "1", "2, the marks of zhon 2"
_WENET_SKIPPED = frozenset("!,?、。！，；？：「」︰『』《》 \t\r\n")
_WENET_WORD = re.compile(r".[^ \t\r\n\u0080-\U0010ffff]*", re.DOTALL)
_WENET_TAG = re.compile(r"<[^> \t\r\n\u0080-\U0010ffff]*>?")
_TAG = re.compile(r"<[^>]*>?")
_LETTERS = re.compile(r"[A-Z]")
_LAST_ELLIPSIS, _ELLIPSIS = re.compile(r"\.{3,}\s*$"), re.compile(r"\s*\.{3,}\s*")
_INITIALS = [
    (re.compile(r"\b([a-z])\.([a-z])\.([a-z])\.s\b"), "s"),
    *((re.compile(r"\b" + r"\.".join(["([a-z])"] * n) + r"\.?\b"), "") for n in (4, 3, 2)),
    *((re.compile(r"\b" + r"\.\s+".join(["([a-z])"] * n) + r"\.\b"), "") for n in (4, 3, 2)),
]
"""In the order of the leaderboard's own patterns, longest first."""
_SEEDTTS_REMOVED = re.compile(
    r"[!-&(-/:-@\[-`{-~"  # ASCII without the apostrophe
    r"\u00b7\u2013\u2014\u2018\u2019\u201b-\u201f\u2026\u2027"
    r"\u3000-\u3003\u3008-\u3011\u3014-\u301f\u3030\u303e\u303f\ufe4f\ufe51\ufe54"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff64]"
)


def normalizer(name: str) -> Normalizer:
    """The normaliser of a name.

    Raises:
        ConfigError: there is none of this name, or its library is not installed.
    """
    if name not in _MAKERS:
        raise ConfigError(f"no normaliser is called {name!r}; there are: {', '.join(_MAKERS)}.")
    return _MAKERS[name]()


def wenet_units(text: str) -> list[str]:
    """Characters of CJK text, words of the rest, in upper case, as WeNet's ``compute-wer.py --char=1``.

    Punctuation of a fixed list is left out where a unit would begin: it stays at the end of a Latin word, and
    the ASCII full stop is not in the list. What stands between ``<`` and ``>`` inside a unit is removed.
    """
    units, at = [], 0
    while at < len(text):
        category = unicodedata.category(text[at])
        if text[at] in _WENET_SKIPPED or category in ("Zs", "Cn"):
            at += 1
            continue
        if category == "Lo":
            unit = text[at]
        else:
            pattern = _WENET_TAG if text[at] == "<" else _WENET_WORD
            found = pattern.match(text, at)
            assert found is not None  # both match the character that stands here
            unit = found.group()
        at += len(unit)
        units.append(_TAG.sub("", unit.upper()))
    return [unit for unit in units if unit]


def wenet_letters(text: str) -> list[str]:
    """`wenet_units` with Latin words in letters; for comparison only."""
    return [part for unit in wenet_units(text) for part in (unit if _LETTERS.search(unit) else [unit])]


def seedtts_words(text: str) -> list[str]:
    """Lower-case words without Chinese and ASCII punctuation; the apostrophe stays (Seed-TTS, English)."""
    return _SEEDTTS_REMOVED.sub("", text).lower().split()


def seedtts_characters(text: str) -> list[str]:
    """Characters without punctuation, case kept; spaces don't count (Seed-TTS, Chinese).

    Transcripts must be in simplified characters, as the transcriber of that benchmark gives them, or be made
    so by ``seedtts-zh-t2s``.
    """
    return [character for character in _SEEDTTS_REMOVED.sub("", text) if not character.isspace()]


def open_asr_text(text: str) -> str:
    """What the Open ASR Leaderboard does besides Whisper's English rules: no ellipses, initials as a word."""
    text = _ELLIPSIS.sub(" ", _LAST_ELLIPSIS.sub("", text.lower()))
    for pattern, end in _INITIALS:
        text = pattern.sub(lambda found, end=end: "".join(found.groups()) + end, text)
    return text


@lru_cache
def _english() -> tuple[Callable[[str], str], str]:
    """Whisper's English rules, and what they are of.

    The rules are transformers' copy, word for word OpenAI's; whisper_normalizer, which has the spellings, has
    added contractions of its own.
    """
    try:
        from whisper_normalizer.english import EnglishSpellingNormalizer
    except ImportError as error:
        raise ConfigError("English rules need whisper_normalizer: pip install 'deeptalk[judge]'.") from error
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    spellings = f"spellings of whisper_normalizer {version('whisper_normalizer')}"
    release = f"transformers {version('transformers')}, {spellings}"
    return EnglishTextNormalizer(EnglishSpellingNormalizer().mapping), release


def _whisper_english() -> Normalizer:
    clean, release = _english()
    return Normalizer(name="whisper-en", unit="WER", version=release, units=lambda text: clean(text).split())


def _open_asr() -> Normalizer:
    clean, release = _english()
    return Normalizer(
        name="open-asr",
        unit="WER",
        version=f"2, {release}",
        units=lambda text: clean(open_asr_text(text)).split(),
        joins_words=True,
    )


@lru_cache
def _whisper_basic() -> Normalizer:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    clean = BasicTextNormalizer()
    release = f"transformers {version('transformers')}"
    return Normalizer(
        name="whisper-basic", unit="WER", version=release, units=lambda text: clean(text).split()
    )


@lru_cache
def _chinese_spoken() -> Normalizer:
    try:
        from wetext import Normalizer as TextNormalizer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("cn-tn needs wetext: pip install 'deeptalk[zh]'.") from error
    spoken = TextNormalizer(lang="zh", operator="tn")
    release = f"wetext {version('wetext')}, wenet {_OWN}"
    return Normalizer(
        name="cn-tn", unit="CER", version=release, units=lambda text: wenet_units(spoken.normalize(text))
    )


@lru_cache
def _seedtts_simplified() -> Normalizer:
    try:
        from opencc import OpenCC  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("seedtts-zh-t2s needs opencc: pip install 'deeptalk[zh]'.") from error
    simplified = OpenCC("t2s")
    release = f"{_SEEDTTS}, opencc {version('opencc')}"
    return Normalizer(
        name="seedtts-zh-t2s",
        unit="CER",
        version=release,
        units=lambda text: seedtts_characters(simplified.convert(text)),
    )


def _own(
    name: str, unit: str, units: Callable[[str], list[str]], release: str = _OWN
) -> Callable[[], Normalizer]:
    return lambda: Normalizer(name=name, unit=unit, version=release, units=units)


_MAKERS: dict[str, Callable[[], Normalizer]] = {
    "whisper-en": _whisper_english,
    "open-asr": _open_asr,
    "whisper-basic": _whisper_basic,
    "wenet": _own("wenet", "CER", wenet_units),
    "wenet-letters": _own("wenet-letters", "CER", wenet_letters),
    "cn-tn": _chinese_spoken,
    "seedtts-en": _own("seedtts-en", "WER", seedtts_words, _SEEDTTS),
    "seedtts-zh": _own("seedtts-zh", "CER", seedtts_characters, _SEEDTTS),
    "seedtts-zh-t2s": _seedtts_simplified,
    "plain-en": _own("plain-en", "WER", plain_words),
}
NORMALIZERS = tuple(_MAKERS)
"""The names there are."""
