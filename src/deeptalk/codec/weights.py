"""Codecs in folders: ``config.json`` and ``model.safetensors``; SNAC's own layout is read too."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from deeptalk.codec.base import Codec
from deeptalk.codec.fake import SineCodec
from deeptalk.codec.pocket import PocketCodec, PocketCodecConfig
from deeptalk.codec.quantiser import Codebook
from deeptalk.codec.snac import SnacCodec, SnacConfig
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.shapes import Tensor

FORMAT_VERSION = 1
TRAINING_ONLY = ("usage", "sums", "seeds")


def save_codec(codec: Codec, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a codec for ``load_codec``; ``dtype`` narrows the stored weights (they load as float32).

    Raises ``CheckpointError`` for weights that ``dtype`` can't hold; nothing is written then.
    """
    folder = Path(folder)
    config, tensors = _described(codec)
    stored = {name: _as_stored(name, tensor, dtype) for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if stored:
        _replace(folder / "model.safetensors", save(stored, metadata={"format": "pt"}))
    text = json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2)
    _replace(folder / "config.json", (text + "\n").encode())


def load_codec(folder: str | Path) -> Codec:
    """Open a folder of ``save_codec``, or one with SNAC's own configuration, ready to encode and decode.

    Raises ``CheckpointError`` where files are missing, damaged, of another format or don't fit the
    configuration.
    """
    folder = Path(folder)
    given = _read_config(folder)
    if "codec" not in given and "encoder_rates" in given:  # SNAC's own layout, which has no version
        given = {"codec": "snac", "format_version": FORMAT_VERSION} | given
    kind, version = given.pop("codec", None), given.pop("format_version", None)
    if kind not in ("pocket", "snac", "sine"):
        raise CheckpointError(
            f"{folder}/config.json: codec must be pocket, snac or sine, got {kind!r}; give a codec's folder."
        )
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}/config.json: codec format {version!r} is not {FORMAT_VERSION}; save the codec again."
        )
    try:
        codec = _built(kind, given)
    except Exception as error:  # sizes that make no sense run into errors of many kinds
        raise CheckpointError(f"{folder}/config.json: {' '.join(str(error).split())}") from error
    return codec if isinstance(codec, SineCodec) else _filled(codec, folder)


def _as_stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor as it is written."""
    stored = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
    if not bool(stored.isfinite().all()):
        raise CheckpointError(
            f"{name} can't be stored as {stored.dtype}: it holds NaN, infinity or too large numbers."
        )
    return stored


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, readable as the user's other files are."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _described(codec: Codec) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if isinstance(codec, SineCodec):
        sizes = ("num_codebooks", "codebook_size", "sample_rate", "samples_per_frame")
        return {"codec": "sine", **{name: getattr(codec, name) for name in sizes}}, {}
    if isinstance(codec, PocketCodec):
        config = {"codec": "pocket", **dataclasses.asdict(codec.config)}
        tensors = {n: t for n, t in codec.state_dict().items() if not n.startswith("phone_heads.")}
        return config, {n: t for n, t in tensors.items() if n.rsplit(".", 1)[-1] not in TRAINING_ONLY}
    if isinstance(codec, SnacCodec):
        options = {"has_noise": codec.has_noise, "look_ahead_frames": codec.look_ahead_frames}
        return {"codec": "snac", **dataclasses.asdict(codec.config), **options}, codec.model.state_dict()
    raise CheckpointError(f"a codec of type {type(codec).__name__} can't be saved; use pocket, snac or sine.")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not folder.exists():
        raise CheckpointError(
            f"There is no folder {str(folder)!r} of a codec; `deeptalk convert` makes one of SNAC's."
        )
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no codec: config.json is missing.")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}).") from error
    if not isinstance(given, dict):
        raise CheckpointError(f"{path} must hold one JSON object.")
    return given


def _built(kind: str, given: dict[str, Any]) -> SineCodec | PocketCodec | SnacCodec:
    """A codec of these settings, its weights yet to be read."""
    if kind == "sine":
        return SineCodec(**given)
    if kind == "pocket":
        return PocketCodec(_from_dict(PocketCodecConfig, given))
    options = {key: given.pop(key) for key in ("has_noise", "look_ahead_frames") if key in given}
    return SnacCodec(_from_dict(SnacConfig, given), **options)


def _from_dict(kind: type, given: dict[str, Any]) -> Any:
    """A configuration from JSON: nested ones by declared type, lists as tuples, unknown keys refused."""
    types = typing.get_type_hints(kind)
    unknown = sorted(set(given) - set(types))
    if unknown:
        raise ConfigError(f"unknown settings {', '.join(unknown)}; {kind.__name__} knows {', '.join(types)}.")
    values = {}
    for name, value in given.items():
        if dataclasses.is_dataclass(types[name]) and isinstance(value, dict):
            value = _from_dict(typing.cast(type, types[name]), value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _filled(codec: PocketCodec | SnacCodec, folder: Path) -> PocketCodec | SnacCodec:
    tensors = _read_tensors(folder)
    module = codec.model if isinstance(codec, SnacCodec) else codec
    expected = module.state_dict()
    missing = sorted(n for n in set(expected) - set(tensors) if n.rsplit(".", 1)[-1] not in TRAINING_ONLY)
    foreign = sorted(set(tensors) - set(expected))
    if missing or foreign:
        raise CheckpointError(f"{folder}: weights don't fit, missing {missing[:3]}, unknown {foreign[:3]}.")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(tensor.shape)}, its configuration wants "
                f"{tuple(expected[name].shape)}."
            )
        is_number = tensor.is_floating_point() == expected[name].is_floating_point()
        if not is_number or not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{folder}: {name} holds NaN, infinity or numbers of another kind.")
    module.load_state_dict(tensors, strict=False)
    for part in module.modules():
        if isinstance(part, Codebook):
            part.rest()
    return codec.eval()


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}).") from error
    if (folder / "pytorch_model.bin").is_file():
        raise CheckpointError(
            f"{folder}/pytorch_model.bin is a pickle, which can run code; only safetensors is opened. "
            "`deeptalk convert` makes a published SNAC model one."
        )
    raise CheckpointError(f"{folder}: model.safetensors is missing.")
