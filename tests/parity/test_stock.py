"""The wrapped model is the stock model: all-true masks, split banks and their inverses change nothing."""

import copy
from pathlib import Path

import pytest
import torch
from families import CONFIGS, NAMED, tiny
from torch import nn

from deeptalk.backbone import (
    Backbone,
    RouterMask,
    copy_rows,
    fuse_experts,
    fused_state_dict,
    load_fused_state_dict,
    new_cache,
    open_backbone,
    snapshot,
    split_experts,
)

IDS = torch.randint(0, 97, (3, 11), generator=torch.Generator().manual_seed(7))


def some_experts(backbone: Backbone, number: int = 4, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (backbone.layers.num_moe_layers, backbone.layers.num_experts)
    chosen = torch.rand(shape, generator=generator).topk(number).indices
    return torch.zeros(shape, dtype=torch.bool).scatter(1, chosen, True)


def logits(backbone: Backbone, **options: object) -> torch.Tensor:
    return backbone.lm_head(backbone(backbone.embed_tokens(IDS), **options).hidden)  # type: ignore[arg-type]


def stock_logits(backbone: Backbone) -> torch.Tensor:
    """Logits of the stock class with the stock kernels, none of ours in between."""
    stock = type(backbone.model)(backbone.model.config).eval()
    stock.set_experts_implementation("eager")
    stock.load_state_dict(backbone.model.state_dict())
    expected = stock(input_ids=IDS).logits
    backbone.model.set_experts_implementation("few_tokens")
    return expected


@pytest.mark.parametrize("name", CONFIGS)
def test_all_true_mask_equals_stock(name: str) -> None:
    backbone = tiny(name)
    stock = stock_logits(backbone)
    shape = (2, backbone.layers.num_moe_layers, backbone.layers.num_experts)
    mask = RouterMask(table=torch.ones(shape, dtype=torch.bool))
    torch.testing.assert_close(logits(backbone), stock, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(backbone, groups=IDS % 2, router_mask=mask), stock, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm", "few_tokens"])
def test_split_banks_equal_stock_and_fuse_is_exact(name: str, implementation: str) -> None:
    backbone = tiny(name)
    stock = stock_logits(backbone)
    backbone.model.set_experts_implementation(implementation)
    before = {key: tensor.clone() for key, tensor in backbone.model.state_dict().items()}
    split_experts(backbone, some_experts(backbone))
    torch.testing.assert_close(logits(backbone), stock, atol=1e-5, rtol=0)
    view = fused_state_dict(backbone)
    fuse_experts(backbone)
    after = backbone.model.state_dict()
    assert list(after) == list(before)
    assert set(view) == set(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(torch.equal(view[key], before[key]) for key in before)
    torch.testing.assert_close(logits(backbone), stock, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_position_equals_stock(name: str) -> None:
    backbone = tiny(name)
    x = backbone.embed_tokens(IDS[:1, :1])
    ours = backbone(x).hidden
    backbone.model.set_experts_implementation("eager")
    torch.testing.assert_close(ours, backbone(x).hidden, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMED)
def test_a_split_backbone_loads_stock_tensors(name: str) -> None:
    source, target = tiny(name), tiny(name, seed=5)
    split_experts(target, some_experts(target))
    load_fused_state_dict(target, fused_state_dict(source))
    torch.testing.assert_close(logits(target), logits(source), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_masked_experts_get_no_token_and_no_gradient(name: str) -> None:
    backbone = tiny(name)
    allowed = some_experts(backbone)
    mask = RouterMask(table=torch.stack([allowed, ~allowed]))
    output = backbone(
        backbone.embed_tokens(IDS), groups=torch.zeros_like(IDS), router_mask=mask, collect=True
    )
    for layer, router in enumerate(output.router):
        assert allowed[layer, router.experts].all()
        assert router.logits[:, ~allowed[layer]].isneginf().all()
    output.hidden.square().mean().backward()
    for layer, block in enumerate(backbone.moe_blocks()):
        for tensor in block.experts.parameters():
            gradient = tensor.grad.flatten(1).abs().sum(1)
            assert gradient[allowed[layer]].any()
            assert not gradient[~allowed[layer]].any()


@pytest.mark.parametrize("name", CONFIGS)
def test_each_group_keeps_to_its_experts(name: str) -> None:
    backbone = tiny(name)
    first = some_experts(backbone)
    groups = (IDS % 2).long()
    output = backbone(
        backbone.embed_tokens(IDS),
        groups=groups,
        router_mask=RouterMask(table=torch.stack([first, ~first])),
        collect=True,
    )
    for layer, router in enumerate(output.router):
        is_first = first[layer, router.experts]
        assert torch.equal(is_first.all(-1), groups.view(-1) == 0)
        assert torch.equal((~is_first).all(-1), groups.view(-1) == 1)


@pytest.mark.parametrize("name", NAMED)
def test_a_frozen_bank_stays_bit_identical(name: str) -> None:
    backbone = tiny(name)
    split_experts(backbone, some_experts(backbone))
    for key, tensor in backbone.named_parameters():
        tensor.requires_grad_(".experts.audio." in key)
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-2, weight_decay=0.5)
    nn.functional.cross_entropy(logits(backbone).flatten(0, 1), IDS.flatten()).backward()
    optimizer.step()
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[key]) != (".experts.audio." in key), key
    fuse_experts(backbone)
    assert torch.isfinite(logits(backbone)).all()


@pytest.mark.parametrize("name", NAMED)
def test_forked_cache_equals_the_full_forward(name: str) -> None:
    backbone = tiny(name)
    x = backbone.embed_tokens(IDS[:2]).detach()
    x[1, :5] = x[0, :5]
    full = backbone(x).hidden
    cache = new_cache(backbone)
    backbone(x[:1, :5], cache=cache)
    rows = copy_rows(cache, torch.tensor([0, 0]))
    parts = [backbone(x[:, 5:8], cache=rows).hidden]
    kept = snapshot(rows)
    parts += [backbone(x[:, i : i + 1], cache=rows).hidden for i in range(8, 11)]
    torch.testing.assert_close(torch.cat(parts, dim=1), full[:, 5:], atol=1e-5, rtol=0)
    assert (cache.get_seq_length(), kept.get_seq_length(), rows.get_seq_length()) == (5, 8, 11)
    alone = copy_rows(kept, torch.tensor([1]))
    again = [backbone(x[1:, i : i + 1], cache=alone).hidden for i in range(8, 11)]
    torch.testing.assert_close(torch.cat(again, dim=1), full[1:, 8:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMED)
def test_padding_changes_no_real_position(name: str) -> None:
    backbone = tiny(name)
    x = backbone.embed_tokens(IDS)
    alone = backbone(x[1:2, :6]).hidden
    right = torch.ones_like(IDS, dtype=torch.bool)
    right[1, 6:] = False
    torch.testing.assert_close(backbone(x, mask=right).hidden[1:2, :6], alone, atol=1e-5, rtol=0)
    left, shifted = right.flip(1), x.clone()
    shifted[1, 5:] = x[1, :6]
    position_ids = (left.long().cumsum(1) - 1).clamp(min=0)
    padded = backbone(shifted, mask=left, position_ids=position_ids).hidden
    torch.testing.assert_close(padded[1:2, 5:], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["deepseek_v2", "qwen3_moe"])
def test_checkpointing_recomputes_the_same_routing(name: str) -> None:
    def gradients(backbone: Backbone) -> dict[str, torch.Tensor]:
        backbone.train()
        allowed = some_experts(backbone)
        mask = RouterMask(table=torch.stack([allowed, ~allowed]))
        x = backbone.embed_tokens(IDS)
        losses = [
            backbone(x, groups=(IDS + shift) % 2, router_mask=mask, collect=True).hidden.square().mean()
            for shift in (0, 1)
        ]
        sum(losses).backward()  # type: ignore[union-attr]
        return {key: tensor.grad for key, tensor in backbone.named_parameters() if tensor.grad is not None}

    plain, saving = tiny(name), tiny(name)
    saving.enable_checkpointing()
    expected, got = gradients(plain), gradients(saving)
    assert expected.keys() == got.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], atol=1e-6, rtol=1e-5)


def test_a_copy_routes_by_its_own_calls() -> None:
    backbone = tiny("deepseek_v3")
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        for block in backbone.moe_blocks():
            block.gate.e_score_correction_bias.add_(torch.linspace(-5, 5, 8))
    allowed = some_experts(twin)
    mask = RouterMask(table=allowed[None])
    fresh = tiny("deepseek_v3")
    options = {"groups": torch.zeros_like(IDS), "router_mask": mask}
    assert torch.equal(logits(twin, **options), logits(fresh, **options))


def test_save_and_open_again(tmp_path: Path) -> None:
    backbone = tiny("deepseek_v2")
    split_experts(backbone, some_experts(backbone))
    expected = logits(backbone)
    backbone.model.save_pretrained(tmp_path, state_dict=fused_state_dict(backbone))
    torch.testing.assert_close(logits(open_backbone(tmp_path).eval()), expected, atol=1e-5, rtol=0)
