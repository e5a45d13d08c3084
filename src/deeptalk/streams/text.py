"""Text and its ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from tokenizers import Tokenizer

from deeptalk.errors import CheckpointError


@runtime_checkable
class TextCodec(Protocol):
    """Anything that turns text into ids and back, adding no ids of its own."""

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens."""
        ...


class TextTokenizer:
    """A ``tokenizer.json`` of the ``tokenizers`` library behind the two methods of ``TextCodec``."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: a model needs its tokenizer.json.")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise CheckpointError(f"{path} is not a tokenizer of the tokenizers library: {error}") from error
        self.path = path

    @property
    def vocab_size(self) -> int:
        """Ids that the tokenizer knows, special ones included."""
        return self._tokenizer.get_vocab_size()

    def id_of(self, token: str) -> int | None:
        """The id of a whole token such as ``<eos>``, if there is one."""
        return self._tokenizer.token_to_id(token)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; nothing is added before or after."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to ``path`` as it was read."""
        self._tokenizer.save(str(path))


class ByteTokenizer:
    """A tokenizer of bytes for tests and examples: id = byte; ids from 256 on are nothing."""

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of ``text``."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of all ids below 256."""
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class TextStream:
    """The streaming twin of ``decode``: ids in one at a time, whole characters out."""

    def __init__(self, tokenizer: TextCodec) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._given = ""

    def push(self, token_id: int) -> str:
        """The text that this id adds; empty while a character is incomplete."""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        return self._give(text)

    def finish(self) -> str:
        """What is left after the last id."""
        return self._give(self._tokenizer.decode(self._ids))

    def _give(self, text: str) -> str:
        piece = text[len(self._given) :]
        self._given = text
        return piece
