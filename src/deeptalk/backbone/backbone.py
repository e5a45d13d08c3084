"""A stock mixture-of-experts language model that can be told which experts each token may use."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)

from deeptalk.backbone.cache_argument import cache_argument
from deeptalk.backbone.checkpoint import (
    check_dtype,
    check_room,
    check_tensors,
    find_checkpoint,
    read_settings,
    stored_tensors,
)
from deeptalk.backbone.families import check_family, find_moe_layers
from deeptalk.backbone.few_tokens import FEW_TOKENS
from deeptalk.backbone.router import RouterHook, RouterMask, RouterOutput, RoutingCall, RoutingScope
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MoeShape:
    """How many layers have experts, how many experts each of them has, and how many a token uses."""

    num_moe_layers: int
    num_experts: int
    experts_per_token: int


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: DeepSpeed reads what modules give by vars()
class BackboneOutput:
    """Hidden states after the last norm; router decisions per MoE layer over B·T tokens, where collected.

    ``layers`` holds the states after the layers that `Backbone.keep` names.
    """

    hidden: Float[Tensor, "B T D"]
    router: tuple[RouterOutput, ...] | None
    cache: DynamicCache | None
    layers: Mapping[int, Float[Tensor, "B T D"]] = field(default_factory=dict)


class Backbone(nn.Module):
    """Wraps a stock ``*ForCausalLM``; with no mask given it computes exactly what the stock model does.

    ``kept`` is None, or the table ``[L, E]`` of the experts that a pruned backbone still has
    (`deeptalk.backbone.dense`); its tokens use no others, with or without a mask.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        layers = find_moe_layers(model)
        self.model = model
        router: Any = layers[0].router
        self.layers = MoeShape(
            num_moe_layers=len(layers), num_experts=router.num_experts, experts_per_token=router.top_k
        )
        self.kept: Tensor | None = None
        self._scope = RoutingScope()
        self._kept: dict[int, Tensor] = {}
        self.block_names = tuple(layer.block_name for layer in layers)
        self.router_names = tuple(layer.router_name for layer in layers)
        self.hooks = tuple(
            RouterHook(scope=self._scope, layer=index, rule=layer.rule) for index, layer in enumerate(layers)
        )
        for layer, hook in zip(layers, self.hooks, strict=True):
            layer.router.register_forward_hook(hook)

    @property
    def embed_tokens(self) -> nn.Embedding:
        """The stock text table ``[V, D]``."""
        table: Any = self.model.get_input_embeddings()
        return table

    @property
    def lm_head(self) -> nn.Linear:
        """The stock text head ``D -> V``."""
        head: Any = self.model.get_output_embeddings()
        return head

    @property
    def hidden_size(self) -> int:
        """The model width D."""
        return self.model.config.hidden_size

    def moe_blocks(self) -> tuple[nn.Module, ...]:
        """The stock blocks that hold a router and experts, first layer to last."""
        return tuple(self.model.get_submodule(name) for name in self.block_names)

    def decoder_layers(self) -> tuple[nn.Module, ...]:
        """The stock decoder layers, first to last."""
        stack: Any = self.model.base_model
        return tuple(stack.layers)

    def keep(self, *layers: int) -> None:
        """Let every forward give the states after these decoder layers too; 1 is the first.

        For losses in the middle of the stack; call it before ``compile_layers``.
        """
        stack: Any = self.model.base_model.layers
        for layer in layers:
            if not 1 <= layer <= len(stack):
                raise ConfigError(f"the backbone has layers 1 to {len(stack)}, got {layer}.")

            def hook(module: nn.Module, args: tuple, output: Any, *, layer: int = layer) -> None:
                self._kept[layer] = output[0] if isinstance(output, tuple) else output

            stack[layer - 1].register_forward_hook(hook)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        groups: Int[Tensor, "B T"] | None = None,
        router_mask: RouterMask | None = None,
        cache: DynamicCache | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        collect: bool = False,
    ) -> BackboneOutput:
        """Hidden states of embedded positions.

        ``mask`` is False on padding and spans the cached positions too where a cache is given; leave it out
        when all rows have the same length. ``groups`` and ``router_mask`` come together; with extra experts
        ``groups`` may come alone. ``cache`` is extended in place.
        """
        call = self._routing_call(groups, router_mask, x, collect)
        with self._scope.open(call):
            output = self.model.base_model(
                inputs_embeds=x,
                attention_mask=_attention_mask(mask, cache),
                position_ids=position_ids,
                use_cache=cache is not None,
                **{cache_argument(type(self.model.base_model)): cache},
            )
        router = None
        if call.collected is not None:
            router = tuple(call.collected[layer] for layer in range(self.layers.num_moe_layers))
        layers, self._kept = self._kept, {}
        return BackboneOutput(hidden=output.last_hidden_state, router=router, cache=cache, layers=layers)

    def compile_layers(self) -> None:
        """Let `torch.compile` fuse what lies between the matrix products; a minute at the first steps.

        Shapes stay free, so that batches of all sizes share one compilation.
        """
        self.model.base_model.compile(dynamic=True)

    def enable_checkpointing(self) -> None:
        """Recompute layers in the backward pass, with the routing of the forward, to save memory."""
        options = {"use_reentrant": False, "context_fn": self._recomputing}
        model: Any = self.model
        is_renamed = hasattr(model, "activation_checkpointing_enable")  # its only name from transformers 6 on
        enable = model.activation_checkpointing_enable if is_renamed else model.gradient_checkpointing_enable
        enable(options)

    def recompute_experts(self) -> None:
        """Recompute the blocks of experts alone: most of what is kept, at less cost than whole layers."""
        for block in self.moe_blocks():
            block.forward = partial(self._recomputed, block.forward)

    def _recomputed(self, forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=self._recomputing, **options)

    def _recomputing(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Around a forward and around its repetition, which routes as it did and collects nothing."""
        call = replace(self._scope.call, collected=None)
        return nullcontext(), self._scope.open(call)

    def _routing_call(
        self, groups: Tensor | None, router_mask: RouterMask | None, x: Tensor, collect: bool
    ) -> RoutingCall:
        collected = {} if collect else None
        if router_mask is None and groups is None:
            if self.kept is None:
                return RoutingCall(collected=collected)
            groups = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
            router_mask = RouterMask(table=self.kept[None])
        if groups is None or (router_mask is None and self.hooks[0].extra is None):
            raise ConfigError("groups and router_mask belong together; give both or neither.")
        expected = (self.layers.num_moe_layers, self.layers.num_experts)
        shape = expected if router_mask is None else tuple(router_mask.table.shape[1:])
        if shape != expected or groups.shape != x.shape[:2]:
            raise ConfigError(
                f"router mask [G, {expected[0]}, {expected[1]}] and groups {tuple(x.shape[:2])} are needed, "
                f"got [G, {', '.join(map(str, shape))}] and {tuple(groups.shape)}."
            )
        if router_mask is None:
            return RoutingCall(groups=groups.reshape(-1), collected=collected)
        table = router_mask.table
        if self.kept is not None and bool((table & ~self.kept.to(table.device)).any()):
            raise ConfigError("the router mask allows experts that this pruned backbone has left out.")
        return RoutingCall(mask=router_mask.to(x.device), groups=groups.reshape(-1), collected=collected)


def _attention_mask(mask: Tensor | None, cache: DynamicCache | None) -> Tensor | None:
    """Padding on the right is invisible to causal attention, so a mask that says only this is left out."""
    if mask is None:
        return None
    is_right_padded = cache is None and bool((mask[:, 1:] <= mask[:, :-1]).all())
    return None if is_right_padded else mask


def open_backbone(
    source: str | Path | dict[str, Any] | PreTrainedConfig,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    experts: str = FEW_TOKENS,
) -> Backbone:
    """Open a checkpoint by its folder or its id on the hub, or make a random model from a config.

    ``attention`` and ``experts`` name implementations registered with ``transformers``; without the former
    it is the family's fastest. Weights are read as ``dtype`` whatever they are stored in, unpacked where they
    are quantised in a format of `checkpoint.UNPACKED`.

    Raises:
        CheckpointError: the checkpoint can't be found or used.
        ConfigError: the model isn't supported.
    """
    if isinstance(source, str | Path):
        return Backbone(_load(source, dtype=dtype, attention=attention, experts=experts))
    config = source if isinstance(source, PreTrainedConfig) else config_from_dict(source)
    check_family(config.to_dict())
    options = model_options(config, dtype=dtype, attention=attention, experts=experts)
    return Backbone(AutoModelForCausalLM.from_config(config, **options))


def open_outline(source: Path | PreTrainedConfig) -> Backbone:
    """A backbone without numbers, on the meta device: names and sizes of what a folder or a config describes.

    Raises:
        CheckpointError: the folder has no readable config.json.
        ConfigError: the model isn't supported.
    """
    config = source if isinstance(source, PreTrainedConfig) else config_from_dict(read_settings(source))
    with torch.device("meta"):
        return open_backbone(config)


def _load(source: str | Path, *, dtype: torch.dtype, attention: str | None, experts: str) -> PreTrainedModel:
    folder = find_checkpoint(source)
    settings = read_settings(folder)
    config = config_from_dict(settings)
    stored = stored_tensors(folder)
    check_dtype(folder, settings, stored)
    check_room(folder, sum(prod(tensor.shape) for tensor in stored.values()) * dtype.itemsize)
    options = model_options(config, dtype=dtype, attention=attention, experts=experts)
    is_packed = bool(settings.get("quantization_config"))
    if not is_packed:
        with torch.device("meta"):
            check_tensors(folder, AutoModelForCausalLM.from_config(config), stored, is_exact=False)
    if is_packed:
        config.quantization_config = {**settings["quantization_config"], "dequantize": True}
    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} can't be opened: {' '.join(str(error).split())}") from error
    model, report = opened
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} tensors, first {missing[0]}.")
    if is_packed:
        model._weight_conversions = None  # saving would pack the names again, but not the numbers
        for parameter in model.parameters():  # transformers 5.17 unpacks MXFP4 to bf16 whatever is asked for
            if parameter.dtype == torch.bfloat16 != dtype:
                parameter.data = parameter.data.to(dtype)
    return model


def model_options(
    config: PreTrainedConfig, *, dtype: torch.dtype, attention: str | None, experts: str
) -> dict[str, Any]:
    """Which implementations a stock model of ``config`` is made with; by default its fastest attention."""
    if attention is None:
        stock: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        attention = "sdpa" if stock._supports_sdpa else "eager"
    return {"dtype": dtype, "attn_implementation": attention, "experts_implementation": experts}


def config_from_dict(settings: dict[str, Any]) -> PreTrainedConfig:
    """A config of `transformers` from its plain values; `ConfigError` where they don't fit."""
    check_family(settings)
    settings = dict(settings)
    try:
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    except Exception as error:  # the strict configs raise a family of their own
        raise ConfigError(f"backbone config is not valid: {error}") from error
