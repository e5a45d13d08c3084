"""When a recorded answer says what: its words and phones, laid on the codec's clock."""

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from deeptalk.data.vocabulary import SILENCE, words_of
from deeptalk.errors import DataError
from deeptalk.streams.layout import IGNORE

_VOWELS = "aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw"
_CONSONANTS = "b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh"
PHONES = (*sorted([*_VOWELS.split(), *_CONSONANTS.split()]), SILENCE)
"""The phones of flite's English voices."""

PHONES_PER_FRAME = 4
"""One for each code of the finest codebook, 21 ms at the pocket codec's clock."""

_IDS = {phone: i for i, phone in enumerate(PHONES)}
_MOST_OFF = 3  # phones by which a sentence may differ from its words said alone
_PARTS = re.compile(r"[^\W_]+")

TimedPhones = Sequence[tuple[str, float]]


def align_answer(
    text: str,
    phones: TimedPhones | None,
    lexicon: Mapping[str, Sequence[str]],
    *,
    num_frames: int,
    seconds_per_frame: float,
) -> npt.NDArray[np.int16]:
    """What sounds in each frame, `[L, 1 + PHONES_PER_FRAME]`: the number of the word, then ids of phones.

    `phones` come with the second at which each ends; what isn't known is `IGNORE`, as is the word in silence.
    A word is told in the first half of the frame, phones in the middle of each quarter. `DataError` names a
    phone that isn't one of `PHONES`.
    """
    said = np.full((num_frames, 1 + PHONES_PER_FRAME), IGNORE, dtype=np.int16)
    if not phones:
        return said
    middles = (np.arange(num_frames * PHONES_PER_FRAME) + 0.5) * seconds_per_frame / PHONES_PER_FRAME
    at = _sounding_at(phones, middles).reshape(num_frames, PHONES_PER_FRAME)
    said[:, 1:] = _ids_of(phones)[at]
    said[:, 0] = _words_of_phones(text, [phone for phone, _ in phones], lexicon)[at[:, 1]]
    return said


def phones_at(phones: TimedPhones | None, times: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Ids of the phones that sound at ``times``, in seconds; `IGNORE` where ``phones`` aren't known.

    `DataError` names a phone that isn't one of `PHONES`.
    """
    if not phones:
        return np.full(len(times), IGNORE, dtype=np.int64)
    return _ids_of(phones)[_sounding_at(phones, times)]


def _ids_of(phones: TimedPhones) -> npt.NDArray[np.int64]:
    unknown = sorted({phone for phone, _ in phones} - set(PHONES))
    if unknown:
        raise DataError(f"no phones {', '.join(unknown)}; there are {', '.join(PHONES)}")
    return np.array([_IDS[phone] for phone, _ in phones])


def _sounding_at(phones: TimedPhones, times: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    return np.searchsorted([end for _, end in phones], times).clip(max=len(phones) - 1)


def _words_of_phones(
    text: str, phones: Sequence[str], lexicon: Mapping[str, Sequence[str]]
) -> npt.NDArray[np.int16]:
    """The number of the word to which each phone belongs: words share them as the lexicon would.

    Where a sentence is longer or shorter than its words by more than a few phones, no word is known.
    """
    numbers = np.full(len(phones), IGNORE, dtype=np.int16)
    sounding = [i for i, phone in enumerate(phones) if phone != SILENCE]
    lengths = [_num_phones(word, lexicon) for word in text.split() if words_of(word)]
    total = sum(lengths)
    if not total or abs(total - len(sounding)) > _MOST_OFF:
        return numbers
    ends = [round(end * len(sounding) / total) for end in accumulate(lengths, initial=0)]
    for number, (start, stop) in enumerate(pairwise(ends)):
        numbers[sounding[start:stop]] = number
    return numbers


def _num_phones(word: str, lexicon: Mapping[str, Sequence[str]]) -> int:
    """Phones of what stands between two spaces; what the lexicon lacks as a whole is said by its parts."""
    total = 0
    for part in map(str.lower, words_of(word)):
        pieces = [part] if part in lexicon else _PARTS.findall(part)
        total += sum(len(lexicon.get(piece, ())) for piece in pieces)
    return total
