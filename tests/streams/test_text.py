from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from deeptalk.errors import CheckpointError
from deeptalk.streams.text import ByteTokenizer, TextStream, TextTokenizer


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=20))
def test_stream_equals_decode(text: str):
    tokenizer = ByteTokenizer()
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.finish() == text


def test_incomplete_characters_wait():
    stream = TextStream(ByteTokenizer())
    first, second = "é".encode()
    assert stream.push(first) == ""
    assert stream.push(second) == "é"
    assert stream.push(first) == ""
    assert stream.finish() == "\ufffd"


def test_tokenizer_file(tmp_path: Path):
    vocab = {"<eos>": 0, "a": 1, "b": 2}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = TextTokenizer(tmp_path / "tokenizer.json")
    assert loaded.encode("a") == [1]
    assert loaded.decode([1, 0]) == "a"
    assert loaded.id_of("<eos>") == 0
    assert loaded.id_of("nothing") is None
    assert loaded.vocab_size == 3
    loaded.save(tmp_path / "copy.json")
    assert TextTokenizer(tmp_path / "copy.json").encode("b") == [2]


def test_bad_tokenizer(tmp_path: Path):
    with pytest.raises(CheckpointError, match="missing"):
        TextTokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizers library"):
        TextTokenizer(tmp_path / "bad.json")
