"""Copies of experts beside the stock ones: who may not choose them computes what the stock model computes."""

import copy

import pytest
import torch
from families import CONFIGS, NAMED, tiny

from deeptalk.backbone import (
    Backbone,
    BackboneOutput,
    RouterMask,
    fuse_experts,
    fused_state_dict,
    load_fused_state_dict,
    split_experts,
)
from deeptalk.backbone.extra import ExtraExperts, ExtraRouting, add_extra_experts, is_extra_name
from deeptalk.errors import ConfigError

IDS = torch.randint(0, 97, (3, 11), generator=torch.Generator().manual_seed(7))
SOURCES = {2: ((1, 4, 7), (0, 2, 5)), 3: ((1, 4, 7), (0, 2, 5), (3, 5, 6))}
GROUPED = ("deepseek_v2_grouped", "deepseek_v3", "glm4_moe")
NUM_STOCK, NUM_EXTRA = 8, 3


def extended(name: str, routing: ExtraRouting = "overlay") -> Backbone:
    backbone = tiny(name)
    sources = SOURCES[backbone.layers.num_moe_layers]
    add_extra_experts(backbone, ExtraExperts(sources=sources, routing=routing))
    return backbone


def run(backbone: Backbone, group: int | torch.Tensor, *, copies_alone: bool = False) -> BackboneOutput:
    """All tokens in a group, or each in its own; group 0 has the stock experts, group 1 all or the copies."""
    table = torch.ones(2, backbone.layers.num_moe_layers, NUM_STOCK + NUM_EXTRA, dtype=torch.bool)
    table[0, :, NUM_STOCK:] = False
    table[1, :, :NUM_STOCK] = not copies_alone
    groups = torch.full_like(IDS, group) if isinstance(group, int) else group
    x = backbone.embed_tokens(IDS)
    return backbone(x, groups=groups, router_mask=RouterMask(table=table), collect=True)


def move_what_is_extra(backbone: Backbone) -> None:
    with torch.no_grad():
        for name, tensor in backbone.named_parameters():
            if is_extra_name(name):
                tensor.mul_(-1.5)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_group_0_is_the_stock_model_to_the_bit_and_overlay_starts_as_it(name: str) -> None:
    stock = tiny(name)
    before = stock(stock.embed_tokens(IDS), collect=True)
    expected, backbone = before.hidden, extended(name)
    overlaid = run(backbone, 1)
    torch.testing.assert_close(overlaid.hidden, expected, atol=1e-6, rtol=0)
    assert torch.equal(overlaid.router[0].weights, before.router[0].weights)
    assert torch.equal(backbone(backbone.embed_tokens(IDS)).hidden, expected)
    move_what_is_extra(backbone)
    assert torch.equal(run(backbone, 0).hidden, expected)
    assert not torch.allclose(run(backbone, 1).hidden, expected, atol=1e-2)


@pytest.mark.parametrize("name", NAMED)
@torch.no_grad()
def test_each_copy_stands_in_for_its_original(name: str) -> None:
    backbone = extended(name)
    for layer, router in enumerate(run(backbone, IDS % 2).router or ()):
        assert router.logits.shape == (IDS.numel(), NUM_STOCK + NUM_EXTRA)
        is_open = ~router.logits.isneginf()
        sources = list(SOURCES[backbone.layers.num_moe_layers][layer])
        for group in (0, 1):
            own = is_open[(IDS % 2).flatten() == group]
            assert own[:, NUM_STOCK:].all() if group else not own[:, NUM_STOCK:].any()
            assert not own[:, sources].any() if group else own[:, sources].all()
            assert (own.sum(-1) == NUM_STOCK).all()


@pytest.mark.parametrize("routing", ["overlay", "union"])
@pytest.mark.parametrize("name", NAMED)
def test_masked_to_the_copies_only_they_and_their_router_learn(name: str, routing: ExtraRouting) -> None:
    backbone = extended(name, routing)
    output = run(backbone, 1, copies_alone=True)
    assert all((router.experts >= NUM_STOCK).all() for router in output.router or ())
    output.hidden.square().mean().backward()
    for key, tensor in backbone.named_parameters():
        if ".experts.extra." in key:
            assert tensor.grad is not None, key
            assert tensor.grad.flatten(1).abs().sum(1).all(), key
        elif ".experts.stock." in key:
            assert tensor.grad is None, key
    text = run(backbone, 0, copies_alone=True)
    assert all((router.experts < NUM_STOCK).all() for router in text.router or ())


