"""Checkpoints of the stock library, in folders and in the hub's cache: opened, or refused in one line."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from deeptalk.backbone import checkpoint as room
from deeptalk.backbone import open_backbone, open_outline
from deeptalk.backbone.checkpoint import (
    INDEX,
    check_tensors,
    check_tokenizer,
    find_checkpoint,
    map_tensors,
    stored_tensors,
)
from deeptalk.backbone.tiny import FAMILIES
from deeptalk.errors import CheckpointError

ID = "someone/small-moe"
IDS = torch.arange(12).view(2, 6) % 97


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stock = AutoModelForCausalLM.from_config(AutoConfig.for_model(**FAMILIES["deepseek_v2"]))
    stock.save_pretrained(folder, max_shard_size="40KB")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "model"))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache" / "models--someone--small-moe"


def put_in_cache(cache: Path, folder: Path) -> Path:
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(folder, cache / "snapshots" / ("0" * 40)))


def change(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def put_tensors(folder: Path, **tensors: torch.Tensor) -> None:
    """Change or add tensors in the shards where the index has them."""
    shard = folder / json.loads((folder / INDEX).read_text())["weight_map"]["lm_head.weight"]
    save_file(load_file(shard) | {name.replace("__", "."): t for name, t in tensors.items()}, shard)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_shards_are_opened_as_the_stock_library_opens_them(written: Path) -> None:
    assert len(list(written.glob("model-*.safetensors"))) > 3
    expected = logits(AutoModelForCausalLM.from_pretrained(written))
    torch.testing.assert_close(logits(open_backbone(str(written)).model), expected, atol=1e-5, rtol=0)


def test_a_model_of_the_hub_is_opened_from_the_cache(folder: Path, cache: Path) -> None:
    snapshot = put_in_cache(cache, folder)
    assert find_checkpoint(ID) == snapshot
    assert torch.equal(logits(open_backbone(ID).model), logits(open_backbone(folder).model))


def test_a_model_of_the_hub_whose_shards_are_not_all_cached_is_refused(folder: Path, cache: Path) -> None:
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[1].unlink()
    put_in_cache(cache, folder)
    with pytest.raises(CheckpointError, match=rf"lacks 1 of its {len(shards)} shards .*{shards[1].name}"):
        open_backbone(ID)


def test_offline_and_not_cached_is_said(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE is set, and the cache .*cache lacks files"):
        find_checkpoint(ID)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RepositoryNotFoundError, "the hub gives no model of this name"),
        (GatedRepoError, "is gated: accept its terms"),
        (TimeoutError, "can't be downloaded"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> str:
        raise error.__new__(error)

    monkeypatch.setattr(room, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=message) as caught:
        find_checkpoint(ID)
    assert "\n" not in str(caught.value)


def test_only_safetensors_and_texts_are_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(room, "snapshot_download", download)
    assert find_checkpoint(ID) == find_checkpoint(ID, weights=False) == tmp_path
    whole, outline = asked
    assert [pattern for pattern in whole if pattern not in outline] == ["model*.safetensors"]
    assert not any("py" in pattern or "bin" in pattern for pattern in whole)


@pytest.mark.parametrize("source", ["/no/such/folder", "nothing", "a/b/c", Path("someone/small-moe")])
def test_what_is_neither_folder_nor_id_is_refused(source: str | Path) -> None:
    with pytest.raises(CheckpointError, match=r"no folder with a config\.json and no id of the hub"):
        find_checkpoint(source)


def test_code_of_a_checkpoint_is_never_run(folder: Path, tmp_path: Path) -> None:
    expected = logits(open_backbone(folder).model)
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass")
    change(folder, auto_map={"AutoModelForCausalLM": "modeling.Model", "AutoConfig": "modeling.Config"})
    backbone = open_backbone(folder)
    assert torch.equal(logits(backbone.model), expected)
    assert not (tmp_path / "ran").exists()
    assert not hasattr(backbone.model.config, "auto_map")


def test_pickles_are_refused(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match=r"pytorch_model-00001.*give safetensors"):
        open_backbone(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": 1}}, "no weight_map of file names"),
        ({"weight_map": {"a": "../model.safetensors"}}, "names files outside its folder"),
        ([], "must hold a JSON object"),
    ],
)
def test_damaged_indices_are_refused(folder: Path, index: object, message: str) -> None:
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        open_backbone(folder)


def test_weights_that_cannot_be_trained_are_refused(folder: Path) -> None:
    change(folder, quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(CheckpointError, match=r"quantised \(bitsandbytes\).*give a copy in bf16"):
        open_backbone(folder)
    change(folder, quantization_config=None)
    put_tensors(folder, lm_head__weight=torch.ones(97, 32, dtype=torch.int8))
    with pytest.raises(CheckpointError, match=r"as I8, lm_head\.weight among them.*give a copy in bf16"):
        open_backbone(folder)


def pack(folder: Path, name: str, *, by: str) -> dict[str, torch.Tensor]:
    """Write a tiny model quantised as its family is published; gives the packed tensors."""
    stock = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{**FAMILIES[name], "intermediate_size": 32})
    )
    stock.save_pretrained(folder)
    packed = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        if by == "mxfp4" and key.endswith("experts.down_proj"):
            experts, inner, outer = tensor.shape
            packed[f"{key}_blocks"] = torch.randint(0, 256, (experts, outer, inner // 32, 16)).byte()
            packed[f"{key}_scales"] = torch.randint(120, 128, (experts, outer, inner // 32)).byte()
        elif by == "fp8" and tensor.ndim == 2 and key.endswith("_proj.weight"):
            packed[key] = tensor.to(torch.float8_e4m3fn)
            packed[f"{key}_scale_inv"] = torch.full((1, 1), 1.5)
        else:
            packed[key] = tensor
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    return packed


def check_saved_again(folder: Path, model: Any) -> None:
    model.save_pretrained(folder)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert torch.equal(logits(open_backbone(folder).model), logits(model))


def test_mxfp4_is_unpacked(tmp_path: Path) -> None:
    """GPT-OSS: two numbers of 4 bits in a byte, one exponent for 32 of them (OCP microscaling formats)."""
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head", "model.layers.*.self_attn"]}
    packed = pack(tmp_path, "gpt_oss", by="mxfp4")
    change(tmp_path, quantization_config=config)
    backbone = open_backbone(tmp_path)
    positive = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = torch.cat([positive, -positive])
    name = "model.layers.1.mlp.experts.down_proj"
    blocks, exponents = packed[f"{name}_blocks"].long(), packed[f"{name}_scales"].float() - 127
    numbers = torch.stack([values[blocks % 16], values[blocks // 16]], dim=-1).flatten(-2)
    expected = (numbers * 2 ** exponents[..., None]).flatten(-2).transpose(1, 2)
    assert torch.equal(backbone.model.get_parameter(name), expected)
    check_saved_again(tmp_path / "again", backbone.model)


def test_fp8_is_unpacked(tmp_path: Path) -> None:
    """DeepSeek-V3: one factor for a block of 128 by 128 numbers of 8 bits."""
    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    packed = pack(tmp_path, "deepseek_v3", by="fp8")
    change(tmp_path, quantization_config=config | {"weight_block_size": [128, 128]})
    backbone = open_backbone(tmp_path)
    experts = backbone.model.get_parameter("model.layers.1.mlp.experts.down_proj")
    expected = packed["model.layers.1.mlp.experts.3.down_proj.weight"].float() * 1.5
    assert torch.equal(experts[3], expected)
    check_saved_again(tmp_path / "again", backbone.model)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_stock_name_has_its_place(name: str) -> None:
    with torch.device("meta"):
        stock = AutoModelForCausalLM.from_config(AutoConfig.for_model(**FAMILIES[name]))
    tensors = revert_weight_conversion(stock, dict(stock.state_dict()))
    assert set(map_tensors(stock, tensors).values()) == set(stock.state_dict())
    assert map_tensors(stock, ["model.layers.0.mlp.nothing.weight"]) == {
        "model.layers.0.mlp.nothing.weight": None
    }


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    outline = open_outline(folder).model
    stored = stored_tensors(folder)
    check_tensors(folder, outline, stored)
    gone = {name: tensor for name, tensor in stored.items() if not name.endswith("o_proj.weight")}
    with pytest.raises(CheckpointError, match=r"3 missing \(model\.layers\.0\.self_attn\.o_proj\.weight, "):
        check_tensors(folder, outline, gone)
    fewer = {name: tensor for name, tensor in stored.items() if ".experts.7.up_proj" not in name}
    with pytest.raises(CheckpointError, match=r"2 of another size \(.*experts\.gate_up_proj"):
        check_tensors(folder, outline, fewer)
    more = stored | {"vision.weight": stored["lm_head.weight"]}
    with pytest.raises(CheckpointError, match=r"1 without a place \(vision\.weight\)"):
        check_tensors(folder, outline, more)


def test_weights_that_main_memory_cannot_hold_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_bytes = sum(tensor.num_bytes for tensor in stored_tensors(folder).values())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=num_bytes))
    open_backbone(folder)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(CheckpointError, match=r"GiB of main memory, 0\.0 for each of 2 processes; this mach"):
        open_backbone(folder)
    open_backbone(folder, dtype=torch.bfloat16)


def test_tensors_of_another_size_are_named_before_any_is_read(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    wider = settings["moe_intermediate_size"] + 8
    (folder / "config.json").write_text(json.dumps(settings | {"moe_intermediate_size": wider}))
    with pytest.raises(CheckpointError, match=r"of another size \(model\.layers\.1\.mlp\.experts"):
        open_backbone(folder)


def test_an_outline_has_names_and_sizes_but_no_numbers(folder: Path) -> None:
    outline, backbone = open_outline(folder), open_backbone(folder)
    assert all(tensor.is_meta for tensor in outline.parameters())
    shapes = [{name: t.shape for name, t in one.named_parameters()} for one in (outline, backbone)]
    assert shapes[0] == shapes[1]


def write_tokenizer(folder: Path, words: int) -> None:
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0")).save(
        str(folder / "tokenizer.json")
    )


def test_tokenizers_are_held_to_the_model(folder: Path) -> None:
    config = open_outline(folder).model.config
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json; save it with"):
        check_tokenizer(folder, config)
    write_tokenizer(folder, 97)
    assert check_tokenizer(folder, config) == 97
    config.bos_token_id, config.eos_token_id = None, [1, 2]
    assert check_tokenizer(folder, config) == 97
    for eos in (None, 97):
        config.eos_token_id = eos
        with pytest.raises(CheckpointError, match=f"lacks the token that ends a text: eos_token_id is {eos}"):
            check_tokenizer(folder, config)
    config.eos_token_id, config.bos_token_id = 1, 97
    with pytest.raises(CheckpointError, match="lacks the token that begins a text"):
        check_tokenizer(folder, config)
    write_tokenizer(folder, 98)
    with pytest.raises(CheckpointError, match="98 ids, the model's text table 97 rows"):
        check_tokenizer(folder, config)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        check_tokenizer(folder, config)
