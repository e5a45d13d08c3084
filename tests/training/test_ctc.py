"""The losses of encoder pretraining, by hand."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deeptalk.errors import ConfigError
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.training.ctc import Ctc, CtcOutput, EncoderForCtc, greedy
from deeptalk.training.objective import Task

IGNORED = -100


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Knows(nn.Module):
    """A model that has made up its mind."""

    def __init__(self, tokens: torch.Tensor, phones: torch.Tensor, lengths: Sequence[int]) -> None:
        super().__init__()
        self.output = CtcOutput(
            tokens=tokens.log_softmax(-1), phones=phones.log_softmax(-1), lengths=torch.tensor(lengths)
        )

    def forward(self, mel: torch.Tensor, lengths: torch.Tensor) -> CtcOutput:
        return self.output


def batch_of(
    tokens: list[list[int]], phones: list[list[int]], *, frames: SimpleNamespace | None = None
) -> SimpleNamespace:
    def padded(rows: list[list[int]]) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)

    return SimpleNamespace(
        mel=torch.zeros(len(tokens), 8, 2),
        mel_lengths=torch.full((len(tokens),), 2),
        tokens=padded(tokens),
        token_lengths=torch.tensor([len(row) for row in tokens]),
        phones=padded(phones),
        phone_lengths=torch.tensor([len(row) for row in phones]),
        frames=frames,
    )


def paths(log_probs: torch.Tensor, labels: list[int]) -> float:
    """Minus the log of the sum over all stretches of the labels, one frame at least for each."""
    if not labels:
        return 0.0 if not len(log_probs) else -math.inf
    total = -math.inf
    for first in range(1, len(log_probs) - len(labels) + 2):
        rest = log_probs[first:]
        if len(labels) == 1 and len(rest):
            continue
        tail = 0.0 if len(labels) == 1 else -paths(rest, labels[1:])
        total = float(
            torch.logaddexp(torch.tensor(total), log_probs[:first, labels[0]].sum() + torch.tensor(tail))
        )
    return -total


def test_one_phone_between_silences_is_the_sum_over_all_stretches():
    logits = torch.randn(1, 5, 3, generator=generator())
    model = Knows(torch.zeros(1, 5, 2), logits, [5])
    _, phones, *_ = Ctc().sums(model, batch_of([[0]], [[1]]), generator=generator()).tolist()
    log_probs = model.output.phones[0]
    ways = [
        log_probs[:start, 2].sum() + log_probs[start:stop, 1].sum() + log_probs[stop:, 2].sum()
        for start in range(1, 4)
        for stop in range(start + 1, 5)
    ]
    assert len(ways) == 6
    assert phones == pytest.approx(-float(torch.stack(ways).logsumexp(0)), rel=1e-5)


def test_phones_in_a_row_and_padding_behind_them():
    logits = torch.randn(2, 7, 4, generator=generator())
    model = Knows(torch.zeros(2, 7, 2), logits, [7, 5])
    batch = batch_of([[0], [0]], [[0, 2, 1], [2]])
    _, both, *_ = Ctc().sums(model, batch, generator=generator()).tolist()
    log_probs = model.output.phones
    expected = paths(log_probs[0], [3, 0, 2, 1, 3]) + paths(log_probs[1, :5], [3, 2, 3])
    assert both == pytest.approx(expected, rel=1e-5)


def test_equal_neighbours_count_once():
    model = Knows(torch.zeros(1, 6, 2), torch.randn(1, 6, 3, generator=generator()), [6])
    once, twice = (
        Ctc().sums(model, batch_of([[0]], [phones]), generator=generator())[1] for phones in ([1], [1, 1])
    )
    assert torch.equal(once, twice)


def test_a_clip_too_short_for_its_target_gives_no_loss():
    model = Knows(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4), [2])
    sums = Ctc().sums(model, batch_of([[0, 1, 2]], [[0, 1]]), generator=generator())
    assert sums.tolist() == [0.0] * 4


def test_greedy_merges_repeats_stops_at_the_length_and_keeps_doubles():
    labels = torch.tensor([[0, 0, 2, 0, 1, 1, 2, 1], [2, 1, 1, 1, 0, 0, 0, 0]])
    log_probs = nn.functional.one_hot(labels, 3).float()
    assert greedy(log_probs, torch.tensor([7, 4])) == [[0, 0, 1], [1]]


def labelled() -> SimpleNamespace:
    frames = SimpleNamespace(
        phones=torch.tensor([[3, 0, 1, 3, 3], [3, 2, 3, IGNORED, IGNORED]]),
        tokens=torch.tensor([[5, 5, 1, 5, 5], [5, 4, 5, IGNORED, IGNORED]]),
    )
    return batch_of([[1], [4]], [[0, 1], [2]], frames=frames)


def test_the_loss_of_frames_ignores_padding():
    tokens, phones = (torch.randn(2, 5, n, generator=generator()) for n in (6, 4))
    objective, batch = Ctc(aligned=1.0), labelled()
    assert objective.counts(batch).tolist() == [2.0, 3.0, 8.0, 8.0]
    model = Knows(tokens, phones, [5, 3])
    sums = objective.sums(model, batch, generator=generator())
    by_hand = -sum(
        float(model.output.phones[n, u, label])
        for n, row in enumerate(batch.frames.phones.tolist())
        for u, label in enumerate(row)
        if label != IGNORED
    )
    assert float(sums[2]) == pytest.approx(by_hand, rel=1e-5)
    tokens, phones = tokens.clone(), phones.clone()
    tokens[1, 3:], phones[1, 3:] = 7.0, torch.tensor([9.0, 0.0, 0.0, 0.0])
    changed = objective.sums(Knows(tokens, phones, [5, 3]), batch, generator=generator())
    assert torch.allclose(sums, changed)
    phones[1, 2] = torch.tensor([9.0, 0.0, 0.0, 0.0])
    assert objective.sums(Knows(tokens, phones, [5, 3]), batch, generator=generator())[2] > sums[2] + 1


def test_terms_are_weighted_by_the_recipe():
    objective = Ctc(token_weight=2.0, phone_weight=0.5, aligned=0.25)
    total = objective.total(torch.tensor([6.0, 4.0, 8.0, 16.0]), torch.tensor([3.0, 2.0, 4.0, 4.0]))
    assert float(total) == pytest.approx(2.0 * 2 + 0.5 * 2 + 0.25 * 2 + 0.25 * 4)
    assert [term.name for term in objective.terms] == ["tokens", "phones", "frame_phones", "frame_tokens"]


def test_aligned_training_needs_labels():
    batch = batch_of([[1]], [[0]])
    with pytest.raises(ConfigError, match="labels of their frames"):
        Ctc(aligned=1.0).sums(
            Knows(torch.zeros(1, 5, 3), torch.zeros(1, 5, 3), [5]), batch, generator=generator()
        )


def test_the_phone_layer_must_exist():
    with pytest.raises(ConfigError, match="phone_layer"):
        EncoderForCtc(SpeechEncoder(EncoderConfig.tiny()), num_tokens=3, num_phones=3, phone_layer=99)


def test_an_encoder_learns_the_labels_of_all_frames_by_heart():
    torch.manual_seed(0)
    model = EncoderForCtc(SpeechEncoder(EncoderConfig.tiny()), num_tokens=5, num_phones=3, phone_layer=1)
    batch = labelled()
    batch.mel = torch.randn(2, 8, 10, generator=generator())
    batch.mel_lengths = torch.tensor([10, 6])
    objective = Ctc(token_weight=0.0, phone_weight=0.0, phone_layer=1, aligned=1.0)
    task = Task(model, objective).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = objective.total(task(batch, generator()), objective.counts(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    model.eval()
    assert greedy(model(batch.mel, batch.mel_lengths).tokens, torch.tensor([5, 3])) == [[1], [4]]
