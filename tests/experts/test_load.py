from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deeptalk.backbone import RouterOutput
from deeptalk.errors import ConfigError, DataError
from deeptalk.experts import ExpertLoad, profile_load, read_load, write_load


@dataclass
class Batch:
    kind: Tensor
    experts: Tensor

    @property
    def mask(self) -> Tensor:
        return self.kind >= 0


@dataclass
class Output:
    router: tuple[RouterOutput, ...] | None


class Scripted(nn.Module):
    """Chooses the experts that the batch names; in the second layer, the next one."""

    def forward(self, batch: Batch, *, collect: bool) -> Output:
        assert collect
        assert not self.training
        assert torch.is_inference_mode_enabled()
        flat = batch.experts.reshape(-1, 2)
        weights = torch.tensor([0.5, 0.25]).expand(len(flat), 2)
        logits = torch.zeros(len(flat), 4)
        layers = ((flat + shift) % 4 for shift in (0, 1))
        return Output(tuple(RouterOutput(logits=logits, weights=weights, experts=e) for e in layers))


def batch(*rows: list[tuple[int, int, int]]) -> Batch:
    """Rows of positions (kind, first expert, second expert)."""
    table = torch.tensor(rows)
    return Batch(kind=table[..., 0], experts=table[..., 1:])


AUDIO = [batch([(2, 0, 1), (3, 0, 2)], [(2, 0, 3), (-1, 3, 3)]), batch([(0, 1, 2), (3, 0, 1)])]
TEXT = [batch([(1, 2, 3), (3, 2, 3)]), batch([(1, 2, 1), (3, 0, 3)])]


@pytest.fixture
def load() -> ExpertLoad:
    model = Scripted().train()
    load = profile_load(model, AUDIO, TEXT)
    assert model.training
    return load


def test_counts_by_hand(load: ExpertLoad) -> None:
    assert load.count.shape == (2, 2, 4, 4)
    assert load.count[0, 0].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [2, 1, 0, 1], [2, 1, 1, 0]]
    assert load.count[1, 0].tolist() == [[0, 0, 0, 0], [0, 1, 2, 1], [0, 0, 0, 0], [1, 0, 1, 2]]
    assert load.count[0, 1, 2].tolist() == [1, 2, 1, 0]
    assert load.num_tokens[0].tolist() == [[1, 0, 2, 2]] * 2
    assert load.mass[0, 0, 2].tolist() == [1.0, 0.25, 0.0, 0.25]


def test_halves_are_even_and_odd_samples(load: ExpertLoad) -> None:
    even, odd = load.halves()
    assert even.num_tokens[0, 0].tolist() == [1, 0, 1, 2]
    assert odd.num_tokens[0, 0].tolist() == [0, 0, 1, 0]
    assert odd.count[0, 0, 2].tolist() == [1, 0, 0, 1]
    assert torch.equal(even.count + odd.count, load.count)
    with pytest.raises(DataError, match="no halves"):
        even.halves()


def test_normalisations(load: ExpertLoad) -> None:
    audio = {kind: load.normalised(kind)[0, 0].tolist() for kind in ("rate", "share", "max", "mass")}
    assert audio["rate"] == pytest.approx([4 / 5, 3 / 5, 2 / 5, 1 / 5])
    assert audio["share"] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert audio["max"] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert audio["mass"] == pytest.approx([2.0 / 5, 1.0 / 5, 0.5 / 5, 0.25 / 5])
    torch.testing.assert_close(load.normalised("rate").sum(-1), torch.full((2, 2), 2.0).double())
    torch.testing.assert_close(load.gate_sum, torch.full((2, 2), 0.75).double())


def test_positions(load: ExpertLoad) -> None:
    assert load.normalised("rate", "input")[:, 0].tolist() == [[1.0, 0.5, 0.0, 0.5], [0.0, 0.5, 1.0, 0.5]]
    assert load.normalised("rate", "answer")[1, 0].tolist() == [0.5, 0.0, 0.5, 1.0]


def test_bad_choices_are_refused(load: ExpertLoad) -> None:
    with pytest.raises(ConfigError, match="normalisation must be one of rate"):
        load.normalised("total")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="positions must be one of all"):
        load.normalised("rate", "prompt")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no token"):
        load.halves()[1].normalised("rate", "answer")


def test_empty_sets_and_models_without_experts_are_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        profile_load(Scripted(), [], TEXT)

    class Dense(nn.Module):
        def forward(self, batch: Batch, *, collect: bool) -> Output:
            return Output(None)

    with pytest.raises(ConfigError, match="router decisions"):
        profile_load(Dense(), AUDIO, TEXT)


def test_write_and_read(load: ExpertLoad, tmp_path: Path) -> None:
    write_load(tmp_path / "load.json", load, provenance={"model": "abc"})
    again = read_load(tmp_path / "load.json")
    assert torch.equal(again.count, load.count)
    assert torch.equal(again.halves()[1].count, load.halves()[1].count)
    torch.testing.assert_close(again.mass, load.mass)
    assert '"model": "abc"' in (tmp_path / "load.json").read_text()


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format_version": 1, "load": {"count": [1]}}', '{"format_version": 2, "load": 1}']
)
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "load.json").write_text(text)
    with pytest.raises(DataError):
        read_load(tmp_path / "load.json")
