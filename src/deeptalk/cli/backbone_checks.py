"""What ``deeptalk doctor`` looks at of a language model that is to hear and speak, and of every family."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from deeptalk.backbone import Backbone, open_outline
from deeptalk.backbone.checkpoint import (
    check_dtype,
    check_tensors,
    check_tokenizer,
    find_checkpoint,
    is_hub_id,
    missing_shards,
    read_settings,
    stored_tensors,
)
from deeptalk.backbone.families import SELECTIONS
from deeptalk.cli.checks import Finding
from deeptalk.cli.conformance import Conformance, conform_all
from deeptalk.cli.memory import StageMemory, plan_memory
from deeptalk.errors import DeepTalkError
from deeptalk.training.memory import GIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpus:
    """What stages are to run on: some GPUs of so many GiB each, or of an unknown size."""

    gib: float | None
    number: int = 1

    @classmethod
    def here(cls) -> "Gpus":
        """Those of this machine, the least of them counting; one of unknown size where it has none."""
        if not torch.cuda.is_available():
            return cls(gib=None)
        number = torch.cuda.device_count()
        least = min(torch.cuda.get_device_properties(i).total_memory for i in range(number))
        return cls(gib=least / GIB, number=number)


def is_backbone(name: str) -> bool:
    """Whether a name is a language model's, by its folder or its id on the hub, and no DeepTalk model's."""
    if not Path(name).is_dir():
        return is_hub_id(name)
    try:
        return not str(read_settings(Path(name)).get("model_type", "deeptalk")).startswith("deeptalk")
    except DeepTalkError:
        return False


def check_backbone(source: str, gpus: Gpus) -> Iterator[Finding]:
    """What is to become a DeepTalk model: family, sizes, files, tokenizer, and memory of each stage.

    No tensor is read, and of a model on the hub none is downloaded.
    """
    try:
        folder = find_checkpoint(source, weights=False)
        outline = open_outline(folder)
    except DeepTalkError as error:
        yield Finding(name="backbone", state="wrong", detail=str(error))
        return
    yield from (_family(outline, folder), _parts(outline))
    yield from (_weights(source, folder, outline), _tokenizer(folder, outline))
    try:
        plan = list(plan_memory(outline))
    except DeepTalkError as error:
        yield Finding(name="stages", state="wrong", detail=str(error))
        return
    yield from (_stage_memory(stage, gpus) for stage in plan)


def check_families() -> Iterator[Finding]:
    """Every supported family, taken through the whole method at a tiny size."""
    for name, result in conform_all():
        if not isinstance(result, Conformance):
            yield Finding(name=name, state="wrong", detail=str(result))
            continue
        difference = max(result.open_difference, result.stock_difference)
        logits = f"within {difference:.0e}" if difference else "equal"
        counts = f"{len(result.stages)} stages   {result.num_shards} shards"
        detail = f"{result.selection:<30}{counts}   logits {logits}"
        yield Finding(name=name, state="ok", detail=detail, figures=asdict(result))


def _family(outline: Backbone, folder: Path) -> Finding:
    shape, rule = outline.layers, type(outline.hooks[0].rule)
    router = type(outline.model.get_submodule(outline.router_names[0])).__name__
    family = outline.model.config.model_type
    figures = {
        "family": family,
        "router": router,
        "selection": SELECTIONS[rule],
        "num_moe_layers": shape.num_moe_layers,
        "num_experts": shape.num_experts,
        "experts_per_token": shape.experts_per_token,
    }
    detail = (
        f"{folder}: {family}, {SELECTIONS[rule]} ({router}); {shape.num_moe_layers} layers of "
        f"{shape.num_experts} experts, {shape.experts_per_token} per token"
    )
    return Finding(name="backbone", state="ok", detail=detail, figures=figures)


def _parts(outline: Backbone) -> Finding:
    shape = outline.layers
    total = sum(tensor.numel() for tensor in outline.model.parameters())
    blocks: Any = outline.moe_blocks()
    routed = sum(tensor.numel() for block in blocks for tensor in block.experts.parameters())
    expert = routed // (shape.num_moe_layers * shape.num_experts)
    audio = expert * shape.num_moe_layers * shape.experts_per_token
    figures = {
        "total": total,
        "one_expert": expert,
        "audio_experts": audio,
        "text_experts": routed - audio,
        "other": total - routed,
    }
    detail = (
        f"{total:,} ({expert:,} an expert; with {shape.experts_per_token} experts for audio: {audio:,} in "
        f"audio experts, {routed - audio:,} in text experts, {total - routed:,} in the rest)"
    )
    return Finding(name="parameters", state="ok", detail=detail, figures=figures)


def _weights(source: str, folder: Path, outline: Backbone) -> Finding:
    try:
        missing = missing_shards(folder)
        if missing and not Path(source).is_dir():
            detail = f"{len(missing)} files not downloaded yet; the first use does it"
            return Finding(name="weights", state="absent", detail=detail)
        stored, settings = stored_tensors(folder), read_settings(folder)
        check_dtype(folder, settings, stored)
        if not settings.get("quantization_config"):
            check_tensors(folder, outline.model, stored)
    except DeepTalkError as error:
        return Finding(name="weights", state="wrong", detail=str(error))
    num_bytes = sum(tensor.num_bytes for tensor in stored.values())
    dtypes = sorted({tensor.dtype for tensor in stored.values()})
    figures = {"num_tensors": len(stored), "num_bytes": num_bytes, "dtypes": dtypes}
    detail = f"{len(stored):,} tensors, {num_bytes / GIB:.1f} GiB as {', '.join(dtypes)}; each has its place"
    return Finding(name="weights", state="ok", detail=detail, figures=figures)


def _tokenizer(folder: Path, outline: Backbone) -> Finding:
    config: Any = outline.model.config
    try:
        size = check_tokenizer(folder, config)
    except DeepTalkError as error:
        return Finding(name="tokenizer", state="wrong", detail=str(error))
    detail = (
        f"{size:,} ids, the text table has {config.vocab_size:,} rows; texts begin with "
        f"{config.bos_token_id}, end with {config.eos_token_id}"
    )
    return Finding(name="tokenizer", state="ok", detail=detail, figures={"num_ids": size})


def _stage_memory(stage: StageMemory, gpus: Gpus) -> Finding:
    ways = {"one GPU": stage.one_gpu_bytes, "one with 8-bit states": stage.one_gpu_8bit_bytes}
    if gpus.number > 1:
        ways |= {
            f"each of {gpus.number} (ZeRO-2)": stage.zero2_bytes(gpus.number),
            f"each of {gpus.number} (ZeRO-3, FSDP2)": stage.zero3_bytes(gpus.number),
            f"each of {gpus.number} (--expert-parallel)": stage.expert_parallel_bytes(gpus.number),
        }
    fits = None if gpus.gib is None else min(ways.values()) <= gpus.gib * GIB
    sizes = ", ".join(f"{num_bytes / GIB:.1f} GiB on {way}" for way, num_bytes in ways.items())
    detail = (
        f"{stage.num_trained / 1e9:.2f} of {stage.num_parameters / 1e9:.2f} B parameters train: {sizes}"
        + (f"; more than the {gpus.gib:.4g} GiB of a GPU" if fits is False else "")
    )
    figures = {
        **asdict(stage),
        "num_gpus": gpus.number,
        "one_gpu_bytes": stage.one_gpu_bytes,
        "one_gpu_8bit_bytes": stage.one_gpu_8bit_bytes,
        "zero2_bytes": stage.zero2_bytes(gpus.number),
        "zero3_bytes": stage.zero3_bytes(gpus.number),
        "expert_parallel_bytes": stage.expert_parallel_bytes(gpus.number),
        "fits": fits,
    }
    state = "wrong" if fits is False else "ok"
    return Finding(name=f"stage {stage.stage}", state=state, detail=detail, figures=figures)
