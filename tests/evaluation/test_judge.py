import math

import numpy as np
import pytest
import torch

from deeptalk.errors import ConfigError
from deeptalk.evaluation.judge import SpeechJudge, arpa

CORPUS = ["the capital of france is paris", "the capital of spain is madrid", "seven plus five is twelve"]


@pytest.mark.parametrize("order", [1, 2])
def test_language_model_is_a_distribution(order: int) -> None:
    text = arpa([s.split() for s in CORPUS], order=order)
    unigram: dict[str, tuple[float, float]] = {}
    bigram: dict[tuple[str, str], float] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("\\"):
            section = line
        elif section == "\\1-grams:" and line:
            value, word, *rest = line.split()
            unigram[word] = (10 ** float(value), 10 ** float(rest[0]) if rest else 1.0)
        elif section == "\\2-grams:" and line:
            value, first, second = line.split()
            bigram[first, second] = 10 ** float(value)
    words = [w for w in unigram if w != "<s>"]
    assert math.isclose(sum(unigram[w][0] for w in words), 1.0, abs_tol=1e-3)
    if order == 2:
        for first in ("<s>", "the", "is", "capital"):
            given = [bigram.get((first, w), unigram[first][1] * unigram[w][0]) for w in words]
            assert sum(given) == pytest.approx(1.0, abs=1e-3)


def test_order_is_checked() -> None:
    with pytest.raises(ConfigError, match="order must be 1 or 2"):
        arpa([["a"]], order=3)


def test_unknown_word_without_phones_is_named() -> None:
    with pytest.raises(ConfigError, match="xqzzy"):
        SpeechJudge(["xqzzy is here"], lexicon={}, order=2)


def test_silence_is_no_words() -> None:
    judge = SpeechJudge(CORPUS, lexicon={}, order=2)
    assert judge.transcribe(torch.zeros(100), sample_rate=16_000) == ""
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(0, 1e-4, 16_000).astype(np.float32))
    assert len(judge.transcribe(noise, sample_rate=16_000).split()) <= 2
