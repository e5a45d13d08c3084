"""Pairs of a reference and what was heard, in English, Chinese and both, drawn with a seed."""

import random

WORDS = """
the cat don't colour it's Mr. Brown twenty-one 3.5 $20 naïve café O'Neill WE'LL gray grey two hundred and
five, (uh) [noise] <unk> hmm, state-of-the-art e.g. 1st percent % & co. a.m. ships, sailed! why? “quoted”
one oh one fifteen dollars — end… of-day; x:y hello,world ok
"""
ENGLISH = WORDS.split()
CHINESE = "今天天氣真好我们去公园吧零一二三百千。，！？、；：「」《》（）…—·．ＡＢ１２"


def sentence(rng: random.Random) -> str:
    """Some words, some characters, or both in turn."""
    kind, parts = rng.choice(("en", "zh", "mixed")), []
    for _ in range(rng.randint(1, 9)):
        if kind == "en" or (kind == "mixed" and rng.random() < 0.5):
            parts.append(rng.choice(ENGLISH))
        else:
            parts.append("".join(rng.choices(CHINESE, k=rng.randint(1, 4))))
    text = rng.choice((" ", " ", "  ", "\u3000" if kind != "en" else " ")).join(parts)
    return text.upper() if rng.random() < 0.1 else text


def heard(rng: random.Random, text: str) -> str:
    """The text with some of its words lost, doubled, replaced or with letters lost."""
    words = []
    for word in text.split():
        fate = rng.random()
        if fate < 0.1:
            continue
        if fate < 0.2:
            words += [word, rng.choice(ENGLISH)]
        elif fate < 0.3:
            words.append(rng.choice(ENGLISH))
        elif fate < 0.4:
            words.append(word[: rng.randint(0, len(word))])
        else:
            words.append(word)
    return " ".join(words)


def pairs(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """As many pairs of reference and hypothesis, always the same."""
    rng, made = random.Random(seed), []
    while len(made) < count:
        reference = sentence(rng)
        made.append((reference, heard(rng, reference)))
    return made
