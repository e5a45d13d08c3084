"""Models without the experts that stage 2.1 masks: loaded without them, and saved as whole models."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deeptalk.backbone import merged_tensors, open_pruned
from deeptalk.backbone.checkpoint import refuse_tensors
from deeptalk.backbone.stored import StoredTensors, fill, hollow
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.folder import CONFIG, TOKENIZER, read_config, weight_files, write_folder
from deeptalk.model.weights import MODEL_TYPE, model_folder, tensors_beside_backbone
from deeptalk.shapes import Bool, Tensor
from deeptalk.streams.text import TextTokenizer

_BACKBONE = "backbone."


def load_pruned(
    name_or_path: str | Path, kept: Bool[Tensor, "L E"], *, dtype: torch.dtype = torch.float32
) -> DeepTalk:
    """Load a model with the audio experts that ``kept`` marks and no others; these are never in memory.

    It trains stage 2.1 and does nothing else: all its tokens use audio experts. ``kept`` becomes the
    partition in its config.

    Raises:
        CheckpointError: the folder is incomplete, damaged, unsafe or of another format.
        ConfigError: ``kept`` is the partition of another backbone, or the model has copies of experts.
    """
    folder = model_folder(name_or_path)
    settings = read_config(folder, model_type=MODEL_TYPE)
    try:
        config = DeepTalkConfig.from_dict(settings)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    if config.extra_experts is not None:
        raise ConfigError(f"{folder} has copies of experts beside its own; no expert of it can be left out.")
    backbone = open_pruned(config.backbone, weight_files(folder), kept, prefix=_BACKBONE, dtype=dtype)
    experts = tuple(tuple(layer.nonzero().flatten().tolist()) for layer in kept)
    with hollow():
        model = DeepTalk(
            replace(config, audio_experts=experts),
            backbone=backbone,
            tokenizer=TextTokenizer(folder / TOKENIZER),
        )
    stored, expected = StoredTensors(weight_files(folder)), tensors_beside_backbone(model)
    found = {name for name in stored if not name.startswith(_BACKBONE)}
    missing, unknown = sorted(expected.keys() - found), sorted(found - expected.keys())
    refuse_tensors(folder, {"missing": missing, "not expected": unknown})
    for name, tensor in expected.items():
        stored.check(name, tuple(tensor.shape))
    fill(model, {name: name for name in expected}, stored, dtype=dtype)
    return model.eval()


def save_pruned(
    model: DeepTalk,
    folder: str | Path,
    *,
    base: str | Path,
    tokenizer_path: str | Path,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model of `load_pruned` as `deeptalk.model.weights.save` writes a whole one.

    The experts that it lacks, and their rows in the routers, are those of ``base``, bit for bit: the folder
    that it was loaded from. They are read tensor by tensor; beside the model one file is in memory.

    Raises:
        CheckpointError: the tokenizer or ``base`` is missing or another model's; nothing is written then.
    """
    if not Path(tokenizer_path).is_file():
        raise CheckpointError(f"{tokenizer_path} is missing: a model is saved with its {TOKENIZER}.")
    files = weight_files(model_folder(base))
    merged = merged_tensors(model.backbone, files, prefix=_BACKBONE)
    tensors = {**tensors_beside_backbone(model), **{_BACKBONE + name: t for name, t in merged.items()}}
    write_folder(
        Path(folder),
        config={"model_type": MODEL_TYPE, "architectures": ["DeepTalk"], **model.config.to_dict()},
        tensors=tensors,
        dtype=dtype,
        provenance=provenance,
        copies={TOKENIZER: Path(tokenizer_path)},
    )
