"""Numbers as English words, from zero to ninety nine, and ordinals."""

from .item import split_words

ONES = split_words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = split_words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = split_words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
) + [f"twenty {word}" for word in split_words("first second third fourth fifth sixth")]


def say_number(number: int) -> str:
    """The words of a whole number from 0 to 100, without hyphens."""
    if not 0 <= number <= 100:
        raise ValueError(f"number must be from 0 to 100, got {number}.")
    if number == 100:
        return "one hundred"
    if number < 20:
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f" {ONES[ones]}" if ones else "")
