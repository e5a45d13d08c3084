"""Run by torchrun from test_divided_experts.py: three processes hold a model's experts together.

Prints as JSON, by case, how many experts of each layer and bank the processes hold.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import set_checkpoint_early_stop

from deeptalk.backbone import Backbone, RouterMask, open_backbone, prune_experts, split_experts
from deeptalk.backbone.divided import Division, divide_experts, unite_experts
from deeptalk.backbone.extra import ExtraExperts, add_extra_experts
from deeptalk.backbone.tiny import FAMILIES

NUM_AUDIO = 4


def is_audio(backbone: Backbone) -> torch.Tensor:
    shape = backbone.layers
    return (torch.arange(shape.num_experts) % 2 == 0).expand(shape.num_moe_layers, -1)


def split(backbone: Backbone) -> None:
    split_experts(backbone, is_audio(backbone))


def split_unevenly(backbone: Backbone) -> None:
    """A bank of two experts, which one of the three processes has nothing of, and one of six."""
    shape = backbone.layers
    split_experts(backbone, (torch.arange(shape.num_experts) < 2).expand(shape.num_moe_layers, -1))


def split_and_train_audio(backbone: Backbone) -> None:
    split_unevenly(backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(".experts.audio." in name)


def prune(backbone: Backbone) -> None:
    prune_experts(backbone, is_audio(backbone))


def copy_some(backbone: Backbone) -> None:
    add_extra_experts(backbone, ExtraExperts(sources=((1, 3),) * backbone.layers.num_moe_layers))


def leave(backbone: Backbone) -> None:
    """As the stock library has it."""


HOW = {f.__name__: f for f in (leave, split, split_unevenly, split_and_train_audio, prune, copy_some)}


def cases() -> Iterator[tuple[str, str, str]]:
    """Family, how its experts are arranged, and what is computed again."""
    for family in FAMILIES:
        yield family, "split_unevenly", "nothing"
    for family in ("deepseek_v2", "qwen3_moe"):
        for how in HOW:
            if how != "split_unevenly":
                yield family, how, "nothing"
        for again in ("experts", "layers", "whole layers"):
            yield family, "split_and_train_audio", again
            yield family, "split", again


def make(family: str, how: str, again: str) -> Backbone:
    torch.manual_seed(0)
    backbone = open_backbone(dict(FAMILIES[family])).train()
    HOW[how](backbone)
    if again == "experts":
        backbone.recompute_experts()
    elif again != "nothing":
        backbone.enable_checkpointing()
    return backbone


def passed(
    backbone: Backbone, x: torch.Tensor, *, only_audio: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Hidden states of tokens of two groups, and the gradient of what went in; the model has its own."""
    shape, rows = backbone.layers, x.clone().requires_grad_(not only_audio)
    table = torch.ones(2, shape.num_moe_layers, shape.num_experts, dtype=torch.bool)
    if backbone.kept is None:
        table[1, :, 2:] = False  # in banks of two and six: the first
    else:
        table &= backbone.kept
    groups = torch.ones(x.shape[:2], dtype=torch.long)
    if not only_audio:
        groups[:, ::2] = 0
    hidden = backbone(rows, groups=groups, router_mask=RouterMask(table=table)).hidden
    hidden.square().mean().backward()
    return hidden.detach(), rows.grad


def check(family: str, how: str, again: str) -> list[int]:
    """Compare a divided model with one that is whole, unite it, and compare again."""
    only_audio = how == "split_and_train_audio"
    whole, divided = make(family, how, again), make(family, how, again)
    x = torch.randn(2, 7, whole.hidden_size)
    group = dist.group.WORLD
    assert group is not None
    divisions = divide_experts(divided, group=group)
    expected, found = (passed(model, x, only_audio=only_audio) for model in (whole, divided))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    if expected[1] is not None:
        torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-6)
    compare_gradients(whole, divided, divisions)
    held = [len(parameter) for parameter in divisions]
    with torch.no_grad():
        unite_experts(divided, divisions, keeps=True)
    for (name, one), (other_name, other) in zip(
        whole.named_parameters(), divided.named_parameters(), strict=True
    ):
        assert name == other_name
        assert torch.equal(one, other), name
        assert one.requires_grad == other.requires_grad
        one.grad = other.grad = None
    for one, other in zip(*(passed(m, x, only_audio=only_audio) for m in (whole, divided)), strict=True):
        assert one is other is None or (one is not None and other is not None and torch.equal(one, other))
    return held


def compare_gradients(whole: nn.Module, divided: nn.Module, divisions: dict[Any, Division]) -> None:
    for (name, one), (_, other) in zip(whole.named_parameters(), divided.named_parameters(), strict=True):
        gradients: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gradients, other.grad)
        if one.grad is None:
            assert gradients == [None] * dist.get_world_size(), name
        elif other in divisions:
            held = torch.zeros_like(other) if other.grad is None else other.grad
            torch.testing.assert_close(divisions[other].whole(held), one.grad, rtol=1e-4, atol=1e-6)
        else:
            assert other.grad is not None
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
            for gradient in gradients:
                assert torch.equal(gradient, other.grad), name


def main() -> None:
    """All cases, in all processes."""
    dist.init_process_group("gloo")
    held: dict[str, list[int]] = {}
    for case in cases():
        with set_checkpoint_early_stop(case[-1] != "whole layers"):
            held["/".join(case)] = check(*case)
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, held)
    dist.barrier()
    dist.destroy_process_group()
    if os.environ["RANK"] == "0":
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
