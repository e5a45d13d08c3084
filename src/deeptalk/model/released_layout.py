"""Where each tensor of the authors' released checkpoints stands in ours (method.md, 6.1 and 6.3).

Both are taken apart into the same pieces, under our names: experts one by one, and one table of all ids.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from deeptalk.backbone import Deferred
from deeptalk.errors import CheckpointError
from deeptalk.shapes import Tensor
from deeptalk.streams.layout import StreamLayout

TABLE, HEAD = "table", "head"
_ROOMS = ("encoder.", "adapter.", "backbone.")
_TEXT_TABLE = "backbone.model.embed_tokens.weight"

_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(?:\w+\.)*audio_encoder\.(?:encoder\.)?(.+)", r"encoder.\1"),
        (r"(?:\w+\.)*audio_mm_projector\.fc_1\.weight", "adapter.body.gate.weight"),
        (r"(?:\w+\.)*audio_mm_projector\.fc_2\.weight", "adapter.body.up.weight"),
        (r"(?:\w+\.)*audio_mm_projector\.proj\.weight", "adapter.body.down.weight"),
        (r"(?:model\.)*embed_tokens\.weight", TABLE),
        (r"lm_head\.weight", HEAD),
        (r"(?:model\.)*(layers\.\d+\..+|norm\.weight)", r"backbone.model.\1"),
    )
)  # fmt: skip
_STACKED = re.compile(r"(.+\.experts)\.(gate_up_proj|down_proj)")
_MATRICES = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}


def our_name(name: str) -> str:
    """The name here of a tensor of theirs; its own where no pattern knows it."""
    for pattern, ours in _NAMES:
        if found := pattern.fullmatch(name):
            return found.expand(ours)
    return name


def pieces_of_theirs(source: Path, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names, experts one by one; table and head must be the same."""
    parts: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        own = our_name(name)
        parts[name if own in parts else own] = tensor
    head = parts.pop(HEAD, None)
    if head is not None and not (TABLE in parts and torch.equal(head, parts[TABLE])):
        raise CheckpointError(f"{source}: lm_head isn't the table of embeddings, as it is in the release.")
    return parts


def pieces_of_ours(ours: Mapping[str, Tensor], layout: StreamLayout) -> dict[str, Tensor]:
    """Our tensors as their pieces: experts one by one, one table. The inverse of `ours_of_pieces`."""
    parts: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        stacked = _STACKED.fullmatch(name)
        if stacked is None:
            parts[name] = tensor
            continue
        prefix, kind = stacked.groups()
        for expert, matrix in enumerate(tensor):
            for leaf, piece in zip(_MATRICES[kind], matrix.chunk(len(_MATRICES[kind])), strict=True):
                parts[f"{prefix}.{expert}.{leaf}.weight"] = piece
    tables = [parts.pop(f"embedding.codec.{i}.weight") for i in range(layout.num_codebooks)]
    parts[TABLE] = torch.cat([parts.pop(_TEXT_TABLE), *tables])
    return {n: t for n, t in parts.items() if not n.startswith(("embedding.", "heads."))}


def ours_of_pieces(
    parts: Mapping[str, Tensor], expected: Mapping[str, Tensor], layout: StreamLayout, extra_rows: list[int]
) -> dict[str, Tensor | Deferred]:
    """The tensors of our folder from their pieces; experts are stacked when they are written."""
    text, audio = parts[TABLE].split([layout.vocab_size, layout.num_codebooks * layout.audio_rows])
    tables = audio.unflatten(0, (layout.num_codebooks, layout.audio_rows))
    ours: dict[str, Tensor | Deferred] = {
        _TEXT_TABLE: text.clone(),
        "embedding.text_extra": text[extra_rows],
    }
    for i, table in enumerate(tables):  # a file holds no tensor twice
        ours |= {f"{end}.codec.{i}.weight": table.clone() for end in ("embedding", "heads")}
    for name, tensor in expected.items():
        if stacked := _STACKED.fullmatch(name):
            prefix, kind = stacked.groups()
            matrices = [
                [parts[f"{prefix}.{expert}.{leaf}.weight"] for leaf in _MATRICES[kind]]
                for expert in range(len(tensor))
            ]
            ours[name] = Deferred(shape=tuple(tensor.shape), make=partial(_stack, matrices))
        elif name not in ours:
            ours[name] = parts[name]
    return ours


def _stack(matrices: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.cat(expert) for expert in matrices])


def shape_of(parts: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a piece on which sizes depend; without it, all tensors of unknown names are listed."""
    if name not in parts:
        unknown = sorted(n for n in parts if n != TABLE and not n.startswith(_ROOMS))
        raise CheckpointError(f"No tensor is {name}; without a place are {', '.join(unknown) or 'none'}.")
    return tuple(parts[name].shape)


def check_pieces(
    source: Path, theirs: Mapping[str, Tensor], parts: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Refuse tensors that don't fit one to one; all of them are listed, theirs by their own names."""
    named = {our_name(name): name for name in theirs}
    left, missing = sorted(parts.keys() - wanted.keys()), sorted(wanted.keys() - parts.keys())
    faults = {
        "without a place": [f"{named.get(n, n)} {list(parts[n].shape)}" for n in left],
        "missing": [f"{n} {list(wanted[n].shape)}" for n in missing],
        "of another shape": [
            f"{named[n]} {list(parts[n].shape)} instead of {list(wanted[n].shape)}"
            for n in sorted(parts.keys() & wanted.keys())
            if parts[n].shape != wanted[n].shape
        ],
        "no floats": [name for name in sorted(theirs) if not theirs[name].is_floating_point()],
    }
    told = [f"{len(names)} {what} ({', '.join(names)})" for what, names in faults.items() if names]
    if told:
        raise CheckpointError(f"{source} doesn't fit the released layout: tensors {'; '.join(told)}.")
