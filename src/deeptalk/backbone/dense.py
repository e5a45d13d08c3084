"""Stage 2.1 without the experts that it masks: the same function in a fraction of the memory.

Where every token may only use the k audio experts of a layer (section 3.3 of the paper, stage 2.1), the
others get no token and no gradient, and need not be there. With k up to the experts per token every token
uses all of them: the routed part is one SwiGLU, k times as wide as an expert, whose hidden units are
multiplied by their expert's weight. With more, a mixture of k experts remains.

Exact because a masked logit gives weight zero and gradient zero, and the softmax over what is left is the
masked softmax; only the order of sums differs. Routers, a few ten-thousandths of a layer, stay whole: each
family's own rule (groups, biases, scaling) decides as in the full model and in its numbering. Shared experts
stay beside it as the stock block has them: the stage freezes them, a common tensor would be trained as a
whole, and joining them in every step copies all weights and takes gradients that nobody needs.

Axes: k experts that a layer keeps, I their width; the others as in `deeptalk.shapes`.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from deeptalk.backbone.backbone import Backbone, config_from_dict, model_options
from deeptalk.backbone.banks import Deferred, check_whole, select_experts
from deeptalk.backbone.families import find_routers
from deeptalk.backbone.few_tokens import FEW_TOKENS, is_swiglu
from deeptalk.backbone.stored import StoredTensors, hollow, put
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor

_COUNTS = ("n_routed_experts", "num_experts", "num_local_experts")
"""What configs call the number of experts; the first that one has is what it is stored by."""


class KeptExperts(nn.Module):
    """Some experts of a layer under their numbers in the full model; takes the place of the stock module.

    The bank is a child of its own name, so that white lists name its tensors as they do those of
    `deeptalk.backbone.banks.ExpertBanks`. ``is_dense`` says whether all experts run on every token.
    """

    local: Tensor

    def __init__(self, bank: nn.Module, members: Bool[Tensor, "E"], *, num_places: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.rows = tuple(members.nonzero().flatten().tolist())
        self.is_dense = len(self.rows) <= num_places and is_swiglu(bank)
        self.add_module(name, bank)
        self.register_buffer("local", torch.where(members, members.cumsum(0) - 1, -1), persistent=False)

    @property
    def bank(self) -> Any:
        """The stock experts module that holds the kept experts only."""
        return self.get_submodule(self.name)

    def forward(
        self, hidden: Float[Tensor, "N D"], experts: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
    ) -> Float[Tensor, "N D"]:
        """The weighted sum of the chosen experts' outputs; all of them are kept ones."""
        bank, local = self.bank, self.local[experts]
        if not self.is_dense:
            return bank(hidden, local, weights)
        num_kept = len(self.rows)
        weight = weights.new_zeros(len(hidden), num_kept).scatter_add(1, local, weights)
        inner = F.linear(hidden, bank.gate_up_proj.flatten(0, 1)).unflatten(-1, (num_kept, -1))
        inner = bank._apply_gate(inner) * weight.unsqueeze(-1)
        down = bank.down_proj.transpose(0, 1).flatten(1)
        return F.linear(inner.flatten(1).to(down.dtype), down).to(hidden.dtype)


def prune_experts(backbone: Backbone, kept: Bool[Tensor, "L E"], *, name: str = "audio") -> None:
    """Leave out the experts that ``kept`` doesn't mark, in place; ``name`` is what their bank is called.

    Parameters become new objects: make the optimizer afterwards. Where memory counts, `open_pruned` never
    reads the others.

    Raises:
        ConfigError: the table isn't one of this backbone, keeps nothing or everything in some layer or not
            equally many in all, or the experts are split or pruned already.
    """
    shape = backbone.layers
    check_kept(kept, num_layers=shape.num_moe_layers, num_experts=shape.num_experts)
    check_whole(backbone)
    blocks: Any = backbone.moe_blocks()
    kept = kept.to(next(blocks[0].experts.parameters()).device)
    banks = [select_experts(block.experts, members) for block, members in zip(blocks, kept, strict=True)]
    _put_banks(backbone, banks, kept, name)


def open_pruned(
    settings: Mapping[str, Any],
    files: Iterable[Path],
    kept: Bool[Tensor, "L E"],
    *,
    prefix: str = "",
    name: str = "audio",
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    experts: str = FEW_TOKENS,
) -> Backbone:
    """Open a full checkpoint without the experts that ``kept`` doesn't mark; these are never read.

    ``settings`` is the full model's config, ``files`` its safetensors under stock names behind ``prefix``,
    with the experts of a layer stacked in one tensor, as `deeptalk.model.weights.save` writes them.

    Raises:
        ConfigError: the family isn't supported, or the table isn't one of this backbone (`prune_experts`).
        CheckpointError: a tensor is missing, of another shape, or holds numbers that are not finite.
    """
    config = config_from_dict(dict(settings))
    options = model_options(config, dtype=torch.float32, attention=attention, experts=experts)
    with hollow():
        backbone = _build(config, kept, options, name)
    stored, places = StoredTensors(files), list(_places(backbone))
    for place in places:
        stored.check(prefix + place.name, place.full_shape)
    for place in places:
        as_dtype, rows = dtype if place.is_parameter else None, place.rows if place.is_cut else None
        put(backbone.model, place.own, stored.read(prefix + place.name, dtype=as_dtype, rows=rows))
    backbone.model.tie_weights()
    return backbone


