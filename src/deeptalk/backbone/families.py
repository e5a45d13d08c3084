"""Find the routers of a stock model by its own declaration, and know how each family of routers selects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

from deeptalk.backbone.router import (
    BiasedSigmoid,
    GroupLimit,
    SelectionRule,
    SoftmaxThenTopk,
    TopkThenSoftmax,
    is_in_order,
    turned,
)
from deeptalk.errors import ConfigError
from deeptalk.shapes import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MoeLayer:
    """One mixture-of-experts layer of a stock model: block and router by name, and the router's rule."""

    block_name: str
    router_name: str
    router: nn.Module
    rule: SelectionRule


def find_moe_layers(model: PreTrainedModel) -> tuple[MoeLayer, ...]:
    """The layers with experts, first to last; every rule is checked against its stock router."""
    model_type = model.config.model_type
    check_family(model.config.to_dict())
    layers = [
        MoeLayer(
            block_name=name.rpartition(".")[0],
            router_name=name,
            router=router,
            rule=_RULES[model_type](router),
        )
        for name, router in find_routers(model)
    ]
    if not layers:
        raise ConfigError(
            f"backbone {model_type!r} has no layer with experts; give a mixture-of-experts model."
        )
    for layer in layers:
        _check_number(layer.router)
        _check_rule(layer, model_type)
    return tuple(layers)


def check_family(settings: Mapping[str, Any]) -> None:
    """Refuse a config whose way to select experts isn't known here, by name of its router.

    Raises:
        ConfigError: the family isn't supported, or asks for other scores than its stock router computes.
    """
    model_type = settings.get("model_type")
    if model_type not in _RULES:
        why = _describe_foreign(settings)
        raise ConfigError(
            f"backbone {model_type!r} is not supported{why}; supported are {', '.join(SUPPORTED)}."
        )
    scores = _SCORES.get(model_type)
    given = settings.get("scoring_func") or scores
    if given != scores and scores is not None:
        raise ConfigError(
            f"this backbone {model_type!r} asks for scoring_func {given!r}, but the stock router of its "
            f"family computes {scores!r}; a model trained otherwise can't be opened."
        )


def find_routers(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """The routers of a stock model by name, first layer to last: those that stand in a block with experts."""
    is_router = _declared_routers(model)
    return [
        (name, module)
        for name, module in model.named_modules()
        if is_router(module)
        and isinstance(getattr(model.get_submodule(name.rpartition(".")[0]), "experts", None), nn.Module)
    ]


def _declared_routers(model: PreTrainedModel) -> Callable[[nn.Module], bool]:
    """Whether a module is a router: by the model's declaration, or by what a router knows of itself.

    Version 5.17 of ``transformers`` has no declaration for some families, DeepSeek-V2 among them.
    """
    declared = (getattr(type(model.base_model), "_can_record_outputs", None) or {}).get("router_logits")
    if isinstance(declared, OutputRecorder) and declared.target_class:
        router_class = declared.target_class
        return lambda module: isinstance(module, router_class)
    return lambda module: hasattr(module, "top_k") and hasattr(module, "num_experts")


def _describe_foreign(settings: Mapping[str, Any]) -> str:
    """What a model of ``transformers`` outside the supported families is, as far as its outline tells."""
    values = {key: value for key, value in settings.items() if key != "model_type"}
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings["model_type"], **values))
    except Exception:  # no causal language model of this version of the library
        return ""
    router = next(filter(_declared_routers(model), model.modules()), None)  # whatever holds its experts
    if router is not None:
        return f": how its router {type(router).__name__} selects experts is not known here"
    return ": it has no routed experts to divide between text and speech; give a mixture-of-experts model"


def _check_number(router: Any) -> None:
    """Refuse a router that is to choose more experts than there are."""
    if not isinstance(router.top_k, int) or not 1 <= router.top_k <= router.num_experts:
        raise ConfigError(f"a token must use 1 to {router.num_experts} experts, got {router.top_k}.")


@torch.no_grad()
def _check_rule(layer: MoeLayer, model_type: str) -> None:
    """Refuse a rule that doesn't give the stock weights on a probe: it would go wrong silently."""
    weight = next(layer.router.parameters())
    if weight.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(16, weight.shape[-1], generator=generator).to(weight)
    output = layer.router(probe)
    logits, weights, experts = output if is_in_order(output) else turned(output)
    is_ordered = logits.is_floating_point() and weights.is_floating_point() and weights.shape == experts.shape
    if not is_ordered or not _is_same(layer, logits, weights, experts):
        raise ConfigError(
            f"the router {type(layer.router).__name__} of backbone {model_type!r} selects in another way "
            "than expected; this version of transformers is not supported for it."
        )


def _is_same(layer: MoeLayer, logits: Tensor, weights: Tensor, experts: Tensor) -> bool:
    ours = _dense(*layer.rule(layer.router, logits, torch.ones_like(logits, dtype=torch.bool)), logits)
    tolerance = 1e-5 if weights.dtype == torch.float32 else 1e-2
    return torch.allclose(ours, _dense(weights, experts, logits), atol=tolerance)


def _dense(weights: Tensor, experts: Tensor, logits: Tensor) -> Tensor:
    return torch.zeros_like(logits, dtype=torch.float32).scatter(-1, experts, weights.float())


def _deepseek_v2(router: Any) -> SelectionRule:
    if router.topk_method not in ("greedy", "group_limited_greedy"):
        raise ConfigError(
            f"the router {type(router).__name__} is to select by topk_method {router.topk_method!r}; known "
            "are 'greedy' and 'group_limited_greedy'."
        )
    is_limited = router.topk_method == "group_limited_greedy"
    limit = GroupLimit(total=router.num_group, kept=router.topk_group, of=1) if is_limited else None
    return SoftmaxThenTopk(
        top_k=router.top_k, is_normalised=False, scale=router.routed_scaling_factor, limit=limit
    )


def _softmax(router: Any) -> SelectionRule:
    return SoftmaxThenTopk(top_k=router.top_k, is_normalised=router.norm_topk_prob)


def _softmax_normalised(router: Any) -> SelectionRule:
    return SoftmaxThenTopk(top_k=router.top_k, is_normalised=True)


def _topk_softmax(router: Any) -> SelectionRule:
    return TopkThenSoftmax(top_k=router.top_k)


def _biased_sigmoid(router: Any) -> SelectionRule:
    return BiasedSigmoid(
        top_k=router.top_k,
        is_normalised=router.norm_topk_prob,
        scale=router.routed_scaling_factor,
        limit=GroupLimit(total=router.num_group, kept=router.topk_group, of=2),
    )


_RULES: dict[str, Callable[[Any], SelectionRule]] = {
    "deepseek_v2": _deepseek_v2,
    "qwen2_moe": _softmax,
    "qwen3_moe": _softmax,
    "olmoe": _softmax,
    "mixtral": _softmax_normalised,
    "gpt_oss": _topk_softmax,
    "granitemoe": _topk_softmax,
    "deepseek_v3": _biased_sigmoid,
    "glm4_moe": _biased_sigmoid,
}

_SCORES = {"deepseek_v2": "softmax", "deepseek_v3": "sigmoid", "glm4_moe": "sigmoid"}
"""What the stock routers compute whose published configs name it."""

SUPPORTED = tuple(_RULES)

SELECTIONS: Mapping[type, str] = {
    SoftmaxThenTopk: "softmax, then top-k",
    TopkThenSoftmax: "top-k, then softmax",
    BiasedSigmoid: "sigmoid with correction bias",
}
"""The rules by name."""
