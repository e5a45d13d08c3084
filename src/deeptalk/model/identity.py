"""What tells one model from another: a hash of all that decides what it says."""

import json
from collections.abc import Mapping
from hashlib import sha256

import torch

from deeptalk.backbone.banks import fused_state_dict
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.shapes import Tensor


def model_hash(model: DeepTalk) -> str:
    """Sixteen hex digits of a model's config and weights in their dtype; experts may be split or fused."""
    digest = sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    parts: dict[str, Mapping[str, Tensor]] = {
        "encoder": model.encoder.state_dict(),
        "adapter": model.adapter.state_dict(),
        "backbone": fused_state_dict(model.backbone),
        "embedding": model.embedding.state_dict(),
        "heads": model.heads.state_dict(),
    }
    if model.word_head is not None:
        parts["hearing"] = model.word_head.state_dict()
    for part, tensors in parts.items():
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
