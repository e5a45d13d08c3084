"""What ``deeptalk doctor`` looks at; each check tells findings and never raises for what it looks for."""

import importlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

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
from deeptalk.cli.conformance import Conformance, conform_all
from deeptalk.cli.memory import GIB, StageMemory, plan_memory
from deeptalk.data.manifest import Kind, read_manifest
from deeptalk.decoding import LoadedModel, load
from deeptalk.errors import DeepTalkError
from deeptalk.model.weights import model_folder

MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at; ``absent`` is a part that only some verbs need.

    ``figures`` are what ``detail`` says in words, where that is numbers that a program may want.
    """

    name: str
    state: Literal["ok", "absent", "wrong"]
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpus:
    """What stages are to run on: some GPUs of so many GiB each."""

    gib: float
    number: int = 1

    @classmethod
    def here(cls) -> "Gpus | None":
        """Those of this machine, if it has any."""
        if not torch.cuda.is_available():
            return None
        least = min(
            torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
        )
        return cls(gib=least / GIB, number=torch.cuda.device_count())


def check_machine() -> Iterator[Finding]:
    """Versions, processors and what the optional parts need."""
    for package in ("torch", "transformers", "tokenizers", "accelerate", "soundfile"):
        yield Finding(name=package, state="ok", detail=importlib.metadata.version(package))
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    yield Finding(name="device", state="ok", detail=device)
    for program in ("flite", "espeak-ng"):
        yield _optional(program, shutil.which(program) is not None, "makes training data: make synthesisers")
    for module, use in (
        ("pocketsphinx", "judges speech: pip install 'deeptalk[judge]'"),
        ("sounddevice", "plays and records: pip install 'deeptalk[mic]', apt-get install libportaudio2"),
        ("matplotlib", "draws loads: pip install 'deeptalk[plots]'"),
    ):
        yield _optional(module, _is_importable(module), use)


def check_model(name: str) -> Iterator[Finding]:
    """Keys and shapes of a checkpoint, its codec's clock, its partition, its memory, and one spoken turn."""
    try:
        loaded = load(name)
    except DeepTalkError as error:
        yield Finding(name="model", state="wrong", detail=str(error))
        return
    folder = model_folder(name)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    yield Finding(name="model", state="ok", detail=f"{folder}, {megabytes:.1f} MB on disk")
    yield from (_sizes(loaded), _clock(loaded), _experts(loaded), _memory(loaded), _turn(loaded))


def is_backbone(name: str) -> bool:
    """Whether a name is a language model's, by its folder or its id on the hub, and no DeepTalk model's."""
    if not Path(name).is_dir():
        return is_hub_id(name)
    try:
        return not str(read_settings(Path(name)).get("model_type", "deeptalk")).startswith("deeptalk")
    except DeepTalkError:
        return False


def check_backbone(source: str, gpus: Gpus | None) -> Iterator[Finding]:
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
    yield from (_stage_memory(stage, gpus) for stage in plan_memory(outline))


def check_families() -> Iterator[Finding]:
    """Every supported family, taken through the whole method at a tiny size."""
    for name, result in conform_all():
        if not isinstance(result, Conformance):
            yield Finding(name=name, state="wrong", detail=str(result))
            continue
        figures = asdict(result)
        detail = (
            f"{result.selection:<30}{len(result.stages)} stages   {result.num_shards} shards   logits within "
            f"{max(result.open_difference, result.stock_difference):.0e}"
        )
        yield Finding(name=name, state="ok", detail=detail, figures=figures)


