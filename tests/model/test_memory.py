"""What opening and saving hold in memory: bytes of live tensors, counted at every operation."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deeptalk.backbone import open_backbone
from deeptalk.backbone.stock import save_stock
from deeptalk.model import folder as files
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.pruned import load_pruned, save_pruned
from deeptalk.model.weights import load, load_encoder, save, save_encoder

BF16 = torch.bfloat16
NUM_LAYERS = 7
KEPT = torch.zeros(NUM_LAYERS - 1, 8, dtype=torch.bool).index_fill(1, torch.tensor([1, 5]), True)


class Held(TorchDispatchMode):
    """The most bytes that tensors on the CPU had at the same time, but for those of a module given."""

    def __init__(self, module: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.peak = 0
        own = {} if module is None else module.state_dict(keep_vars=True)
        self._own = {storage._cdata for storage in storages(own)}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for storage in storages(made):
            if storage._cdata not in self._own:
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: one for key, one in self._live.items() if not one[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return made


def storages(tree: Any) -> list[torch.UntypedStorage]:
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
    return [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]


def num_bytes(module: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def largest(module: torch.nn.Module) -> int:
    """Bytes of the largest tensor in fp32, with what testing it for finite numbers takes."""
    return max(parameter.numel() for parameter in module.parameters()) * 8


@pytest.fixture
def folder(tmp_path: Path, tokenizer_path: Path) -> Path:
    """A model in bf16 with many layers, so that no tensor is a large part of it."""
    config = DeepTalkConfig.tiny()
    backbone = {**config.backbone, "num_hidden_layers": NUM_LAYERS, "moe_intermediate_size": 64}
    torch.manual_seed(0)
    model = DeepTalk(replace(config, backbone=backbone))
    save(model, tmp_path / "model", tokenizer_path=tokenizer_path, provenance={}, dtype=BF16)
    save_stock(model.backbone.to(BF16), tmp_path / "stock")
    save_encoder(model.encoder, tmp_path / "encoder", provenance={}, dtype=BF16)
    return tmp_path / "model"


OPENED: dict[str, Callable[[Path], torch.nn.Module]] = {
    "model": lambda folder: load(folder, dtype=BF16),
    "model in banks": lambda folder: split(load(folder, dtype=BF16)),
    "pruned": lambda folder: load_pruned(folder, KEPT, dtype=BF16),
    "encoder": lambda folder: load_encoder(folder.with_name("encoder"), dtype=BF16),
    "stock": lambda folder: open_backbone(folder.with_name("stock"), dtype=BF16),
}


def split(model: DeepTalk) -> DeepTalk:
    model.split(KEPT)
    return model


@pytest.mark.parametrize("what", OPENED)
def test_opening_takes_one_copy_of_the_weights_and_a_tensor(what: str, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # the stock library's threads aren't counted
    with Held() as held:
        model = OPENED[what](folder)
    wide = [name for name, parameter in model.named_parameters() if parameter.dtype != BF16]
    assert all(what == "stock" and name.endswith("gate.weight") for name in wide)
    assert num_bytes(model) < held.peak < num_bytes(model) + largest(model)


@pytest.mark.parametrize("what", ["model in banks", "pruned"])
def test_saving_takes_one_file_of_them(what: str, folder: Path, monkeypatch) -> None:
    small_files = partial(split_torch_state_dict_into_shards, max_shard_size=50_000)
    monkeypatch.setattr(files, "split_torch_state_dict_into_shards", small_files)
    model, target, tokenizer = OPENED[what](folder), folder.with_name("again"), folder / "tokenizer.json"
    assert isinstance(model, DeepTalk)
    with Held(model) as held:
        if what == "pruned":
            save_pruned(model, target, base=folder, tokenizer_path=tokenizer, provenance={}, dtype=BF16)
        else:
            save(model, target, tokenizer_path=tokenizer, provenance={}, dtype=BF16)
    assert len(list(target.glob("*.safetensors"))) > 10
    whole, again = load(folder, dtype=BF16), load(target, dtype=BF16).state_dict()
    assert held.peak < 50_000 + largest(whole)
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.state_dict().items())
