"""Every normaliser against a second computation on 300 texts, and by hand where its rules surprise."""

import unicodedata

import pytest
from benchmark_texts import pairs
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks.normalizers import NORMALIZERS, normalizer

TEXTS = [text for pair in pairs(300) for text in pair]


@pytest.mark.parametrize(
    ("name", "text", "units"),
    [
        ("whisper-en", "Mr. Brown won't pay $20 for colour", "mister brown will not pay $20 for color"),
        ("whisper-en", "(uh) twenty-one percent, um", "21%"),
        ("whisper-en", "I dunno, 'cause it's kinda gonna rain", "i dunno cause it is kinda going to rain"),
        ("whisper-en", "the U.S. Army ... well", "the u s army well"),
        ("open-asr", "the U.S. Army ... well...", "the us army well"),
        ("open-asr", "F.B.I.s and N.A.S.A. and J. R. R.", "fbis and nasa and j r r"),
        ("open-asr", "a. b.c ... It's, um, twenty-one percent...", "a bc it is 21%"),
        ("whisper-basic", "Naïve café, [noise] 21%!", "naïve café 21"),
        ("wenet", "hello, World.", "HELLO, WORLD."),
        ("wenet", "，hello , x", "HELLO X"),
        ("wenet", "我的 iPhone很好。", "我 的 IPHONE 很 好"),
        ("wenet", "<noise>ok<unk> a<b>c", "OK AC"),
        ("wenet", "café au", "CAF É AU"),
        ("wenet", "３", "３"),
        ("wenet-letters", "我 ok3", "我 O K 3"),
        ("seedtts-en", "Don't — stop, NOW.", "don't stop now"),
        ("seedtts-en", "don’t co-op", "dont coop"),
        ("seedtts-zh", "你好， 世界。OK！", "你 好 世 界 O K"),
        ("seedtts-zh", "一．二", "一 二"),
        ("plain-en", "C, A-T.", "c a t"),
    ],
)
def test_by_hand(name: str, text: str, units: str) -> None:
    assert normalizer(name).units(text) == units.split()


def wenet_again(text: str) -> list[str]:
    """The rules of WeNet as a machine that reads one character after the other."""
    units: list[str] = []
    inside = None  # what ends the unit that is being read, besides spaces and what is not ASCII
    for character in text:
        is_space = character in " \t\r\n"
        if inside is not None and ord(character) < 128 and not is_space:
            units[-1] += character
            inside = None if character == inside else inside
            continue
        inside = None
        if is_space or character in "!,?、。！，；？：「」︰『』《》":
            continue
        category = unicodedata.category(character)
        if category not in ("Zs", "Cn"):
            units.append(character)
            if category != "Lo":
                inside = ">" if character == "<" else " "
    kept = []
    for unit in units:
        shown, depth = "", False
        for character in unit.upper():
            depth = depth or character == "<"
            shown += "" if depth else character
            depth = depth and character != ">"
        kept += [shown] if shown else []
    return kept


def seedtts_again(text: str, *, is_chinese: bool) -> list[str]:
    """Punctuation by its category, but for the apostrophe; the wide space is in the benchmark's list too."""
    kept = ""
    for character in text:
        is_mark = unicodedata.category(character)[0] in "PS"
        if character == "'" or not (is_mark or character == "\u3000"):
            kept += character
    return list("".join(kept.split())) if is_chinese else kept.lower().split()


def test_all_agree_with_a_second_computation() -> None:
    english, basic = EnglishTextNormalizer(), BasicTextNormalizer()
    for added in ("kinda", "sorta", "dunno", "cause"):  # the package's own, not Whisper's
        del english.replacers[rf"\b{added}\b"]
    again = {
        "whisper-en": lambda text: english(text).split(),
        "whisper-basic": lambda text: basic(text).split(),
        "wenet": wenet_again,
        "wenet-letters": lambda text: [
            part
            for unit in wenet_again(text)
            for part in (list(unit) if unit.upper() != unit.lower() else [unit])
        ],
        "seedtts-en": lambda text: seedtts_again(text, is_chinese=False),
        "seedtts-zh": lambda text: seedtts_again(text, is_chinese=True),
    }
    assert set(again) == set(NORMALIZERS) - {"plain-en", "cn-tn", "open-asr", "seedtts-zh-t2s"}
    for name, computed in again.items():
        units = normalizer(name).units
        assert [units(text) for text in TEXTS] == [computed(text) for text in TEXTS], name
    assert len({tuple(tuple(computed(text)) for text in TEXTS) for computed in again.values()}) == len(again)


def test_chinese_numbers_are_written_as_they_are_said() -> None:
    pytest.importorskip("wetext", reason="cn-tn needs wetext (deeptalk[zh])")
    chosen = normalizer("cn-tn")
    assert chosen.units("今天是2024年，ok") == [*"今天是二零二四年", "OK"]
    assert chosen.units("我有3.5%") == [*"我有百分之三点五"]
    assert chosen.version.startswith("wetext 0.")


def test_traditional_characters_are_made_simple() -> None:
    pytest.importorskip("opencc", reason="seedtts-zh-t2s needs opencc (deeptalk[zh])")
    chosen = normalizer("seedtts-zh-t2s")
    assert chosen.units("今天天氣，真好。OK！") == [*"今天天气真好OK"]
    assert chosen.units("今天天气") == normalizer("seedtts-zh").units("今天天气")
    assert ", opencc 1." in chosen.version


def test_a_library_tells_its_version() -> None:
    assert normalizer("whisper-en").version.startswith("transformers 5.")
    assert "spellings of whisper_normalizer 0." in normalizer("open-asr").version
    assert normalizer("whisper-basic").version.startswith("transformers 5.")
    assert normalizer("wenet").version == "1"


def test_an_unknown_name_and_a_library_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'whisper'; there are: whisper-en, "):
        normalizer("whisper")
    normalizer("whisper-en")
    from deeptalk.evaluation.benchmarks import normalizers

    normalizers._english.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "whisper_normalizer.english", None)
    with pytest.raises(ConfigError, match=r"deeptalk\[judge\]"):
        normalizer("whisper-en")
    normalizers._chinese_spoken.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "wetext", None)
    with pytest.raises(ConfigError, match=r"deeptalk\[zh\]"):
        normalizer("cn-tn")
    normalizers._seedtts_simplified.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "opencc", None)
    with pytest.raises(ConfigError, match="needs opencc"):
        normalizer("seedtts-zh-t2s")