def check_data(folder: Path) -> Iterator[Finding]:
    """Every manifest of a folder: how many records can be used, and why others can't."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        yield Finding(name="data", state="wrong", detail=f"{folder}: no manifests; run deeptalk prepare.")
    for path in paths:
        kind = _kind_of(path)
        if kind is None:
            yield Finding(name=path.name, state="wrong", detail="the first line is no record of a known kind")
            continue
        content = read_manifest(path, kind=kind)
        rejects = ", ".join(f"{count} {reason}" for reason, count in content.rejects.items())
        yield Finding(
            name=path.name,
            state="wrong" if rejects else "ok",
            detail=f"{len(content.records):,} records ({kind})"
            + (f"; left out: {rejects}" if rejects else ""),
        )


def _sizes(loaded: LoadedModel) -> Finding:
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in loaded.model.named_children()}
    detail = ", ".join(f"{name} {count:,}" for name, count in parts.items())
    return Finding(name="parameters", state="ok", detail=f"{sum(parts.values()):,} ({detail})")


def _clock(loaded: LoadedModel) -> Finding:
    codec = loaded.codec
    frame = 1000 * codec.samples_per_frame / codec.sample_rate
    detail = (
        f"{codec.num_codebooks} x {codec.codebook_size} codes every {frame:.1f} ms at {codec.sample_rate} Hz"
    )
    return Finding(name="codec", state="ok", detail=detail)


def _experts(loaded: LoadedModel) -> Finding:
    shape, model = loaded.model.backbone.layers, loaded.model
    size = (
        f"{shape.num_moe_layers} layers of {shape.num_experts} experts, {shape.experts_per_token} per token"
    )
    if model.config.audio_experts is None and model.config.extra_experts is None:
        return Finding(name="experts", state="ok", detail=f"{size}, not divided")
    try:
        counts = model.is_audio().sum(dim=1).tolist()
    except DeepTalkError as error:
        return Finding(name="experts", state="wrong", detail=str(error))
    is_wide = all(shape.experts_per_token <= n <= shape.num_experts - shape.experts_per_token for n in counts)
    detail = f"{size}, {min(counts)} to {max(counts)} of them for audio"
    return Finding(name="experts", state="ok" if is_wide else "wrong", detail=detail)


def _memory(loaded: LoadedModel) -> Finding:
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters()) / MIB
    return Finding(
        name="memory",
        state="ok",
        detail=f"{weights:.0f} MiB of weights; training takes about four times as much",
    )


def _turn(loaded: LoadedModel) -> Finding:
    started = time.perf_counter()
    conversation = loaded.conversation()
    for _ in conversation.read_aloud("hello"):
        pass
    reply, seconds = conversation.last_reply, time.perf_counter() - started
    state = "ok" if reply.num_frames else "wrong"
    return Finding(
        name="one turn", state=state, detail=f"{reply.num_frames} frames of speech in {seconds:.2f} s"
    )


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


def _stage_memory(stage: StageMemory, gpus: Gpus | None) -> Finding:
    number = gpus.number if gpus else 1
    ways = {"one GPU": stage.one_gpu_bytes}
    if number > 1:
        ways |= {
            f"each of {number} (ZeRO-2)": stage.zero2_bytes(number),
            f"each of {number} (ZeRO-3, FSDP2)": stage.zero3_bytes(number),
        }
    detail = (
        f"{stage.num_trained / 1e9:.2f} of {stage.num_parameters / 1e9:.2f} B parameters train: "
        + ", ".join(f"{num_bytes / GIB:.1f} GiB on {way}" for way, num_bytes in ways.items())
    )
    fits = None if gpus is None else min(ways.values()) <= gpus.gib * GIB
    if gpus is not None:
        detail += "" if fits else f"; more than the {gpus.gib:.4g} GiB of a GPU"
    figures = {
        **asdict(stage),
        "num_gpus": number,
        "one_gpu_bytes": stage.one_gpu_bytes,
        "zero2_bytes": stage.zero2_bytes(number),
        "zero3_bytes": stage.zero3_bytes(number),
        "fits": fits,
    }
    state = "wrong" if fits is False else "ok"
    return Finding(name=f"stage {stage.stage}", state=state, detail=detail, figures=figures)


def _kind_of(path: Path) -> Kind | None:
    with path.open(encoding="utf-8") as file:
        try:
            record = json.loads(file.readline())
        except json.JSONDecodeError:
            return None
    if not isinstance(record, dict):
        return None
    if "messages" in record:
        return "dialogue"
    if "win" in record:
        return "preference"
    if "audio" in record:
        return "recording"
    return "sentence" if "text" in record else None


def _is_importable(module: str) -> bool:
    """Whether a module and the libraries of the system that it needs are there."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        return False
    return True


def _optional(name: str, is_there: bool, use: str) -> Finding:
    return Finding(name=name, state="ok" if is_there else "absent", detail="found" if is_there else use)
