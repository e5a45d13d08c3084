"""A dialogue as one text, as harnesses hold it between a chat template and a tokenizer.

The template's words and every turn are tokenised on their own, as in dialogue, so the text keeps them apart
by a control character; another stands for the end of an answer.
"""

from collections.abc import Mapping, Sequence

from deeptalk.errors import ConfigError
from deeptalk.streams.layout import Template

PIECE, END = "\x1e", "\x04"
"""What stands between pieces, the first of them too; and the piece that is the end of an answer."""

ROLES = ("system", "user", "assistant")


def chat_text(messages: Sequence[Mapping[str, str]], template: Template, *, opens_answer: bool = True) -> str:
    """Messages of ``role`` and ``content`` in a template's words; what is answered stands at the end.

    Unless it ``opens_answer``, the last message is the beginning of the answer, and goes on.

    Raises:
        ConfigError: a role that the template lacks, or nothing to go on with.
    """
    pieces: list[str] = []
    for number, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            raise ConfigError(f"a chat's roles are {', '.join(ROLES)}, got {role!r}.")
        content = str(message.get("content") or "").replace(PIECE, "").replace(END, "")
        before, after = template.around(role)
        pieces += [before, template.lead + content]
        is_open = not opens_answer and number == len(messages) - 1
        if role == "assistant":
            pieces += [] if is_open else [END]
        elif is_open:
            raise ConfigError("a chat that goes on must end with the assistant's words.")
        else:
            pieces.append(after)
    if opens_answer:
        pieces += [template.around("assistant")[0], ""]
    return "".join(PIECE + piece for piece in pieces)


def is_chat(text: str) -> bool:
    """Whether a text was made by `chat_text`, or goes on from one."""
    return text.startswith(PIECE)


def split_chat(text: str) -> tuple[list[str], str]:
    """The pieces of a chat up to the answer, and what stands of the answer so far."""
    *pieces, answer = text.split(PIECE)[1:]
    return [piece for piece in pieces if piece], answer
