"""The supported families at a size that runs in a moment: configs of ``transformers`` for random models."""

from collections.abc import Mapping
from typing import Any

_COMMON: Mapping[str, Any] = {
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
_MLA: Mapping[str, Any] = {
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
_GROUPS: Mapping[str, Any] = {"n_group": 4, "topk_group": 2}

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": {"model_type": "deepseek_v2", **_COMMON, **_MLA, "routed_scaling_factor": 1.5},
    "deepseek_v2_grouped": {
        "model_type": "deepseek_v2",
        **_COMMON,
        **_MLA,
        **_GROUPS,
        "topk_method": "group_limited_greedy",
    },
    "qwen2_moe": {
        "model_type": "qwen2_moe",
        **_COMMON,
        "num_experts": 8,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40,
        "intermediate_size": 48,
        "mlp_only_layers": [0],
        "norm_topk_prob": False,
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
        "max_position_embeddings": 131_072,
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
"""One for each way to select experts in each family: three layers, eight experts, three of them per token."""
