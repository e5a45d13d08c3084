"""Tiny random models of the supported families, made offline."""

import pytest
import torch
from transformers import GraniteMoeModel

from deeptalk.backbone import Backbone, open_backbone

_COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 3,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "initializer_range": 0.2,
}
_MLA = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "moe_intermediate_size": 24,
    "intermediate_size": 48,
    "first_k_dense_replace": 1,
}
_GROUPS = {"n_group": 4, "topk_group": 2}

CONFIGS = {
    "deepseek_v2": {"model_type": "deepseek_v2", **_COMMON, **_MLA, "routed_scaling_factor": 1.5},
    "deepseek_v2_grouped": {
        "model_type": "deepseek_v2",
        **_COMMON,
        **_MLA,
        **_GROUPS,
        "topk_method": "group_limited_greedy",
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        **_COMMON,
        "head_dim": 8,
        "num_experts": 8,
        "moe_intermediate_size": 24,
        "intermediate_size": 48,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
    },
    "olmoe": {"model_type": "olmoe", **_COMMON, "num_experts": 8, "intermediate_size": 24},
    "mixtral": {"model_type": "mixtral", **_COMMON, "num_local_experts": 8, "intermediate_size": 24},
    "gpt_oss": {
        "model_type": "gpt_oss",
        **_COMMON,
        "head_dim": 8,
        "num_local_experts": 8,
        "intermediate_size": 24,
    },
    "granitemoe": {"model_type": "granitemoe", **_COMMON, "num_local_experts": 8, "intermediate_size": 24},
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        **_COMMON,
        **_MLA,
        **_GROUPS,
        "q_lora_rank": 16,
        "routed_scaling_factor": 2.0,
    },
    "glm4_moe": {
        "model_type": "glm4_moe",
        **_COMMON,
        **_GROUPS,
        "head_dim": 8,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "moe_intermediate_size": 24,
        "intermediate_size": 48,
        "first_k_dense_replace": 1,
    },
}
NAMED = ("deepseek_v2", "qwen3_moe", "olmoe", "mixtral")


def tiny(name: str, *, seed: int = 0) -> Backbone:
    if name == "granitemoe" and "router_logits" not in GraniteMoeModel._can_record_outputs:
        pytest.skip("this transformers version has Granite's router outputs in another order; it is refused")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        attention = "eager" if name == "gpt_oss" else "sdpa"
        backbone = open_backbone(CONFIGS[name], attention=attention)
        for name, tensor in backbone.named_buffers():
            if name.endswith("e_score_correction_bias"):
                tensor.normal_(std=0.3)
    return backbone.eval()
