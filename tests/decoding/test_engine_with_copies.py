"""Decoding of models with copies of experts; the text of a written question is the backbone's own."""

import pytest
import torch
from conftest import OPTIONS, build
from test_engine import asked, assert_same, full_forward, prompt_of

from deeptalk.backbone.extra import ExtraExperts, ExtraRouting, is_extra_name
from deeptalk.decoding.engine import DecodingEngine
from deeptalk.experts.mask import Routing, router_mask
from deeptalk.experts.partition import ExpertPartition
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.streams import Turn

SOURCES = ((0, 2, 4), (1, 2, 3))


@torch.no_grad()
def extended(routing: ExtraRouting) -> DeepTalk:
    """The model of the other tests, with copies that have learnt something else."""
    model = build(DeepTalkConfig.tiny())
    model.add_experts(ExtraExperts(sources=SOURCES, routing=routing))
    generator = torch.Generator().manual_seed(9)
    for name, tensor in model.backbone.named_parameters():
        if is_extra_name(name):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 6)
    return model


@pytest.mark.parametrize("routing", ["overlay", "union"])
@torch.no_grad()
def test_greedy_equals_the_full_forward_and_written_text_is_the_backbones(
    model: DeepTalk, routing: ExtraRouting
):
    own = extended(routing)
    heard = torch.randn(5, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prompts = [
        prompt_of(own, Turn(role="user", num_speech_frames=5), mode=mode) for mode in ("answer", "asr")
    ]
    prompts.append(asked(own, "hello there", mode="answer"))
    speech = [heard, heard, None]
    partition = ExpertPartition(is_audio=own.is_audio(), experts_per_token=2)
    mask = router_mask(partition, Routing(text="text", audio="all"))
    after = DecodingEngine(own).generate(prompts, speech=speech, options=OPTIONS)
    for prompt, frames, answer in zip(prompts, speech, after, strict=True):
        assert_same(answer, full_forward(own, prompt, OPTIONS, frames, mask))
    before = DecodingEngine(model).generate(prompts, speech=speech, options=OPTIONS)
    assert after[2].text_ids == before[2].text_ids
    assert not any(torch.equal(after[b].codes, before[b].codes) for b in (0, 2))


@torch.no_grad()
def test_appended_experts_serve_every_token():
    own = extended("append")
    prompt = asked(own, "hello there", mode="answer")
    [answer] = DecodingEngine(own).generate([prompt], options=OPTIONS)
    assert_same(answer, full_forward(own, prompt, OPTIONS))
