"""The expert-level balance loss of DeepSeek-V2, which the stock models leave out."""

import torch

from deeptalk.backbone.router import RouterOutput
from deeptalk.shapes import Bool, Float, Tensor


def sequence_balance_loss(router: tuple[RouterOutput, ...], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Sum over experts of f·P, averaged over sequences and summed over layers; scale it by a small alpha.

    In one sequence of T real tokens (True in ``mask``), f is the number of tokens that chose an expert times
    E / (K T), and P the mean probability of that expert (DeepSeek-V2, arXiv 2405.04434, section 2.2.3,
    equations 23 to 25). Each layer adds 1 when all experts are used alike. Only P carries a gradient.
    """
    total = router[0].logits.new_zeros((), dtype=torch.float32)
    for output in router:
        total = total + _layer_balance(output, mask)
    return total


def _layer_balance(output: RouterOutput, mask: Tensor) -> Tensor:
    num_experts, top_k = output.logits.shape[-1], output.experts.shape[-1]
    probability = output.logits.softmax(dim=-1, dtype=torch.float32).view(*mask.shape, num_experts)
    chosen = output.experts.view(*mask.shape, top_k)
    weight = mask.to(probability.dtype)
    num_tokens = weight.sum(dim=1, keepdim=True).clamp(min=1.0)
    times = weight.unsqueeze(-1).expand_as(chosen).flatten(1)
    count = probability.new_zeros(len(mask), num_experts).scatter_add_(1, chosen.flatten(1), times)
    frequency = count * num_experts / (top_k * num_tokens)
    mean_probability = (probability * weight.unsqueeze(-1)).sum(dim=1) / num_tokens
    return (frequency * mean_probability).sum(dim=-1).mean()
