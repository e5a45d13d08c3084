"""Run by torchrun from test_expert_parallel.py: two processes share the experts of a masked stock model.

expert_parallel.py FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from deeptalk.backbone import Backbone, RouterMask, open_backbone


def masked(backbone: Backbone, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Hidden states under a mask, the gradient of the input, and how many experts this process has."""
    shape, rows = backbone.layers, x.detach().requires_grad_()
    table = torch.ones(2, shape.num_moe_layers, shape.num_experts, dtype=torch.bool)
    table[1, :, shape.num_experts // 2 :] = False
    groups = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2]) % 2
    hidden = backbone(rows, groups=groups, router_mask=RouterMask(table=table)).hidden
    hidden.square().sum().backward()
    block: Any = backbone.moe_blocks()[0]
    held: Any = next(block.experts.parameters())
    assert rows.grad is not None
    return hidden.detach(), rows.grad, len(held.to_local() if hasattr(held, "to_local") else held)


def main(folder: Path) -> None:
    """Compare the divided model with one that is whole."""
    dist.init_process_group("gloo")
    number = dist.get_world_size()
    config = DistributedConfig(tp_size=number, ep_size=number)
    divided = AutoModelForCausalLM.from_pretrained(
        folder, distributed_config=config, experts_implementation="grouped_mm", attn_implementation="sdpa"
    )
    torch.manual_seed(0)
    whole = open_backbone(folder, experts="grouped_mm")
    x = torch.randn(2, 5, whole.hidden_size)
    expected, found = masked(whole, x), masked(Backbone(divided), x)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)
    assert found[2] * number == expected[2] == whole.layers.num_experts
    dist.barrier()
    dist.destroy_process_group()
    if os.environ["RANK"] == "0":
        print("the same", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
