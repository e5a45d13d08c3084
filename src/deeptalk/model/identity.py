"""What tells one model from another: a hash of all that decides what it says."""

import json
from hashlib import sha256

import torch

from deeptalk.backbone.banks import fused_state_dict
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.weights import tensors_beside_backbone

_ORDER = ("encoder", "adapter", "backbone", "embedding", "heads", "hearing")
"""In which parts are hashed; it never changes, as hashes are kept in files."""


def model_hash(model: DeepTalk) -> str:
    """Sixteen hex digits of a model's config and weights in their dtype; experts may be split or fused."""
    digest = sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    tensors = tensors_beside_backbone(model)
    tensors |= {f"backbone.{name}": tensor for name, tensor in fused_state_dict(model.backbone).items()}
    for name in sorted(tensors, key=lambda name: (_ORDER.index(name.partition(".")[0]), name)):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
