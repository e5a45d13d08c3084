"""The number that English words name, as `word2number` 1.1 reads it, with that tool's oddities.

Scores of spoken questions were published with it, so it is followed where it errs: words that are no numbers
are skipped ("the one who" is 1), a year is multiplied out ("nineteen eighty four" is 19 · 80 + 4), and "two
million three thousand" is 2,004,003.
"""

_NAMES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = {"billion": 10**9, "million": 10**6, "thousand": 10**3}
_VALUES = {name: value for value, name in enumerate(_NAMES)}
_VALUES |= {name: 10 * value for value, name in enumerate(_TENS, start=2)}
_VALUES |= {"hundred": 100, **_SCALES}


def named_number(text: str) -> str | None:
    """The digits of the number that ``text`` names; None where it names none."""
    text = text.replace("-", " ").lower()
    if text.isdigit():
        return str(int(text)) if text.isdecimal() else None
    words = [word for word in text.split() if word in _VALUES or word == "point"]
    if not words or any(words.count(word) > 1 for word in (*_SCALES, "point")):
        return None
    whole, fraction = words, []
    if "point" in words:
        at = words.index("point")
        whole, fraction = words[:at], words[at + 1 :]
    value = _whole(whole)
    if value is None:
        return None
    if not fraction:
        return str(value)
    digits = [_VALUES.get(word, 10) for word in fraction]
    return str(value + (float("0." + "".join(map(str, digits))) if max(digits) < 10 else 0))


def _whole(words: list[str]) -> int | None:
    if len(words) < 2:
        return _VALUES[words[0]] if words else 0
    places = [words.index(scale) for scale in _SCALES if scale in words]
    if places != sorted(places):
        return None
    total, begin = 0, 0
    for place in places:
        if place == begin:
            return None
        total += _multiplied(words[begin:place]) * _VALUES[words[place]]
        begin = place + 1
    # Where the last scale ends the words, what follows the one before it is counted once more.
    begins = [place + 1 for place in places if place + 1 < len(words)] if places else [0]
    return total + (_multiplied(words[begins[-1] :]) if begins else 0)


def _multiplied(words: list[str]) -> int:
    """Two words are added, or multiplied if one is a hundred; of three and four the first two are."""
    first, *others = (_VALUES[word] for word in words)
    if len(others) == 1:
        return first * others[0] if 100 in (first, others[0]) else first + others[0]
    return first * others[0] + sum(others[1:]) if len(others) in (2, 3) else first
