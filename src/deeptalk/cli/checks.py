"""What ``deeptalk doctor`` looks at; each check tells findings and never raises for what it looks for."""

import importlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from deeptalk.data.manifest import kind_of, read_manifest
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


def check_data(folder: Path) -> Iterator[Finding]:
    """Every manifest of a folder: how many records can be used, and why others can't."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        yield Finding(name="data", state="wrong", detail=f"{folder}: no manifests; run deeptalk prepare.")
    for path in paths:
        if not path.stat().st_size:
            yield Finding(name=path.name, state="absent", detail="no records")
            continue
        first = _first_record(path)
        if {"question", "answers"} <= first.keys():
            yield Finding(name=path.name, state="ok", detail="questions to ask (deeptalk eval)")
            continue
        kind = kind_of(first)
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


def _first_record(path: Path) -> dict[str, Any]:
    """The first record of a manifest; an empty one where its first line is no object."""
    with path.open(encoding="utf-8") as file:
        try:
            record = json.loads(file.readline())
        except json.JSONDecodeError:
            return {}
    return record if isinstance(record, dict) else {}


def _is_importable(module: str) -> bool:
    """Whether a module and the libraries of the system that it needs are there."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        return False
    return True


def _optional(name: str, is_there: bool, use: str) -> Finding:
    return Finding(name=name, state="ok" if is_there else "absent", detail="found" if is_there else use)
