"""Texts continued and scored: what the language model itself computes, in the shape that harnesses read."""

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from deeptalk.decoding import DecodingEngine, LoadedModel, Sampling
from deeptalk.experts.mask import Routing, router_mask
from deeptalk.experts.partition import ExpertPartition
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.serving.app import create_app
from deeptalk.serving.continuation import Continuation, ContinuationOptions
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import BusyError, ModelThread
from deeptalk.serving.security import Security
from deeptalk.serving.service import Service
from deeptalk.shapes import Tensor
from deeptalk.streams.text import ByteTokenizer

IDS = [256, *b"the cat sat on the mat"]


@pytest.fixture(scope="module")
def service(loaded: LoadedModel) -> Service:
    return Service(ModelThread(loaded, limits=ServerLimits(positions_per_tick=7)), model="tiny")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service, Security()), base_url="http://127.0.0.1:8000") as client:
        while not service.is_ready:
            time.sleep(0.01)
        yield client


def complete(client: TestClient, prompt: Any, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/completions", json={"model": "x", "prompt": prompt, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@torch.inference_mode()
def stock_log_probs(loaded: LoadedModel, ids: list[int]) -> Tensor:
    """What the stock language model says after each id, in one pass and with none of our streams."""
    return loaded.model.backbone.model(torch.tensor([ids])).logits[0].log_softmax(-1)


def greedy(loaded: LoadedModel, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    for _ in range(count):
        ids.append(int(stock_log_probs(loaded, ids)[-1].argmax()))
        if ids[-1] == loaded.engine.layout.eos_id:
            break
    return ids


def test_log_probabilities_are_the_language_models(loaded: LoadedModel, client: TestClient):
    """Read in pieces of seven, scored as in one pass; sums and greedy claims as `lm_eval` takes them."""
    body = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}
    answer = complete(client, [IDS, IDS[:9]], **body)
    for number, ids in enumerate((IDS, IDS[:9])):
        choice = answer["choices"][number]
        assert (choice["index"], choice["finish_reason"]) == (number, "length")
        scores, tops = choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]
        longer = greedy(loaded, ids, 1)
        log_probs = stock_log_probs(loaded, longer)
        assert len(scores) == len(tops) == len(ids) + 1
        assert (scores[0], tops[0]) == (None, None)
        expected = log_probs[:-1].gather(1, torch.tensor(longer[1:])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(scores[1:]).double(), expected, rtol=0.0, atol=1e-4)
        best = log_probs[:-1].max(-1).values
        got = torch.tensor([max(top.values()) for top in tops[1:]]).double()
        torch.testing.assert_close(got, best, rtol=0.0, atol=1e-4)
        are_best = [score == max(top.values()) for score, top in zip(scores[1:], tops[1:], strict=True)]
        assert are_best == (log_probs[:-1].argmax(-1) == torch.tensor(longer[1:])).tolist()
        assert are_best[-1]
        assert not all(are_best)
    assert answer["usage"] == {
        "prompt_tokens": len(IDS) + 9,
        "completion_tokens": 2,
        "total_tokens": len(IDS) + 11,
    }


def test_no_token_and_one_prompt_as_text(loaded: LoadedModel, client: TestClient):
    [choice] = complete(client, "the cat", echo=True, logprobs=3, max_tokens=0)["choices"]
    logprobs = choice["logprobs"]
    assert (choice["text"], choice["finish_reason"]) == ("the cat", "length")
    assert logprobs["tokens"] == list("the cat")
    assert logprobs["text_offset"] == list(range(7))
    log_probs = stock_log_probs(loaded, list(b"the cat"))
    for at, top in enumerate(logprobs["top_logprobs"][1:]):
        assert logprobs["tokens"][at + 1] in top
        likeliest = log_probs[at].topk(3).values.tolist()
        assert sorted(top.values())[-1] == pytest.approx(likeliest[0], abs=1e-4)
    same = complete(client, list(b"the cat"), echo=True, logprobs=3, max_tokens=0)["choices"]
    assert same == [choice]


def test_texts_go_on_greedily_to_their_stop(loaded: LoadedModel, client: TestClient):
    prompts = ["the cat", "a dog", "one two three", "why?"]
    answer = complete(client, prompts, max_tokens=16)
    texts = [choice["text"] for choice in answer["choices"]]
    for prompt, text in zip(prompts, texts, strict=True):
        added = greedy(loaded, list(prompt.encode()), 16)[len(prompt) :]
        assert text == ByteTokenizer().decode(added)
    assert answer["choices"][0]["logprobs"] is None
    found = [
        (number, re.search("(?<=.)[\\x01-\\x7f]{2}", text, re.DOTALL)) for number, text in enumerate(texts)
    ]
    number, match = next((number, match) for number, match in found if match is not None)
    prompt, stop, cut = prompts[number], match.group(), texts[number][: texts[number].index(match.group())]
    assert len(cut) > 0
    for stops in (stop, ["never in it", stop]):
        [choice] = complete(client, prompt, max_tokens=16, stop=stops)["choices"]
        assert (choice["text"], choice["finish_reason"]) == (cut, "stop")
    [choice] = complete(client, prompt, max_tokens=16, stop=stop, echo=True)["choices"]
    assert choice["text"] == prompt + cut


