import json
import warnings
from pathlib import Path

import pytest
import torch

from deeptalk.backbone import RouterMask, few_tokens, open_backbone, split_experts
from deeptalk.backbone.families import find_moe_layers
from deeptalk.backbone.tiny import FAMILIES
from deeptalk.errors import CheckpointError, ConfigError

TINY = {
    "model_type": "olmoe",
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@pytest.fixture
def backbone():
    return open_backbone(TINY)


def test_shape_and_tables(backbone) -> None:
    assert (backbone.layers.num_moe_layers, backbone.layers.num_experts) == (2, 6)
    assert backbone.layers.experts_per_token == 2
    assert backbone.embed_tokens.weight is backbone.model.model.embed_tokens.weight
    assert backbone.lm_head.weight is backbone.model.lm_head.weight
    assert backbone.hidden_size == 16


@pytest.mark.parametrize("length", [1, 12])
def test_what_trains_multiplies_experts_by_grouped_mm(
    backbone, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """In every layer once for each bank; a token or two go another way."""
    grouped, calls = few_tokens.grouped_mm_experts_forward, []

    def count(module, *arguments):
        calls.append(module.num_experts)
        return grouped(module, *arguments)

    monkeypatch.setattr(few_tokens, "grouped_mm_experts_forward", count)
    split_experts(backbone, torch.tensor([[True] * 2 + [False] * 4] * 2))
    backbone(torch.randn(1, length, 16)).hidden.sum().backward()
    assert sorted(calls) == ([] if length == 1 else [2, 2, 4, 4])


def test_stock_names_are_kept(backbone) -> None:
    names = dict(backbone.named_parameters())
    assert "model.model.layers.0.mlp.experts.gate_up_proj" in names
    split_experts(backbone, torch.tensor([[True] * 2 + [False] * 4] * 2))
    names = {name: tuple(tensor.shape) for name, tensor in backbone.named_parameters()}
    assert names["model.model.layers.0.mlp.experts.text.gate_up_proj"] == (4, 16, 16)
    assert names["model.model.layers.1.mlp.experts.audio.down_proj"] == (2, 16, 8)


def test_collects_only_when_asked(backbone) -> None:
    x = torch.randn(2, 3, 16)
    assert backbone(x).router is None
    router = backbone(x, collect=True).router
    assert [tuple(output.logits.shape) for output in router] == [(6, 6), (6, 6)]
    assert router[0].experts.shape == (6, 2)
    assert backbone(x).cache is None


def test_groups_and_mask_come_together_and_fit(backbone) -> None:
    x, groups = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.long)
    mask = RouterMask(table=torch.ones(1, 2, 6, dtype=torch.bool))
    with pytest.raises(ConfigError, match="belong together"):
        backbone(x, groups=groups)
    with pytest.raises(ConfigError, match=r"router mask \[G, 2, 6\]"):
        backbone(x, groups=groups, router_mask=RouterMask(table=mask.table[:, :1]))
    with pytest.raises(ConfigError, match=r"\(2, 3\)"):
        backbone(x, groups=groups[:1], router_mask=mask)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (torch.ones(2, 6), "bool table"),
        (torch.ones(1, 6, dtype=torch.bool), r"bool table \(2, 6\)"),
        (torch.ones(2, 6, dtype=torch.bool), "at least one expert"),
    ],
)
def test_bad_banks_are_refused(backbone, table: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_experts(backbone, table)


def test_banks_are_split_once(backbone) -> None:
    table = torch.tensor([[True] * 2 + [False] * 4] * 2)
    split_experts(backbone, table)
    with pytest.raises(ConfigError, match="split already"):
        split_experts(backbone, table)


def test_unknown_models_are_refused_with_what_is_supported(tmp_path: Path) -> None:
    for source in ({"model_type": "t5"}, {}):
        with pytest.raises(ConfigError, match="supported are deepseek_v2"):
            open_backbone(source)
    dense = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(dense))
    with pytest.raises(ConfigError, match=r"'llama' is not supported: it has no routed experts .*; give a"):
        open_backbone(tmp_path)


def test_an_unknown_way_to_select_is_refused_by_its_routers_name() -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
    with pytest.raises(ConfigError, match="how its router Ernie4_5_MoeTopKRouter selects"):
        open_backbone({"model_type": "ernie4_5_moe", "moe_num_experts": 4, **sizes})
    with pytest.raises(ConfigError, match="how its router JetMoeTopKGating selects"):  # no module of experts
        open_backbone({"model_type": "jetmoe"})
    grouped = dict(FAMILIES["deepseek_v2_grouped"])
    with pytest.raises(ConfigError, match=r"DeepseekV2TopkRouter .*'noaux_tc'; known are 'greedy'"):
        open_backbone(grouped | {"topk_method": "noaux_tc"})
    with pytest.raises(ConfigError, match=r"scoring_func 'sigmoid', but .* computes 'softmax'"):
        open_backbone(grouped | {"scoring_func": "sigmoid"})
    assert open_backbone(grouped | {"scoring_func": "softmax"}).layers.num_experts == 8


def test_a_bad_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="not valid"):
        open_backbone(TINY | {"hidden_size": "wide"})
    for config in FAMILIES.values():
        key = "num_local_experts" if "num_local_experts" in config else "num_experts"
        key = "n_routed_experts" if "n_routed_experts" in config else key
        with pytest.raises(ConfigError, match=rf"a token must use 1 to {config[key]} experts, got 99"):
            open_backbone(dict(config) | {"num_experts_per_tok": 99})


def test_bad_folders_are_refused(tmp_path: Path, backbone) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_backbone(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="safetensors"):
        open_backbone(tmp_path)
    state = backbone.model.state_dict()
    del state["lm_head.weight"]
    backbone.model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        open_backbone(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 no header here")
    with pytest.raises(CheckpointError, match="can't be opened"):
        open_backbone(tmp_path)


def test_a_changed_selection_is_noticed(backbone) -> None:
    router = backbone.moe_blocks()[0].gate
    router.register_forward_hook(lambda module, args, output: (output[0], output[1] * 2, output[2]))
    with pytest.raises(ConfigError, match=r"router OlmoeTopKRouter .* selects in another way"):
        find_moe_layers(backbone.model)


def test_wrong_shapes_are_refused(tmp_path: Path, backbone) -> None:
    backbone.model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"vocab_size": 30}))
    with pytest.raises(CheckpointError, match=r"of another size \(lm_head"):
        open_backbone(tmp_path)


def test_states_in_the_middle_are_given_where_asked(backbone) -> None:
    x = torch.randn(2, 3, 16)
    plain = backbone(x)
    assert plain.layers == {}
    backbone.keep(1, 2)
    kept = backbone(x)
    assert sorted(kept.layers) == [1, 2]
    assert torch.equal(kept.hidden, plain.hidden)
    assert torch.equal(backbone.model.model.norm(kept.layers[2]), plain.hidden)
    assert not torch.equal(kept.layers[1], kept.layers[2])
    with pytest.raises(ConfigError, match="layers 1 to 2, got 3"):
        backbone.keep(3)


def test_recomputing_is_asked_for_without_a_warning() -> None:
    backbone = open_backbone(FAMILIES["qwen3_moe"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone.enable_checkpointing()
    assert all(layer.gradient_checkpointing for layer in backbone.decoder_layers())
