"""The harness's requests in, its answers out, on a stand-in for the harness, which need not be installed."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from deeptalk.decoding import DecodingOptions, Limits, LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.evaluation.answers import Asked, Respondent
from deeptalk.evaluation.benchmarks import lm_harness
from deeptalk.evaluation.benchmarks.lm_harness import continuation_of, continue_all
from deeptalk.evaluation.benchmarks.text_model import Continuation, TextModel
from deeptalk.streams import Turn, encode_dialogue
from deeptalk.streams.text import ByteTokenizer


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Continuation()),
        ({"until": "\n", "max_gen_toks": 5}, Continuation(until=("\n",), max_tokens=5)),
        ({"until": ["a", "", "b"], "max_new_tokens": 7}, Continuation(until=("a", "b"), max_tokens=7)),
        ({"until": None, "max_gen_toks": 3, "max_tokens": 9}, Continuation(max_tokens=3)),
        ({"do_sample": False, "temperature": 0.7}, Continuation()),
        ({"do_sample": True}, Continuation(temperature=1.0)),
        ({"temperature": 0.7}, Continuation(temperature=0.7)),
        ({"temperature": 0.0}, Continuation()),
        ({"do_sample": True, "temperature": 0.2, "top_p": None}, Continuation(temperature=0.2)),
    ],
)
def test_settings_of_the_harness(settings, expected: Continuation) -> None:
    assert continuation_of(settings) == expected


def test_what_can_not_be_done_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't generate with num_beams, top_p"):
        continuation_of({"top_p": 0.9, "num_beams": 2})


def test_requests_keep_their_order_and_their_own_settings(loaded: LoadedModel) -> None:
    model = TextModel(loaded.engine, batch_size=2)
    requests = [("abc", {"max_gen_toks": 2 + i % 3}) for i in range(7)] + [
        ("longer text", {"max_gen_toks": 3})
    ]
    alone = [continue_all(model, [request])[0] for request in requests]
    assert continue_all(model, requests) == alone
    assert len({len(text) for text in alone}) > 1


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch):
    """As much of `lm_eval` as the class touches; gives the registry."""
    registry: dict[str, type] = {}

    class LM:
        def __init__(self) -> None:
            self.is_begun = True

    def register_model(name: str):
        return lambda made: registry.setdefault(name, made)

    parts = {"lm_eval": {}, "lm_eval.api": {}, "lm_eval.api.model": {"LM": LM}}
    parts["lm_eval.api.registry"] = {"register_model": register_model}
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(lm_harness, "_registered", [])
    return registry


def test_the_class_answers_requests(harness, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def load(name: str) -> LoadedModel:
        opened.append(name)
        return loaded

    monkeypatch.setattr("deeptalk.decoding.load", load)
    made = lm_harness.register()
    assert harness == {"deeptalk": made}
    assert lm_harness.register() is made
    lm = made(model="DIR", batch_size="3", max_batch_size=None, device="cpu")
    digest = loaded.engine.layout.template.digest
    assert (opened[:1], lm.is_begun, lm.tokenizer_name) == (["DIR"], True, f"deeptalk DIR {digest}")
    assert lm.text_model.batch_size == 3
    if not torch.cuda.is_available():
        made(model="DIR", device="cuda:0")  # what the harness's command line asks for of itself
    assert made(batch_size="auto").text_model.batch_size == 8
    model = TextModel(loaded.engine)

    def asked(*requests):
        return [SimpleNamespace(args=request) for request in requests]

    pairs = [("a", "bc"), ("defg", "h"), ("", "i")]
    ours = model.log_likelihoods(pairs)
    for (score, is_greedy), (expected, was_greedy) in zip(lm.loglikelihood(asked(*pairs)), ours, strict=True):
        assert (score, is_greedy) == (pytest.approx(expected, abs=1e-5), was_greedy)
    rolling = lm.loglikelihood_rolling(asked(("abc",), ("d",)), disable_tqdm=True)
    assert rolling == pytest.approx(model.rolling_log_likelihoods(["abc", "d"]), abs=1e-5)
    texts = lm.generate_until(asked(("abc", {"max_gen_toks": 4}), ("d", {"until": ["x"], "max_gen_toks": 2})))
    assert texts[0] == model.continue_texts(["abc"], Continuation(max_tokens=4))[0]
    assert len(texts) == 2


def test_chats_are_put_as_in_dialogue(harness, loaded: LoadedModel) -> None:
    lm = lm_harness.register()(TextModel(loaded.engine, batch_size=2))
    asked = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "red or blue"}]
    context = lm.apply_chat_template(asked)
    turns = [Turn(role=m["role"], text=m["content"]) for m in asked]
    for score, is_greedy in lm.loglikelihood([SimpleNamespace(args=(context, "red"))]):
        example = encode_dialogue(
            [*turns, Turn(role="assistant", text="red")],
            tokenizer=ByteTokenizer(),
            layout=loaded.engine.layout,
            mode="text",
        )
        kept = example.labels[0] >= 0
        kept[kept.nonzero()[-1]] = False  # the end of the answer is not asked about
        model = loaded.model
        with torch.inference_mode():
            states = model.backbone(model.embed(example.grid[None])).hidden[0][kept]
            log_probs = model.backbone.lm_head(states).log_softmax(-1)
        labels = example.labels[0][kept]
        assert score == pytest.approx(float(log_probs.gather(1, labels[:, None]).sum()), abs=1e-4)
        assert is_greedy == bool((log_probs.argmax(-1) == labels).all())
    (text,) = lm.generate_until([SimpleNamespace(args=(context, {"max_gen_toks": 5}))])
    options = DecodingOptions(limits=Limits(max_text_tokens=5))
    (answer,) = Respondent(loaded.engine, options=options).answer([Asked(turns=tuple(turns))], mode="text")
    assert text.strip() == answer.text
    assert json.loads(lm.chat_template(True))["user"] == "User:{text}\n"


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lm_eval", "lm_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(lm_harness, "_registered", [])
    with pytest.raises(ConfigError, match=r"deeptalk\[lm-eval\]"):
        lm_harness.register()