@pytest.mark.parametrize("name", [*NAMED, "gpt_oss"])
@torch.no_grad()
def test_union_and_append_have_all_originals_and_copies_as_candidates(name: str) -> None:
    outputs = {routing: run(extended(name, routing), 1) for routing in ("union", "append")}  # type: ignore[arg-type]
    assert torch.equal(outputs["union"].hidden, outputs["append"].hidden)
    stock = tiny(name)
    expected = stock(stock.embed_tokens(IDS), collect=True)
    assert not torch.allclose(
        outputs["union"].hidden, expected.hidden, atol=1e-2
    )  # a copy shares with its original
    first, before = outputs["union"].router[0], expected.router[0]
    assert first.logits.isfinite().all()
    assert torch.equal(first.logits[:, :NUM_STOCK], before.logits)
    sources = list(SOURCES[stock.layers.num_moe_layers][0])
    torch.testing.assert_close(first.logits[:, NUM_STOCK:], before.logits[:, sources])
    appended = extended(name, "append")
    assert torch.equal(
        appended(appended.embed_tokens(IDS)).hidden, outputs["append"].hidden
    )  # without groups


@pytest.mark.parametrize("routing", ["overlay", "union", "append"])
@torch.no_grad()
def test_stock_tensors_keep_their_names_and_all_come_back(routing: ExtraRouting) -> None:
    before = tiny("qwen3_moe").model.state_dict()
    backbone, other = extended("qwen3_moe", routing), extended("qwen3_moe", routing)
    move_what_is_extra(backbone)
    state = fused_state_dict(backbone)
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert {name for name in state if name not in before} == {n for n in state if is_extra_name(n)}
    load_fused_state_dict(other, state)
    assert torch.equal(run(other, IDS % 2).hidden, run(backbone, IDS % 2).hidden)


def test_a_copied_backbone_chooses_by_its_own_router() -> None:
    backbone = extended("qwen3_moe")
    twin = copy.deepcopy(backbone)
    expected = run(twin, 1).hidden
    move_what_is_extra(backbone)
    assert torch.equal(run(twin, 1).hidden, expected)


@pytest.mark.parametrize("name", GROUPED)
def test_further_router_rows_are_refused_where_experts_compete_in_groups(name: str) -> None:
    with pytest.raises(ConfigError, match="'overlay' fits it"):
        extended(name, "union")


@pytest.mark.parametrize(
    "sources",
    [(), ((), ()), ((1, 2), (1,)), ((2, 1), (1, 2)), ((1, 1), (1, 2)), ((-1,), (0,)), (("1",), (1,))],
)
def test_bad_sources_are_refused(sources: tuple) -> None:
    with pytest.raises(ConfigError, match="rising order"):
        ExtraExperts(sources=sources)


def test_bad_additions_are_refused() -> None:
    with pytest.raises(ConfigError, match="overlay, union, append, got 'both'"):
        ExtraExperts(sources=((1,),), routing="both")  # type: ignore[arg-type]
    backbone = tiny("deepseek_v2")
    for sources in (((1,),), ((1,), (8,))):
        with pytest.raises(ConfigError, match="experts 0 to 7 of 2 layers"):
            add_extra_experts(backbone, ExtraExperts(sources=sources))
    extra = ExtraExperts(sources=((1,), (1,)))
    add_extra_experts(backbone, extra)
    with pytest.raises(ConfigError, match="extended already"):
        add_extra_experts(backbone, extra)
    with pytest.raises(ConfigError, match="can't be fused"):
        fuse_experts(backbone)
    with pytest.raises(ConfigError, match="already"):
        split_experts(backbone, torch.eye(2, 9, dtype=torch.bool))
