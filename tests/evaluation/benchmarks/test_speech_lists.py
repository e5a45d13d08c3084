"""Lists of recordings and of texts to say, good and bad."""

import json
from pathlib import Path

import pytest

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.speech_lists import (
    SayItem,
    SpeechItem,
    read_say_list,
    read_speech,
    read_transcripts,
)

TEXTS = {"1089-1": "HE HOPED THERE WOULD BE STEW", "BAC009S0764W0121": "甚至 出现 交易"}


def items_in(folder: Path) -> tuple[SpeechItem, ...]:
    return tuple(
        SpeechItem(id=name, audio=folder / f"{name}.flac", text=text) for name, text in TEXTS.items()
    )


def test_three_layouts_give_the_same_items(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("".join(f"{name} {name}.flac\n" for name in reversed(TEXTS)))
    (tmp_path / "text").write_text("".join(f"{name}\t{text}\r\n" for name, text in TEXTS.items()))
    (tmp_path / "a.tsv").write_text(f"{tmp_path}\n" + "".join(f"{name}.flac\t16000\n" for name in TEXTS))
    (tmp_path / "a.wrd").write_text("".join(f"{text}\n" for text in TEXTS.values()))
    lines = [{"id": name, "audio": f"{name}.flac", "text": text} for name, text in TEXTS.items()]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for path in (tmp_path, tmp_path / "a.tsv", tmp_path / "a.jsonl"):
        assert read_speech(path) == items_in(tmp_path)
    assert read_transcripts(tmp_path / "text") == read_transcripts(tmp_path / "a.jsonl") == TEXTS


def test_a_transcript_may_be_empty_and_comes_once(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a one  two \nb\n")
    assert read_transcripts(tmp_path / "text") == {"a": "one  two", "b": ""}
    (tmp_path / "text").write_text("a x\n\na y\n")
    with pytest.raises(DataError, match="line 3: the id 'a' comes twice"):
        read_transcripts(tmp_path / "text")


def test_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("a a.wav\nb b.wav\n")
    (tmp_path / "text").write_text("a x\n")
    with pytest.raises(DataError, match=r"1 ids are in one of wav\.scp and text only, as 'b'"):
        read_speech(tmp_path)
    (tmp_path / "a.tsv").write_text("/\na.wav\t1\nb.wav\t1\n")
    (tmp_path / "a.wrd").write_text("X\n")
    with pytest.raises(DataError, match=r"2 recordings, and 1 lines in its \.wrd"):
        read_speech(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_text("")
    (tmp_path / "b.wrd").write_text("")
    with pytest.raises(DataError, match="there is nothing in it"):
        read_speech(tmp_path / "b.tsv")
    with pytest.raises(ConfigError, match=r"wav\.scp and text, a \.tsv or a \.jsonl"):
        read_speech(tmp_path / "a.csv")


def test_lines_of_two_to_five_fields(tmp_path: Path) -> None:
    path = tmp_path / "meta.lst"
    path.write_bytes(
        b"a|Hello, you.\r\nb.wav|say this|p/b.wav\r\n\r\n"
        + "c|他说|p/c.wav|你好。\r\nd|said|p/d.wav|text|t/d.wav".encode()
    )
    assert read_say_list(path) == (
        SayItem(id="a", text="Hello, you."),
        SayItem(id="b", text="say this", prompt_audio=tmp_path / "p/b.wav"),
        SayItem(id="c", text="你好。", prompt_text="他说", prompt_audio=tmp_path / "p/c.wav"),
        SayItem(
            id="d",
            text="text",
            prompt_text="said",
            prompt_audio=tmp_path / "p/d.wav",
            target_audio=tmp_path / "t/d.wav",
        ),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a|b\nalone\n", "line 2: two to five fields between | are expected, got 1"),
        ("a|b|c|d|e|f\n", "line 1: two to five fields between | are expected, got 6"),
        ("a|b\n\nc|\n", "line 3: the id or the text is empty"),
        ("a|b\na|c\n", "the id 'a' comes twice"),
        ("", "there is nothing in it"),
    ],
)
def test_a_bad_line_is_told_by_its_number(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "meta.lst").write_text(text)
    with pytest.raises(DataError) as caught:
        read_say_list(tmp_path / "meta.lst")
    assert complaint in str(caught.value)
