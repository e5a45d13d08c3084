"""DeepSeek-V2-Lite at its full size on the meta device: counts and memory are those of method.md."""

import pytest
from transformers.core_model_loading import revert_weight_conversion

from deeptalk.backbone import Backbone, open_outline
from deeptalk.backbone.backbone import config_from_dict
from deeptalk.backbone.checkpoint import map_tensors
from deeptalk.cli.memory import outline_model, plan_memory

GB = 1e9
LITE = {  # the public config.json, but for names of code and of versions
    "model_type": "deepseek_v2",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "aux_loss_alpha": 0.001,
    "bos_token_id": 100_000,
    "eos_token_id": 100_001,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2_048,
    "initializer_range": 0.02,
    "intermediate_size": 10_944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163_840,
    "moe_intermediate_size": 1_408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4_096,
        "type": "yarn",
    },
    "rope_theta": 10_000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 102_400,
}


@pytest.fixture
def outline() -> Backbone:
    return open_outline(config_from_dict(LITE))


def test_parameters_are_those_of_the_paper(outline: Backbone) -> None:
    sizes = {name: tensor.numel() for name, tensor in outline.model.named_parameters()}
    assert sum(sizes.values()) == 15_706_484_224  # 15.706 B
    layer = "model.layers.5.mlp"
    expert = sum(size for name, size in sizes.items() if name.startswith(f"{layer}.experts.")) // 64
    assert expert == 3 * 2_048 * 1_408  # 8.651 M
    assert expert * 6 * 26 == pytest.approx(1.350e9, rel=1e-3)
    assert expert * 58 * 26 == pytest.approx(13.045e9, rel=1e-3)
    shared = sum(size for name, size in sizes.items() if ".shared_experts." in name)
    assert shared == pytest.approx(0.450e9, rel=1e-3)
    assert (outline.layers.num_moe_layers, outline.layers.num_experts) == (26, 64)
    assert outline.layers.experts_per_token == 6


def test_every_name_that_the_stock_library_writes_is_mapped(outline: Backbone) -> None:
    tensors = revert_weight_conversion(outline.model, dict(outline.model.state_dict()))
    # each layer has seven, the dense one three more, the others 64 experts, router and shared expert
    assert len(tensors) == 27 * 7 + 3 + 26 * (64 * 3 + 1 + 3) + 3
    places = map_tensors(outline.model, tensors)
    assert set(places.values()) == set(outline.model.state_dict())
    layer = "model.layers.26.mlp.experts"
    for expert in range(64):
        for part, fused in (("gate", "gate_up_proj"), ("up", "gate_up_proj"), ("down", "down_proj")):
            assert places[f"{layer}.{expert}.{part}_proj.weight"] == f"{layer}.{fused}"


def test_the_speech_parts_are_those_of_the_paper(outline: Backbone) -> None:
    model = outline_model(outline)
    assert all(tensor.is_meta for tensor in model.parameters())

    def count(part: str) -> int:
        return sum(tensor.numel() for tensor in model.get_submodule(part).parameters())

    assert count("encoder") == pytest.approx(0.305e9, rel=0.01)
    assert count("heads.codec") == pytest.approx(59.6e6, rel=1e-3)
    assert count("adapter") == 2 * 4 * 1_024 * 7_168 + 7_168 * 2_048  # of stride 4


def test_memory_of_every_stage_is_that_of_the_arithmetic(outline: Backbone) -> None:
    plan = {stage.stage: stage for stage in plan_memory(outline)}
    expected = {  # method.md, section 10, and for several GPUs performance.md, section 5.2
        "audio-experts": (52.9, 34.9, 6.7),
        "audio-experts --dense": (26.8, 8.9, 3.4),
        "text-experts": (215, 55.2, 26.9),
        "joint": (254, 60.1, 31.8),
    }
    assert set(plan) == {"align", *expected}
    for name, given in expected.items():
        stage = plan[name]
        got = [stage.one_gpu_bytes, stage.zero2_bytes(8), stage.zero3_bytes(8)]
        assert [(num_bytes - stage.activation_bytes) / GB for num_bytes in got] == pytest.approx(
            given, rel=0.05
        )
        assert 4 <= stage.activation_bytes / GB <= 7
    assert plan["audio-experts"].num_trained == pytest.approx(1.47e9, rel=0.01)
