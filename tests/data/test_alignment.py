import numpy as np
import pytest

from deeptalk.data.alignment import PHONES, PHONES_PER_FRAME, align_answer, phones_at
from deeptalk.errors import DataError
from deeptalk.streams.layout import IGNORE

LEXICON = {
    "two": ("t", "uw"),
    "cats": ("k", "ae", "t", "s"),
    "ice": ("ay", "s"),
    "cream": ("k", "r", "iy", "m"),
}
SPOKEN = (
    ("pau", 0.1),
    ("t", 0.2),
    ("uw", 0.4),
    ("k", 0.5),
    ("ae", 0.6),
    ("t", 0.7),
    ("s", 0.8),
    ("pau", 1.0),
)


def _align(text: str, phones: tuple = SPOKEN, *, num_frames: int = 10) -> np.ndarray:
    return align_answer(text, phones, LEXICON, num_frames=num_frames, seconds_per_frame=0.1)


def test_each_frame_tells_its_word_and_each_quarter_its_phone() -> None:
    said = _align("Two cats.")
    assert said.shape == (10, 1 + PHONES_PER_FRAME)
    assert said[:, 0].tolist() == [IGNORE, 0, 0, 0, 1, 1, 1, 1, IGNORE, IGNORE]
    names = ["pau", "t", "uw", "uw", "k", "ae", "t", "s", "pau", "pau"]
    for frame, name in zip(said[:, 1:], names, strict=True):
        assert {PHONES[phone] for phone in frame} == {name}


def test_a_frame_across_two_phones_tells_both() -> None:
    said = align_answer("two", (("t", 0.05), ("uw", 0.2)), LEXICON, num_frames=2, seconds_per_frame=0.1)
    assert [PHONES[phone] for phone in said[0, 1:]] == ["t", "t", "uw", "uw"]


def test_frames_beyond_the_last_phone_go_on_with_it() -> None:
    assert {PHONES[phone] for phone in _align("two cats", num_frames=14)[-1, 1:]} == {"pau"}


def test_words_parted_by_a_hyphen_are_one_and_signs_alone_are_none() -> None:
    phones = tuple((p, 0.1 * (i + 1)) for i, p in enumerate(("ay", "s", "k", "r", "iy", "m", "t", "uw")))
    assert _align("ice-cream – two", phones, num_frames=8)[:, 0].tolist() == [0] * 6 + [1] * 2


def test_words_stay_unknown_where_the_phones_are_of_something_else() -> None:
    said = _align("two cats and a lot of words that nobody says", num_frames=10)
    assert said[:, 0].tolist()[1] in (0, IGNORE)
    assert (_align("cream cream cream cream")[:, 0] == IGNORE).all()
    assert (_align("cream cream cream cream")[:, 1:] != IGNORE).all()


def test_nothing_is_known_without_phones_and_unknown_phones_are_named() -> None:
    assert (_align("two cats", None) == IGNORE).all()
    assert (phones_at(None, np.arange(3.0)) == IGNORE).all()
    with pytest.raises(DataError, match="no phones zz; there are aa, ae"):
        _align("two", (("zz", 0.1),))


def test_phones_sound_until_their_ends_and_the_last_for_good() -> None:
    at = phones_at(SPOKEN, np.array([0.05, 0.15, 0.3, 0.75, 0.9, 7.0]))
    assert [PHONES[i] for i in at] == ["pau", "t", "uw", "s", "pau", "pau"]