def test_the_end_of_the_text_ends_it_and_is_scored(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    """A harness leaves out the last score, so there must be one even where the first id is EOS."""
    engine = loaded.engine
    first = greedy(loaded, IDS, 1)[-1]
    monkeypatch.setattr(engine, "layout", replace(engine.layout, eos_id=first))
    going_on = Continuation(engine, IDS, ContinuationOptions(max_tokens=5, num_top=1, scores_prompt=True))
    while not going_on.advance(most=100):
        pass
    assert [each.id for each in going_on.prompt] == IDS
    assert [each.id for each in going_on.added] == [first]
    assert going_on.added[0].top == ((first, going_on.added[0].log_prob),)
    assert (going_on.text, going_on.finish_reason) == ("", "stop")


def test_drawn_texts_depend_on_the_seed_alone(client: TestClient):
    drawn = [
        complete(client, "the cat", max_tokens=12, temperature=1.5, seed=seed)["choices"][0]["text"]
        for seed in (1, 2, 1)
    ]
    assert drawn[0] == drawn[2] != drawn[1]


def test_text_keeps_to_the_experts_that_the_config_names():
    torch.manual_seed(2)
    experts = ((0, 2, 4), (1, 2, 3))
    config = replace(DeepTalkConfig.tiny(), audio_experts=experts, routing={"text": "text", "audio": "audio"})
    model = DeepTalk(config, tokenizer=ByteTokenizer()).eval()
    going_on = Continuation(DecodingEngine(model), IDS, ContinuationOptions(max_tokens=0, scores_prompt=True))
    while not going_on.advance(most=5):
        pass
    partition = ExpertPartition(
        is_audio=model.is_audio(), experts_per_token=model.backbone.layers.experts_per_token
    )
    mask = router_mask(partition, Routing(text="text", audio="audio"))
    x = model.text_table[torch.tensor([IDS])]
    scores = {}
    with torch.inference_mode():
        for group in (0, 1):
            groups = torch.full((1, len(IDS)), group)
            hidden = model.backbone(x, router_mask=mask, groups=groups).hidden[0]
            log_probs = model.backbone.lm_head(hidden).log_softmax(-1)
            scores[group] = [float(row[token]) for row, token in zip(log_probs[:-1], IDS[1:], strict=True)]
    got = [each.log_prob for each in going_on.prompt[1:]]
    assert got == pytest.approx(scores[0], abs=1e-4)
    assert got != pytest.approx(scores[1], abs=1e-3)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "invalid_value"),
    ({"prompt": ""}, "invalid_value"),
    ({"prompt": []}, "invalid_value"),
    ({"prompt": [[]]}, "invalid_value"),
    ({"prompt": ["a", [1]], "n": 2}, "invalid_value"),
    ({"prompt": [1, -1]}, "invalid_value"),
    ({"prompt": [300]}, "invalid_value"),
    ({"prompt": [True]}, "invalid_value"),
    ({"prompt": [1, "a"]}, "invalid_value"),
    ({"prompt": ["a"] * 129}, "invalid_value"),
    ({"prompt": "a", "max_tokens": -1}, "invalid_value"),
    ({"prompt": "a", "logprobs": 21}, "invalid_value"),
    ({"prompt": "a", "logprobs": True}, "invalid_value"),
    ({"prompt": "a", "stop": ""}, "invalid_value"),
    ({"prompt": "a", "stop": 3}, "invalid_value"),
    ({"prompt": "a", "stop": ["x"] * 17}, "invalid_value"),
    ({"prompt": "a", "stream": True}, "invalid_value"),
    ({"prompt": "a", "temperature": 3}, "invalid_value"),
    ({"prompt": "a", "max_tokens": 512 + 1}, "context_length_exceeded"),
    ({"prompt": ["a", "x" * 600], "max_tokens": 0}, "context_length_exceeded"),
]


@pytest.mark.parametrize(("body", "code"), MISTAKES)
def test_every_mistake_has_its_code(client: TestClient, body: dict[str, Any], code: str):
    answer = client.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_all_positions_may_be_scored(client: TestClient, service: Service):
    most = service.thread.max_positions
    [choice] = complete(client, "x" * most, echo=True, logprobs=0, max_tokens=1)["choices"]
    assert len(choice["logprobs"]["token_logprobs"]) == most + 1
    assert service.admission.num_active == 0


class Endless:
    """A job that never ends."""

    def __init__(self) -> None:
        self.num_pieces = 0

    def advance(self, *, most: int) -> bool:
        self.num_pieces += 1
        return False


def test_jobs_take_turns_and_end_with_who_wants_them(still: ModelThread, loaded: LoadedModel):
    async def main() -> None:
        one, other = Endless(), Endless()
        tasks = [asyncio.create_task(still.work(job)) for job in (one, other)]
        await asyncio.sleep(0)
        for _ in range(6):
            assert still.tick()
        assert (one.num_pieces, other.num_pieces) == (3, 3)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        for _ in range(4):
            still.tick()
        assert one.num_pieces == 3
        assert other.num_pieces >= 6
        bad = Continuation(loaded.engine, IDS, ContinuationOptions(max_tokens=3, sampling=Sampling()))
        bad._words = None  # pyright: ignore[reportAttributeAccessIssue]
        failing = asyncio.create_task(still.work(bad))
        await asyncio.sleep(0)
        while not failing.done():
            still.tick()
            await asyncio.sleep(0)
        with pytest.raises(AttributeError):
            await failing
        assert still.metrics.total("deeptalk_engine_faults_total") == 1
        tasks[1].cancel()

    asyncio.run(main())


def test_jobs_are_told_when_the_thread_ends(loaded: LoadedModel):
    thread = ModelThread(loaded, limits=ServerLimits())
    thread.start()

    async def main() -> None:
        job = Endless()
        waiting = asyncio.create_task(thread.work(job))
        while not job.num_pieces:
            await asyncio.sleep(0.001)
        thread.stop()
        with pytest.raises(BusyError, match="going down"):
            await waiting

    asyncio.run(main())
