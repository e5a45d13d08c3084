"""Numbers that are well formed have their value; the oddities are those of `word2number` 1.1."""

import random

import pytest

from deeptalk.evaluation.benchmarks.number_words import named_number

NAMES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
SMALL = [*NAMES.split(), *(f"{stem}teen" for stem in ("six", "seven", "eigh", "nine"))]
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """A number below a billion as it is said, with its "and"."""
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = f" and {in_words(number % size)}" if number % size else ""
            return f"{in_words(number // size)} {name}{rest}"
    if number < 20:
        return SMALL[number]
    return TENS[number // 10 - 2] + (f"-{SMALL[number % 10]}" if number % 10 else "")


def test_what_is_well_formed_has_its_value() -> None:
    rng = random.Random(0)
    numbers = [*range(1000), *(rng.randrange(10 ** rng.randint(3, 9)) for _ in range(600))]
    for number in numbers:
        if number < 10**6 or number % 1000:
            assert named_number(in_words(number)) == str(number)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("Forty-Two", "42"),
        ("007", "7"),
        ("the one who", "1"),
        ("nineteen eighty four", "1524"),
        ("two million three thousand", "2004003"),
        ("one million two hundred thousand", "1201200"),
        ("three point one four", "3.14"),
        ("seven point ten", "7"),
        ("point five", "0.5"),
        ("million", "1000000"),
        ("one two three four five", "1"),
        ("two billion", "2000000000"),
        ("", None),
        ("paris", None),
        ("²", None),
        ("-3", None),
        ("million five", None),
        ("two thousand three million", None),
        ("one thousand two thousand", None),
        ("one point two point three", None),
    ],
)
def test_oddities(text: str, digits: str | None) -> None:
    assert named_number(text) == digits
