"""Files by which stock tools tokenise as a model of ours does: special tokens and the words around turns."""

import json
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from deeptalk.streams import Turn, encode_prompt
from deeptalk.streams.layout import TEXT, StreamLayout, Template
from deeptalk.streams.text import TextTokenizer

TOKENIZER_CONFIG, CHAT_TEMPLATE = "tokenizer_config.json", "chat_template.jinja"

_PROBE: tuple[tuple[Literal["system", "user", "assistant"], str], ...] = (
    ("system", "Be kind."),
    ("user", "Who is it?"),
    ("assistant", "It's me."),
    ("user", "Come in!"),
)


def write_chat_files(folder: Path, *, tokenizer: TextTokenizer, layout: StreamLayout, longest: int) -> None:
    """Write what ``AutoTokenizer`` reads beside ``tokenizer.json``; ``longest`` counts positions."""
    tokens = Tokenizer.from_file(str(tokenizer.path))
    special = {"bos_token": tokens.id_to_token(layout.bos_id), "eos_token": tokens.id_to_token(layout.eos_id)}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: token for name, token in special.items() if token is not None},
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
    }
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / CHAT_TEMPLATE).write_text(chat_template(layout.template) + "\n", "utf-8")


def begin_with_bos(path: Path, *, layout: StreamLayout) -> None:
    """Let stock tools put BOS before a text where the model expects it; a template brings its own.

    A ``tokenizer.json`` that adds anything of itself is left as it is.
    """
    tokens = Tokenizer.from_file(str(path))
    bos = tokens.id_to_token(layout.bos_id)
    if layout.template.bos and bos is not None and tokens.post_processor is None:
        tokens.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, layout.bos_id)]
        )
        tokens.save(str(path))


def chat_template(template: Template) -> str:
    """The Jinja template of ``transformers`` that writes a dialogue of text as ``template`` does."""
    lead = json.dumps(template.lead, ensure_ascii=False)
    cases = []
    for role in ("system", "user", "assistant"):
        before, after = (json.dumps(words, ensure_ascii=False) for words in template.around(role))
        end = "(eos_token or '') + " if role == "assistant" else ""
        cases.append(
            f"message['role'] == '{role}' %}}{{{{ {before} + {lead} + message['content'] + {end}{after} }}}}"
        )
    begin = "{{ bos_token or '' }}" if template.bos else ""
    turns = "{% if " + "{% elif ".join(cases) + "{% else %}{{ raise_exception('no such role') }}{% endif %}"
    opened = json.dumps(template.around("assistant")[0], ensure_ascii=False)
    answer = f"{{% if add_generation_prompt %}}{{{{ {opened} }}}}{{% endif %}}"
    return f"{begin}{{% for message in messages %}}{turns}{{% endfor %}}{answer}"


def is_chat_exact(folder: Path, *, tokenizer: TextTokenizer, layout: StreamLayout) -> bool:
    """Whether stock tools make the ids of our own prompt of a dialogue that was written to try it.

    We tokenise turns and the words around them one by one, a chat template all at once: where a token may
    span both, ids differ.
    """
    turns = [Turn(role=role, text=text) for role, text in _PROBE]
    ours = encode_prompt(turns, tokenizer=tokenizer, layout=layout, mode="text").grid[TEXT].tolist()
    stock = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": role, "content": text} for role, text in _PROBE]
    theirs = stock.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return theirs == ours
