"""Muon for matrices, stacked or not, AdamW for the rest; nothing frozen moves."""

import copy

import pytest
import torch
from torch import nn

from deeptalk.errors import ConfigError
from deeptalk.training.optim import AdamW, Muon, orthogonal


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 12), nn.ParameterDict({"stack": torch.randn(3, 6, 10)})])
        self.table = nn.Embedding(5, 8)

    def loss(self, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(32, 8, generator=generator)  # of full rank, or rounding would choose directions
        return (
            self.layers[0](x).square().sum()
            + (self.layers[1]["stack"] - 1).square().sum()
            + self.table.weight.cos().sum()
        )


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def walk(model: Small, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        model.loss(seed).backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (4, 6, 10), (4, 16, 5)])
def test_all_singular_values_come_near_one(shape):
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3


def test_a_stack_is_its_matrices():
    stack = torch.randn(3, 6, 10)
    assert torch.equal(orthogonal(stack), torch.stack([orthogonal(matrix) for matrix in stack]))


def test_matrices_step_as_torch_does_and_the_rest_as_adamw():
    ours, theirs = small(), small()
    for model in (ours, theirs):
        model.layers[0].bias.requires_grad_(False)
    mine = Muon(lr=0.01, weight_decay=0.1, matrices=("layers.*", "!*.stack")).build(ours)
    reference = [
        torch.optim.Muon(
            [theirs.layers[0].weight], lr=0.01, adjust_lr_fn="match_rms_adamw", weight_decay=0.1
        ),
        AdamW(lr=0.01, weight_decay=0.1).build(nn.ModuleList([theirs.table])),
    ]
    for seed in range(2):
        walk(ours, mine, range(seed, seed + 1))
        theirs.zero_grad()
        theirs.loss(seed).backward()
        for optimizer in reference:
            optimizer.step()
    torch.testing.assert_close(ours.layers[0].weight, theirs.layers[0].weight, atol=6e-4, rtol=0)
    assert torch.equal(ours.table.weight, theirs.table.weight)


def test_a_resumed_run_is_the_uninterrupted_one():
    settings = Muon(lr=0.01)
    straight, resumed = small(), small()
    walk(straight, settings.build(straight), range(4))
    first = settings.build(resumed)
    walk(resumed, first, range(2))
    second = settings.build(resumed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    walk(resumed, second, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_what_is_frozen_or_excepted_takes_no_orthogonal_step():
    model = small()
    model.layers[0].weight.requires_grad_(False)
    before = model.layers[0].weight.clone()
    optimizer = Muon(lr=0.01, weight_decay=0.5).build(model)
    walk(model, optimizer, range(2))
    assert torch.equal(model.layers[0].weight, before)
    with pytest.raises(ConfigError, match="match no matrix"):
        Muon(lr=0.01, matrices=("*layers.*", "!*layers.*")).build(model)
