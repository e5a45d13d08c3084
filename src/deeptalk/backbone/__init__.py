"""Any mixture-of-experts language model of ``transformers``, made modality-aware without forking it."""

from deeptalk.backbone.backbone import Backbone, BackboneOutput, MoeShape, open_backbone, open_outline
from deeptalk.backbone.balance import sequence_balance_loss
from deeptalk.backbone.banks import fuse_experts, fused_state_dict, load_fused_state_dict, split_experts
from deeptalk.backbone.cache import copy_rows, new_cache, snapshot
from deeptalk.backbone.dense import merged_state_dict, open_pruned, prune_experts
from deeptalk.backbone.router import RouterMask, RouterOutput

__all__ = [
    "Backbone",
    "BackboneOutput",
    "MoeShape",
    "RouterMask",
    "RouterOutput",
    "copy_rows",
    "fuse_experts",
    "fused_state_dict",
    "load_fused_state_dict",
    "merged_state_dict",
    "new_cache",
    "open_backbone",
    "open_outline",
    "open_pruned",
    "prune_experts",
    "sequence_balance_loss",
    "snapshot",
    "split_experts",
]
