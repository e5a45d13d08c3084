"""A folder of weights in Hugging Face layout: config.json, safetensors, and nothing that could run code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from deeptalk.backbone import Deferred
from deeptalk.backbone.banks import made
from deeptalk.backbone.checkpoint import INDEX, WEIGHTS, refuse_tensors, shard_names
from deeptalk.errors import CheckpointError
from deeptalk.shapes import Tensor

FORMAT_VERSION = 1
CONFIG, TOKENIZER, PROVENANCE = "config.json", "tokenizer.json", "provenance.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def write_folder(
    folder: Path,
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor | Deferred],
    dtype: torch.dtype,
    provenance: Mapping[str, Any],
    copies: Mapping[str, Path] | None = None,
) -> None:
    """Write weights stored as ``dtype``; files of other names in the folder stay.

    Tensors are made and converted file by file, so that beside the model one file is in memory. config.json
    leaves first and comes last, so that an interrupted save is no checkpoint at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        new = Path(unfinished)
        _write_tensors(new, tensors, dtype)
        for name, source in (copies or {}).items():
            (new / name).write_bytes(source.read_bytes())
        _write_json(new / PROVENANCE, provenance)
        _write_json(new / CONFIG, {**config, "format_version": FORMAT_VERSION, "dtype": str(dtype)[6:]})
        for old in (folder / CONFIG, *folder.glob("model*.safetensors*")):
            old.unlink(missing_ok=True)
        for path in sorted(new.iterdir(), key=lambda path: path.name == CONFIG):
            path.chmod(0o644)  # the libraries leave some private to their writer
            os.replace(path, folder / path.name)


def read_config(folder: Path, *, model_type: str) -> dict[str, Any]:
    """The settings of a folder that may be opened.

    Raises:
        CheckpointError: a file is missing or a pickle; config.json is damaged, foreign or asks to run code.
    """
    if folder.suffix in PICKLES or any(path.suffix in PICKLES for path in _children(folder)):
        found = next((path for path in _children(folder) if path.suffix in PICKLES), folder)
        raise CheckpointError(
            f"{found} is a pickle, which can run code when opened; give safetensors instead."
        )
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give one with {CONFIG} and {WEIGHTS}.")
    path = folder / CONFIG
    settings = read_json(path)
    if _asks_to_run_code(settings):
        raise CheckpointError(f"{path} asks to run code of its own (auto_map); such models are not opened.")
    if settings.get("model_type") != model_type:
        given = settings.get("model_type")
        raise CheckpointError(f"{path} says model_type {given!r}; only {model_type!r} can be opened here.")
    version = settings.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r}, this program reads {FORMAT_VERSION}; "
            "save it again with this version."
        )
    return settings


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; anything else is a `CheckpointError`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable as JSON ({error}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got a {type(values).__name__}.")
    return values


def check_tensors(folder: Path, *, expected: Mapping[str, Tensor | Deferred]) -> None:
    """Refuse a folder whose tensors aren't exactly those of ``expected`` names and shapes; nothing is loaded.

    Raises:
        CheckpointError: a file is missing or truncated; tensors are missing, unexpected or of another shape.
    """
    files = weight_files(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        shapes |= _read_shapes(path)
    _compare(files[0], shapes, {name: tuple(tensor.shape) for name, tensor in expected.items()})


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder, one or several; `CheckpointError` where its index is damaged."""
    return [folder / name for name in shard_names(folder)]


def _write_tensors(folder: Path, tensors: Mapping[str, Tensor | Deferred], dtype: torch.dtype) -> None:
    """As ``save_torch_state_dict`` of huggingface_hub, with one file's tensors in memory at a time."""
    sizes = {name: torch.empty(tensor.shape, dtype=dtype, device="meta") for name, tensor in tensors.items()}
    plan = split_torch_state_dict_into_shards(sizes)
    for file, names in plan.filename_to_tensors.items():
        part = {name: as_stored(name, tensors[name], dtype) for name in names}
        save_file(part, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        _write_json(folder / INDEX, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}).") from error


def _compare(
    path: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    wrong = [
        f"{name} {list(found[name])} instead of {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    refuse_tensors(path, {"missing": missing, "not expected": unknown, "of another shape": wrong})


def as_stored(name: str, tensor: Tensor | Deferred, dtype: torch.dtype) -> Tensor:
    """A tensor as it is written; `CheckpointError` where it holds what ``dtype`` can't."""
    stored = made(tensor).detach().to(device="cpu", dtype=dtype).contiguous()
    if not bool(stored.isfinite().all()):
        raise CheckpointError(
            f"{name} can't be stored as {dtype}: it holds NaN, infinity or too large numbers."
        )
    return stored


def _asks_to_run_code(settings: Any) -> bool:
    """Whether a setting, however deep, names classes of the checkpoint's own."""
    if isinstance(settings, dict):
        return "auto_map" in settings or any(map(_asks_to_run_code, settings.values()))
    return isinstance(settings, list) and any(map(_asks_to_run_code, settings))


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
