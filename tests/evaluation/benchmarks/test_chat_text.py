"""A dialogue as one text, and its ids: those of the dialogue itself."""

import pytest

from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks.chat_text import chat_text, is_chat, split_chat
from deeptalk.evaluation.benchmarks.text_model import TextModel
from deeptalk.streams import TEXT, StreamLayout, Turn, encode_prompt
from deeptalk.streams.layout import PAPER_TEMPLATE, Template
from deeptalk.streams.text import ByteTokenizer

CHAT = [("system", "Be short."), ("user", "two and two"), ("assistant", "four"), ("user", "and three")]


@pytest.mark.parametrize("num_messages", [2, 4])
def test_ids_are_those_of_the_dialogue(num_messages: int, loaded: LoadedModel) -> None:
    layout, chat = loaded.engine.layout, CHAT[:num_messages]
    text = chat_text([{"role": role, "content": words} for role, words in chat], layout.template)
    turns = [Turn(role=role, text=words) for role, words in chat]  # pyright: ignore
    prompt = encode_prompt(turns, tokenizer=ByteTokenizer(), layout=layout, mode="text")
    assert TextModel(loaded.engine).token_ids(text) == prompt.grid[TEXT].tolist()


def test_a_begun_answer_goes_on(loaded: LoadedModel) -> None:
    model, template = TextModel(loaded.engine), loaded.engine.layout.template
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is"}]
    begun = chat_text(messages, template, opens_answer=False)
    asked = chat_text(messages[:1], template)
    assert split_chat(begun) == ([*split_chat(asked)[0]], " It is")
    context, added = model.encode_pair(begun, " red")
    assert model.encode_pair(asked, "It is red") == (context[: -len(" It is")], [*b" It is red"])
    assert (context[-len(" It is") :], added) == ([*b" It is"], [*b" red"])
    assert model.encode_pair(asked, "red") == model.encode_pair(asked, " red")


def test_texts_that_only_look_like_chats() -> None:
    assert not is_chat("User: what\nAssistant:")
    marked = chat_text([{"role": "user", "content": "a\x1e\x04b"}], PAPER_TEMPLATE)
    assert split_chat(marked) == (["User: ", "ab", "\n\n", "Assistant: "], "")
    for messages, opens, complaint in (
        ([{"role": "tool", "content": "x"}], True, "system, user, assistant, got 'tool'"),
        ([{"role": "user", "content": "x"}], False, "must end with the assistant's words"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            chat_text(messages, Template(), opens_answer=opens)
    assert StreamLayout.tiny().template.lead == " "
