"""Tiny random models of the supported families, made offline."""

import torch

from deeptalk.backbone import Backbone, open_backbone
from deeptalk.backbone.tiny import FAMILIES

CONFIGS = {name: dict(settings) for name, settings in FAMILIES.items()}
NAMED = ("deepseek_v2", "qwen3_moe", "olmoe", "mixtral")


def tiny(name: str, *, seed: int = 0) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = open_backbone(CONFIGS[name])
        for name, tensor in backbone.named_buffers():
            if name.endswith("e_score_correction_bias"):
                tensor.normal_(std=0.3)
    return backbone.eval()
