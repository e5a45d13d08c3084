import pytest
import torch

from deeptalk.backbone import RouterOutput, sequence_balance_loss


def router(probabilities: list[list[float]], experts: list[list[int]]) -> RouterOutput:
    logits = torch.tensor(probabilities).log().requires_grad_()
    return RouterOutput(logits=logits, weights=torch.ones(len(experts), 1), experts=torch.tensor(experts))


def test_by_hand() -> None:
    # E = 2, K = 1. First sequence: f = 2/2 * (2, 0) = (2, 0), P = (0.75, 0.25): 1.5.
    # Second sequence: its second token is padding, f = 2/1 * (0, 1), P = (0.4, 0.6): 1.2.
    output = router([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.99, 0.01]], [[0], [0], [1], [0]])
    mask = torch.tensor([[True, True], [True, False]])
    assert sequence_balance_loss((output,), mask).item() == pytest.approx((1.5 + 1.2) / 2)
    assert sequence_balance_loss((output, output), mask).item() == pytest.approx(2.7)


def test_even_use_costs_one_per_layer() -> None:
    output = router([[0.5, 0.5], [0.5, 0.5]], [[0], [1]])
    assert sequence_balance_loss((output,), torch.ones(1, 2, dtype=torch.bool)).item() == pytest.approx(1.0)


def test_gradient_lowers_the_overused_expert() -> None:
    output = router([[0.7, 0.3], [0.7, 0.3]], [[0], [0]])
    sequence_balance_loss((output,), torch.ones(1, 2, dtype=torch.bool)).backward()
    assert (output.logits.grad[:, 0] > 0).all()
    assert (output.logits.grad[:, 1] < 0).all()


def test_constant_when_every_allowed_expert_is_used() -> None:
    minus = float("-inf")
    logits = torch.tensor([[1.0, minus, 2.0, minus], [0.0, minus, 5.0, minus]], requires_grad=True)
    output = RouterOutput(logits=logits, weights=torch.ones(2, 2), experts=torch.tensor([[0, 2], [2, 0]]))
    loss = sequence_balance_loss((output,), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    torch.testing.assert_close(logits.grad, torch.zeros(2, 4))
