"""An independent listener: pocketsphinx with a closed language model over the answer corpus.

The judge knows the words of the corpus and how they follow each other (bigram) or only how often they occur
(unigram, the prior-free check); it never gets a list of the sentences that are tested. Its own floor, the
error on recordings of the synthesiser that the model learnt from, is printed beside every score.
"""

import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import soxr

from deeptalk.errors import ConfigError
from deeptalk.evaluation.normalize import plain_words
from deeptalk.shapes import Float, Tensor

_SAMPLE_RATE = 16_000
_FLITE_TO_CMU = {"ax": "AH"}


def arpa(sentences: Iterable[list[str]], *, order: int) -> str:
    """A closed unigram or bigram language model with Witten-Bell back-off, in ARPA form."""
    if order not in (1, 2):
        raise ConfigError(f"order must be 1 or 2, got {order}.")
    unigrams: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for words in sentences:
        padded = ["<s>", *words, "</s>"]
        unigrams.update(padded[1:])
        bigrams.update(pairwise(padded))
    total = sum(unigrams.values())
    prob = {word: count / total for word, count in unigrams.items()}
    history: Counter[str] = Counter()
    followers: Counter[str] = Counter()
    for (first, _), count in bigrams.items():
        history[first] += count
        followers[first] += 1
    lines = ["\\data\\", f"ngram 1={len(prob) + 1}"]
    lines += [f"ngram 2={len(bigrams)}"] if order == 2 else []
    lines += ["", "\\1-grams:"]
    for word in ["<s>", *sorted(prob)]:
        value = math.log10(prob[word]) if word in prob else -99.0
        share = followers[word] / (followers[word] + history[word]) if history[word] else 1.0
        lines.append(f"{value:.5f} {word} {math.log10(share):.5f}" if order == 2 else f"{value:.5f} {word}")
    if order == 2:
        lines += ["", "\\2-grams:"]
        for (first, second), count in sorted(bigrams.items()):
            kept = followers[first] + history[first]
            seen = count / kept + followers[first] / kept * prob[second]
            lines.append(f"{math.log10(seen):.5f} {first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])


class SpeechJudge:
    """Turns speech into words with pocketsphinx's own English acoustic model and a closed language model."""

    def __init__(self, corpus: Iterable[str], *, lexicon: Mapping[str, list[str]], order: int) -> None:
        """``corpus`` are the answers; ``lexicon`` has phones (flite's names) for words that CMUdict lacks."""
        try:
            import pocketsphinx
        except ImportError as error:
            raise ConfigError(
                "the speech judge needs pocketsphinx: pip install 'deeptalk[judge]'."
            ) from error
        sentences = [words for words in (plain_words(text) for text in corpus) if words]
        models = Path(pocketsphinx.get_model_path()) / "en-us"
        vocabulary = {word for words in sentences for word in words}
        with tempfile.TemporaryDirectory() as folder:
            dictionary = Path(folder) / "words.dict"
            entries = _pronunciations(vocabulary, models / "cmudict-en-us.dict", lexicon)
            dictionary.write_text(entries, encoding="ascii")
            language, model = Path(folder) / "closed.arpa", arpa(sentences, order=order)
            language.write_text(model, encoding="ascii")
            self._decoder = pocketsphinx.Decoder(
                hmm=str(models / "en-us"), dict=str(dictionary), lm=str(language), loglevel="FATAL"
            )
        self.hash = sha256((entries + model).encode()).hexdigest()[:16]

    def transcribe(self, samples: Float[Tensor, "S"], *, sample_rate: int) -> str:
        """The words heard in ``samples``; an empty text when nothing is."""
        sound = soxr.resample(samples.detach().cpu().numpy(), sample_rate, _SAMPLE_RATE)
        if sound.size < _SAMPLE_RATE // 20:
            return ""
        peak = float(np.abs(sound).max()) or 1.0
        pcm = (sound / peak * 0.7 * 32767).astype(np.int16)
        edge = np.zeros(_SAMPLE_RATE // 5, np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(np.concatenate([edge, pcm, edge]).tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return " ".join(plain_words(found.hypstr)) if found else ""


def _pronunciations(vocabulary: set[str], cmudict: Path, lexicon: Mapping[str, list[str]]) -> str:
    found: dict[str, list[str]] = {}
    for line in cmudict.read_text(encoding="utf-8").splitlines():
        word, _, phones = line.partition(" ")
        word = re.sub(r"\(\d+\)$", "", word)
        if word in vocabulary:
            found.setdefault(word, []).append(phones.strip())
    lines: list[str] = []
    for word in sorted(vocabulary):
        heard = found.get(word, [])
        if word in lexicon:
            heard = [*heard, " ".join(_FLITE_TO_CMU.get(p, p.upper()) for p in lexicon[word])]
        if not heard:
            raise ConfigError(f"the judge has no pronunciation of {word!r}: add it to the lexicon.")
        for number, phones in enumerate(dict.fromkeys(heard)):
            lines.append(f"{word}({number + 1}) {phones}" if number else f"{word} {phones}")
    return "\n".join(lines) + "\n"
