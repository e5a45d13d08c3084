"""Numbers as English words, from zero to ninety nine, and ordinals."""

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split() + [f"twenty {word}" for word in "first second third fourth fifth sixth".split()]


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
