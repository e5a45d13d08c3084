from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deeptalk.backbone import RouterMask
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.pruned import load_pruned, save_pruned
from deeptalk.model.weights import load, save
from deeptalk.streams import Batch

KEPT = torch.tensor([[False, True, False, True] + 4 * [False], 5 * [False] + [True, False, True]])


@pytest.fixture
def base(tmp_path: Path, build: Callable[..., DeepTalk], tokenizer_path: Path) -> Path:
    save(build(), tmp_path / "base", tokenizer_path=tokenizer_path, provenance={})
    return tmp_path / "base"


def test_a_pruned_model_answers_as_the_masked_one(base: Path, speech_batch: Batch) -> None:
    whole, pruned = load(base), load_pruned(base, KEPT)
    whole.split(KEPT)
    assert pruned.config == whole.config
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter, whole.get_parameter(name))
    assert not [name for name, _ in pruned.named_parameters() if ".experts.text." in name]
    groups = torch.zeros_like(speech_batch.kind)
    expected = whole(speech_batch, router_mask=RouterMask(table=KEPT[None]), groups=groups)
    torch.testing.assert_close(pruned(speech_batch).logits.codec, expected.logits.codec)


def test_saved_it_is_the_whole_model_again(base: Path, tmp_path: Path, tokenizer_path: Path) -> None:
    model = load_pruned(base, KEPT)
    with torch.no_grad():
        for block in model.backbone.moe_blocks():
            block.experts.bank.down_proj.add_(1.0)
        next(model.adapter.parameters()).add_(1.0)
    save_pruned(model, tmp_path / "new", base=base, tokenizer_path=tokenizer_path, provenance={"a": 1})
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "new"))
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    experts = {name for name in moved if name.endswith("experts.down_proj")}
    assert len(experts) == 2
    assert {name.split(".")[0] for name in moved - experts} == {"adapter"}
    for name in experts:
        layer = int(name.split("layers.")[1].split(".")[0]) - 1
        assert torch.equal((after[name] != before[name]).flatten(1).any(1), KEPT[layer])
    assert load(tmp_path / "new").is_audio().tolist() == KEPT.tolist()


def test_what_does_not_fit_is_refused_and_nothing_written(
    base: Path, tmp_path: Path, tokenizer_path: Path
) -> None:
    with pytest.raises(ConfigError, match="this backbone has 2 layers of 8 experts"):
        load_pruned(base, KEPT[:1])
    model, new = load_pruned(base, KEPT), tmp_path / "new"
    with pytest.raises(CheckpointError, match="lacks experts"):
        save(model, new, tokenizer_path=tokenizer_path, provenance={})
    with pytest.raises(CheckpointError, match=r"tokens\.json\.json is missing"):
        save_pruned(model, new, base=base, tokenizer_path=tmp_path / "tokens.json.json", provenance={})
    with pytest.raises(CheckpointError, match="no model"):
        save_pruned(model, new, base=tmp_path / "nowhere", tokenizer_path=tokenizer_path, provenance={})
    tensors = load_file(base / "model.safetensors")
    stack = "backbone.model.layers.1.mlp.experts.gate_up_proj"
    save_file(tensors | {stack: tensors[stack][:6].clone()}, base / "model.safetensors")
    with pytest.raises(CheckpointError, match="another backbone's"):
        save_pruned(model, new, base=base, tokenizer_path=tokenizer_path, provenance={})
    assert not new.exists()


@pytest.mark.parametrize("change", ["missing", "unknown", "of another shape"])
def test_damaged_folders_are_refused(change: str, base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in tensors if name.startswith("adapter"))
    tensor = tensors.pop(name)
    if change == "unknown":
        tensors |= {name: tensor, "adapter.more": tensor.clone()}
    if change == "of another shape":
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"adapter"):
        load_pruned(base, KEPT)
