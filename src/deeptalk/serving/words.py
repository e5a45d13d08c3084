"""Which words of an answer have been heard when it is cut."""

CHARACTERS_PER_SECOND = 12.0
"""How fast speech is taken to be where nothing was observed; slow, so that no unheard word is kept."""


def heard_words(text: str, *, cut_ms: float, sound_ms: float, is_whole: bool) -> str:
    """The whole words that end before the cut.

    Text runs ahead of sound, so their end is an estimate: the slower of the default rate and, where all of
    the text was spoken within ``sound_ms`` (``is_whole``), the observed one.
    """
    if is_whole and cut_ms >= sound_ms:
        return text
    rate = CHARACTERS_PER_SECOND
    if is_whole and sound_ms > 0:
        rate = min(rate, 1000.0 * len(text) / sound_ms)
    count = int(rate * max(0.0, cut_ms) / 1000.0)
    if count >= len(text):
        return text
    return text[: text.rfind(" ", 0, count + 1) + 1].strip() if " " in text[: count + 1] else ""
