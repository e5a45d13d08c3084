"""The expert load of a dialogue model can be measured on every supported backbone."""

from dataclasses import replace

import pytest
import torch
from families import CONFIGS, tiny

from deeptalk.backbone import open_backbone
from deeptalk.experts import Routing, partition_by_load, profile_load, router_mask
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.streams import Batch, Turn, collate, encode_dialogue
from deeptalk.streams.text import ByteTokenizer


def batch_of(model: DeepTalk, *questions: str) -> Batch:
    examples = [
        encode_dialogue(
            [Turn(role="user", text=question), Turn(role="assistant", text="Blue.")],
            tokenizer=ByteTokenizer(),
            layout=model.layout,
            mode="text",
        )
        for question in questions
    ]
    return collate(examples, [[] for _ in questions], layout=model.layout, is_encoded=False, stride=2)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_token_is_counted_in_every_layer(name: str) -> None:
    tiny(name)  # a family that this version of transformers can't serve is skipped
    config = DeepTalkConfig.tiny()
    settings = CONFIGS[name] | {"vocab_size": config.layout.vocab_size}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = open_backbone(settings, attention="eager")
        model = DeepTalk(replace(config, backbone=settings), backbone=backbone)
    audio, text = batch_of(model, "What?", "Which colour?"), batch_of(model, "Is it red?", "Why?")
    load = profile_load(model, [audio], [text])
    shape = backbone.layers
    assert load.count.shape == (2, shape.num_moe_layers, 4, shape.num_experts)
    for data_set, batch in enumerate((audio, text)):
        assert (load.num_tokens[data_set].sum(-1) == int(batch.mask.sum())).all()
    assert torch.equal(load.count.sum(-1), load.num_tokens * shape.experts_per_token)
    partition = partition_by_load(load, num_audio_experts=4)
    mask = router_mask(partition, Routing(text="audio", audio="audio"))
    groups = torch.zeros_like(audio.kind)
    assert model(audio, router_mask=mask, groups=groups).logits.text.isfinite().all()