def merged_tensors(
    backbone: Backbone, files: Iterable[Path], *, prefix: str = ""
) -> dict[str, Tensor | Deferred]:
    """The full checkpoint under stock names: a pruned backbone, and the experts it left out from ``files``.

    Of stacked experts and routers the rows of kept experts are the backbone's and all others those of the
    files, bit for bit; the files are the ones it was opened from. These tensors are made when they are
    written, in main memory and in a dtype that holds both; the others are the backbone's.

    Raises:
        CheckpointError: the backbone isn't pruned, or the files are those of another one.
    """
    if backbone.kept is None:
        raise CheckpointError("the backbone is not pruned; nothing is to be merged.")
    stored, places = StoredTensors(files), list(_places(backbone))
    for place in places:
        stored.check(prefix + place.name, place.full_shape)
    return {place.name: _merged(place, stored, prefix + place.name) for place in places}


def check_kept(kept: Bool[Tensor, "L E"], *, num_layers: int, num_experts: int) -> None:
    """Refuse a table of experts to keep that isn't one of a backbone of this shape.

    Raises:
        ConfigError: another shape, or not the same number of experts from 1 to E - 1 in every layer.
    """
    if kept.dtype != torch.bool or tuple(kept.shape) != (num_layers, num_experts):
        raise ConfigError(
            f"this backbone has {num_layers} layers of {num_experts} experts; a {kept.dtype} table "
            f"{tuple(kept.shape)} of the experts to keep is one of another backbone."
        )
    counts = kept.sum(dim=-1)
    fewest, most = int(counts.min()), int(counts.max())
    if fewest != most or not 1 <= fewest < num_experts:
        raise ConfigError(
            f"every layer must keep the same number of experts, from 1 to {num_experts - 1}; "
            f"got {fewest} to {most}."
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Place:
    """A tensor of a pruned backbone, detached, its own name, and where it stands in the full checkpoint.

    ``rows`` are those of the kept experts where the full tensor has a row for each expert.
    """

    name: str
    own: str
    tensor: Tensor
    is_parameter: bool
    full_shape: tuple[int, ...]
    rows: tuple[int, ...] | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the backbone holds these rows only; of routers it holds all."""
        return tuple(self.tensor.shape) != self.full_shape


def _merged(place: _Place, stored: StoredTensors, name: str) -> Tensor | Deferred:
    """A place's tensor, or how it is made of the rows that the backbone has and those that it left out."""
    rows = place.rows
    if rows is None:
        return place.tensor

    def make() -> Tensor:
        part = (place.tensor if place.is_cut else place.tensor[list(rows)]).cpu()
        full = stored.read(name)
        both = torch.promote_types(full.dtype, part.dtype)
        return full.to(both).index_copy_(0, torch.tensor(rows), part.to(both))

    return Deferred(shape=place.full_shape, make=make)


def _places(backbone: Backbone) -> Iterator[_Place]:
    """Every tensor that is saved, each storage once."""
    experts: dict[str, Any] = {
        f"{block}.experts": backbone.model.get_submodule(f"{block}.experts") for block in backbone.block_names
    }
    routers = dict(zip(backbone.router_names, experts.values(), strict=True))
    model = backbone.model
    own = dict(model.named_parameters())
    saved = model.state_dict().keys() - model.all_tied_weights_keys.keys()
    for name, tensor in [*own.items(), *model.named_buffers()]:
        owner, _, leaf = name.rpartition(".")
        stack = owner.rpartition(".")[0]
        if stack in experts:
            shape = (backbone.layers.num_experts, *tensor.shape[1:])
            target, rows = f"{stack}.{leaf}", experts[stack].rows
        elif name in saved:
            shape = tuple(tensor.shape)
            target, rows = name, routers[owner].rows if owner in routers else None
        else:
            continue
        yield _Place(
            name=target, own=name, tensor=tensor.data, is_parameter=name in own, full_shape=shape, rows=rows
        )


def _build(config: Any, kept: Tensor, options: dict[str, Any], name: str) -> Backbone:
    """A backbone with all routers and the kept experts only: made with few experts, not cut later."""
    count = next(key for key in _COUNTS if key in config.to_dict())
    num_experts = getattr(config, count)
    check_kept(kept, num_layers=len(kept), num_experts=num_experts)
    small = copy.deepcopy(config)
    setattr(small, count, int(kept[0].sum()))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(small, **options)
    setattr(model.config, count, num_experts)
    for router_name, router in find_routers(model):
        block_name, _, leaf = router_name.rpartition(".")
        kind: Any = type(router)
        setattr(model.get_submodule(block_name), leaf, kind(model.config))
    backbone = Backbone(model)
    check_kept(kept, num_layers=backbone.layers.num_moe_layers, num_experts=num_experts)
    blocks: Any = backbone.moe_blocks()
    _put_banks(backbone, [block.experts for block in blocks], kept, name)
    return backbone


def _put_banks(backbone: Backbone, banks: list[nn.Module], kept: Tensor, name: str) -> None:
    block: Any
    for block, bank, members in zip(backbone.moe_blocks(), banks, kept, strict=True):
        places = backbone.layers.experts_per_token
        block.experts = KeptExperts(bank, members, num_places=places, name=name)
    backbone.kept = kept
