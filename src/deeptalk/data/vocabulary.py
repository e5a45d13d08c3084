"""Words: how texts are cut into them, the tokenizer learnt from them, and how they are pronounced."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from deeptalk.data.manifest import write_lines
from deeptalk.data.synthesis import ANSWER_VOICES, check_programs

BOS, EOS = "<bos>", "<eos>"
SPECIALS = (BOS, EOS)

_WORD = re.compile(r"[A-Za-zÀ-ÿ0-9]+(?:['’\-][A-Za-zÀ-ÿ0-9]+)*")
_SENTENCE = re.compile(r'[^.!?:"“]+')
SILENCE = "pau"


def words_of(text: str) -> list[str]:
    """The words of a text without punctuation, spelled as they stand."""
    return _WORD.findall(text)


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, spelled as it stands."""
    return Counter(word for text in texts for word in words_of(text))


def proper_names(counts: Mapping[str, int], texts: Iterable[str]) -> frozenset[str]:
    """Words that keep their capital: those that never occur in lower case and do occur inside a sentence."""
    inside = {word for text in texts for word in _inner_words(text) if word[0].isupper()}
    return frozenset(word for word in inside if word == "I" or word.lower() not in counts)


def spoken_form(text: str, names: frozenset[str]) -> str:
    """What a transcriber writes: no punctuation, lower case except proper names, one space between words."""
    return " ".join(word if word in names else word.lower() for word in words_of(text))


def spoken_punctuated(text: str, names: frozenset[str]) -> str:
    """The spoken form with the punctuation, at which a reader pauses, left in."""
    return _WORD.sub(lambda found: found[0] if found[0] in names else found[0].lower(), text)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, always: Sequence[str] = ()) -> Tokenizer:
    """A byte-level tokenizer whose tokens are the most frequent words; ids 0 and 1 begin and end a text.

    It is stock byte-level BPE without merges: a word of the vocabulary is one token, with the space before
    it, and any other word is spelled byte by byte, so nothing is lost. In a small domain every word then has
    an embedding of its own, which text, transcription and reading aloud share. Pieces of `always` (the words
    of the dialogue template) are in however rare they are.
    """
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    counts = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(f" {text}"))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = vocab_size - len(SPECIALS) - len(alphabet) - len(always)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    pieces = [piece for piece, _ in ranked if len(piece) > 1][:room]
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *alphabet, *always, *pieces])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = split  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def sentence_case_off(text: str, names: frozenset[str]) -> str:
    """The text without the capital that only opens a sentence; names and single letters keep theirs."""
    first = next(iter(words_of(text)), "")
    keeps = not first or first in names or len(first) == 1
    return text if keeps else text.replace(first, first[0].lower() + first[1:], 1)


def single_token_share(tokenizer: Tokenizer, words: Iterable[str]) -> float:
    """Share of words that are one token when a space stands before them."""
    encoded = tokenizer.encode_batch([f" {word}" for word in words], add_special_tokens=False)
    return sum(len(item.ids) == 1 for item in encoded) / max(1, len(encoded))


def pronounce(word: str) -> tuple[str, ...]:
    """The phones of a word as flite says it, without silence; `ConfigError` where flite is missing."""
    voice = ANSWER_VOICES["slt"]
    command = ["flite", "-voice", voice.voice, "-ps", "-t", word, "none"]
    text = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout
    return tuple(phone for phone in text.split() if phone != SILENCE)


def build_lexicon(words: Iterable[str], *, workers: int = 2) -> dict[str, tuple[str, ...]]:
    """Word in lower case -> phones, for every word that flite can say."""
    check_programs([ANSWER_VOICES["slt"]])
    unique = sorted({word.lower() for word in words})
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return {
            word: phones for word, phones in zip(unique, pool.map(pronounce, unique), strict=True) if phones
        }


def write_lexicon(path: Path, lexicon: Mapping[str, Sequence[str]]) -> None:
    """Write a lexicon as one JSON object of lists, atomically."""
    write_lines(path, [{word: list(phones) for word, phones in sorted(lexicon.items())}])


def read_lexicon(path: Path) -> dict[str, tuple[str, ...]]:
    """Read what `write_lexicon` wrote."""
    return {word: tuple(phones) for word, phones in json.loads(path.read_text(encoding="utf-8")).items()}


def phone_ids(lexicon: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Phone -> id from 0 on, in alphabetical order; the blank of CTC comes after the last."""
    phones = sorted({phone for word in lexicon.values() for phone in word})
    return {phone: index for index, phone in enumerate(phones)}


def _inner_words(text: str) -> list[str]:
    """Words that don't open a sentence, where a capital says something."""
    return [word for sentence in _SENTENCE.findall(text) for word in words_of(sentence)[1:]]


def words_to_time(lexicon: Mapping[str, Sequence[str]], *, number: int = 500) -> list[str]:
    """The first `number` words of a lexicon, and one more for every phone that none of them has."""
    words = sorted(lexicon)
    chosen = words[:number]
    heard = {phone for word in chosen for phone in lexicon[word]}
    for word in words[number:]:
        if not heard.issuperset(lexicon[word]):
            chosen.append(word)
            heard.update(lexicon[word])
    return chosen


def measure_durations(words: Sequence[str], *, workers: int = 2) -> dict[str, float]:
    """Mean seconds of every phone as flite says some words; `ConfigError` where flite is missing."""
    check_programs([ANSWER_VOICES["slt"]])
    with ThreadPoolExecutor(max_workers=workers) as pool:
        said = [pair for pairs in pool.map(_timed_phones, words) for pair in pairs]
    total: Counter[str] = Counter()
    for phone, seconds in said:
        total[phone] += seconds  # type: ignore[assignment]  # a Counter of seconds
    number = Counter(phone for phone, _ in said)
    return {phone: round(total[phone] / number[phone], 4) for phone in sorted(number)}


def _timed_phones(word: str) -> list[tuple[str, float]]:
    command = ["flite", "-voice", ANSWER_VOICES["slt"].voice, "-psdur", "-t", word, "none"]
    text = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout
    ends = [(phone, float(end)) for phone, _, end in (item.partition(":") for item in text.split())]
    starts = [0.0, *(end for _, end in ends)]
    return [
        (phone, end - start) for (phone, end), start in zip(ends, starts, strict=False) if phone != SILENCE
    ]
