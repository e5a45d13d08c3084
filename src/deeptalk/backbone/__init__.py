"""Any mixture-of-experts language model of ``transformers``, made modality-aware without forking it."""

from deeptalk.backbone.backbone import Backbone, BackboneOutput, MoeShape, open_backbone, open_outline
from deeptalk.backbone.balance import sequence_balance_loss
from deeptalk.backbone.banks import (
    Deferred,
    fuse_experts,
    fused_state_dict,
    fused_tensors,
    load_fused_state_dict,
    split_experts,
)
from deeptalk.backbone.cache import copy_rows, new_cache, snapshot
from deeptalk.backbone.dense import merged_tensors, open_pruned, prune_experts
from deeptalk.backbone.router import RouterMask, RouterOutput
from deeptalk.backbone.stored import open_stacked

__all__ = [
    "Backbone",
    "BackboneOutput",
    "Deferred",
    "MoeShape",
    "RouterMask",
    "RouterOutput",
    "copy_rows",
    "fuse_experts",
    "fused_state_dict",
    "fused_tensors",
    "load_fused_state_dict",
    "merged_tensors",
    "new_cache",
    "open_backbone",
    "open_outline",
    "open_pruned",
    "open_stacked",
    "prune_experts",
    "sequence_balance_loss",
    "snapshot",
    "split_experts",
]
