import pytest
import torch

from deeptalk.decoding.sampling import Sampling, penalise, sample_token
from deeptalk.errors import ConfigError


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=2.0, top_k=1)])
def test_greedy(sampling: Sampling):
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 1.0]])
    assert sample_token(logits, sampling).tolist() == [1, 0]


def test_frequencies_follow_the_probabilities():
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    drawn = sample_token(
        probabilities.log().expand(4000, 4), Sampling(temperature=1.0), torch.Generator().manual_seed(1)
    )
    rates = drawn.bincount(minlength=4) / 4000
    assert torch.allclose(rates, probabilities, atol=0.03)
    assert rates[3] == 0


def test_temperature_sharpens():
    logits = torch.tensor([0.0, 1.0]).expand(2000, 2)
    rates = [
        float(sample_token(logits, Sampling(temperature=t), torch.Generator().manual_seed(0)).float().mean())
        for t in (0.25, 4.0)
    ]
    assert rates[0] == pytest.approx(0.982, abs=0.02)
    assert rates[1] == pytest.approx(0.562, abs=0.04)


def test_top_k():
    logits = torch.arange(10.0).expand(500, 10)
    drawn = sample_token(logits, Sampling(temperature=5.0, top_k=3), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {7, 8, 9}


def test_a_seed_repeats():
    logits = torch.zeros(50, 100)
    first, again, other = (
        sample_token(logits, Sampling(temperature=1.0), torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_penalties_by_hand():
    logits = torch.tensor([2.0, -2.0, 1.0, 4.0])
    history = [0, 1, 1, 3, 3, 3]
    distinct = Sampling(repetition_penalty=2.0)
    assert penalise(logits, history, distinct).tolist() == [1.0, -4.0, 1.0, 2.0]
    occurrence = Sampling(repetition_penalty=2.0, penalty="occurrence")
    assert penalise(logits, history, occurrence).tolist() == [1.0, -8.0, 1.0, 0.5]
    assert penalise(logits, history, Sampling()) is logits
    assert penalise(logits, [], distinct) is logits


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"penalty": "never"},
    ],
)
def test_bad_sampling(bad: dict):
    with pytest.raises(ConfigError):
        Sampling(**bad)
