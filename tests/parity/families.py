"""Tiny random models of the supported families, made offline."""

import pytest
import torch
from transformers import GraniteMoeModel

from deeptalk.backbone import Backbone, open_backbone
from deeptalk.backbone.tiny import FAMILIES

CONFIGS = {name: dict(settings) for name, settings in FAMILIES.items()}
NAMED = ("deepseek_v2", "qwen3_moe", "olmoe", "mixtral")


def tiny(name: str, *, seed: int = 0) -> Backbone:
    if name == "granitemoe" and "router_logits" not in GraniteMoeModel._can_record_outputs:
        pytest.skip("this transformers version has Granite's router outputs in another order; it is refused")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = open_backbone(CONFIGS[name])
        for name, tensor in backbone.named_buffers():
            if name.endswith("e_score_correction_bias"):
                tensor.normal_(std=0.3)
    return backbone.eval()
