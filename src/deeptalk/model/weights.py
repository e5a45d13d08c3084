"""Models on disk: load by name or path, and save; a damaged or foreign checkpoint is refused."""

from collections.abc import Mapping
from importlib.resources import files as resources
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deeptalk.backbone import Backbone, Deferred, fused_tensors, open_backbone, open_stacked
from deeptalk.backbone.checkpoint import check_room
from deeptalk.backbone.extra import is_extra_name
from deeptalk.backbone.stock import quiet, save_stock, stock_hash
from deeptalk.backbone.stored import StoredTensors, fill, hollow
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.model.folder import (
    CONFIG,
    TOKENIZER,
    as_stored,
    check_tensors,
    read_config,
    weight_files,
    write_folder,
)
from deeptalk.shapes import Tensor
from deeptalk.streams.text import TextTokenizer

MODEL_TYPE, ENCODER_TYPE = "deeptalk", "deeptalk_encoder"
PACKAGED = ("pocket",)
STOCK = "backbone"
"""The subfolder in which a lossless model keeps its backbone, as it was before any stage of speech."""

_BACKBONE = "backbone."
_STOCK_HASH = "backbone_hash"


def load(
    name_or_path: str | Path,
    *,
    split: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> DeepTalk:
    """Load a packaged model by name (``pocket``) or any model by its folder, ready for use.

    ``split`` divides the experts into their text and audio banks, as training wants them. Weights are read
    tensor by tensor as ``dtype``: beside the model itself one tensor is in memory.

    Raises:
        CheckpointError: the folder is incomplete, damaged, unsafe or of another format.
    """
    folder = model_folder(name_or_path)
    settings = read_config(folder, model_type=MODEL_TYPE)
    tokenizer = TextTokenizer(folder / TOKENIZER)
    try:
        config = DeepTalkConfig.from_dict(settings)
        outline = _outline(config)
    except Exception as error:  # sizes that make no sense run into errors of many kinds
        raise CheckpointError(f"{folder / CONFIG}: {' '.join(str(error).split())}") from error
    if tokenizer.vocab_size > config.layout.vocab_size:
        raise CheckpointError(
            f"{folder / TOKENIZER} has {tokenizer.vocab_size} ids, the model's text table "
            f"{config.layout.vocab_size} rows."
        )
    expected = _stored_tensors(outline)
    stock, delta = _parted(expected)
    check_tensors(folder, expected=delta if config.is_lossless else expected)
    check_room(folder, sum(prod(tensor.shape) for tensor in expected.values()) * dtype.itemsize)
    files = weight_files(folder)
    if config.is_lossless:
        backbone = _open_stock(folder, settings, stock, dtype)
    else:
        backbone = open_stacked(config.backbone, files, prefix=_BACKBONE, dtype=dtype)
    with hollow():
        model = DeepTalk(config, backbone=backbone, tokenizer=tokenizer)
    fill(model, {_own_name(name): name for name in delta}, StoredTensors(files), dtype=dtype)
    if split:
        model.split()
    return model.to(device=device).eval()


def save(
    model: DeepTalk,
    folder: str | Path,
    *,
    tokenizer_path: str | Path,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model's folder; experts are stored in stock order whether or not they are split.

    A lossless model is its backbone, untouched in a subfolder of its own, and the rest, which names the
    backbone's hash. ``provenance`` says where the weights come from (recipe, commit, data); files of other
    names stay.
    """
    folder = Path(folder)
    if not Path(tokenizer_path).is_file():
        raise CheckpointError(f"{tokenizer_path} is missing: a model is saved with its {TOKENIZER}.")
    config = {"model_type": MODEL_TYPE, "architectures": ["DeepTalk"], **model.config.to_dict()}
    tensors = _stored_tensors(model)
    if model.config.is_lossless:
        stock, tensors = _parted(tensors)
        own = {name.removeprefix(_BACKBONE): as_stored(name, t, dtype) for name, t in stock.items()}
        (folder / CONFIG).unlink(missing_ok=True)
        save_stock(model.backbone, folder / STOCK, tensors=own)
        config[_STOCK_HASH] = stock_hash(folder / STOCK)
    write_folder(
        folder,
        config=config,
        tensors=tensors,
        dtype=dtype,
        provenance=provenance,
        copies={TOKENIZER: Path(tokenizer_path)},
    )


def load_encoder(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> SpeechEncoder:
    """Load an encoder that `save_encoder` wrote; raises `CheckpointError` like `load`."""
    folder = Path(folder)
    settings = read_config(folder, model_type=ENCODER_TYPE)
    try:
        config = EncoderConfig.from_dict(settings["encoder"])
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    with torch.device("meta"):
        check_tensors(folder, expected=SpeechEncoder(config).state_dict())
    with hollow():
        encoder = SpeechEncoder(config)
    names = {name: name for name in encoder.state_dict()}
    fill(encoder, names, StoredTensors(weight_files(folder)), dtype=dtype)
    return encoder.eval()


def save_encoder(
    encoder: SpeechEncoder,
    folder: str | Path,
    *,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a pretrained encoder on its own, for the stages that start from it."""
    write_folder(
        Path(folder),
        config={"model_type": ENCODER_TYPE, "encoder": encoder.settings.to_dict()},
        tensors=encoder.state_dict(),
        dtype=dtype,
        provenance=provenance,
    )


def model_folder(name_or_path: str | Path) -> Path:
    """The folder of a packaged model or of a path."""
    if str(name_or_path) in PACKAGED:
        folder = Path(str(resources("deeptalk"))) / "assets" / str(name_or_path)
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f"This installation carries no weights of {name_or_path!r} ({folder}).")
        return folder
    folder = Path(name_or_path)
    if not folder.exists():
        raise CheckpointError(
            f"There is no model {str(name_or_path)!r}; give {', '.join(PACKAGED)} or the folder of a model."
        )
    return folder


def tensors_beside_backbone(model: DeepTalk) -> dict[str, Tensor]:
    """What a model's folder holds besides the backbone, by the names on disk."""
    parts = {"encoder": model.encoder, "adapter": model.adapter}
    parts |= {"embedding": model.embedding, "heads": model.heads}
    if model.word_head is not None:
        parts["hearing"] = model.word_head
    return {f"{part}.{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}


def _outline(config: DeepTalkConfig) -> DeepTalk:
    """The model without its numbers: no memory is taken until config and tensors agree."""
    with torch.device("meta"):
        outline = DeepTalk(config)
    if config.audio_experts is not None:
        outline.is_audio()  # the partition must fit the backbone
    return outline


def _stored_tensors(model: DeepTalk) -> dict[str, Tensor | Deferred]:
    """Tensors by their names on disk, each storage once: of tied tables the first."""
    state: dict[str, Tensor | Deferred] = {**tensors_beside_backbone(model)}
    state |= {_BACKBONE + name: tensor for name, tensor in fused_tensors(model.backbone).items()}
    owner: dict[int, str] = {}
    for name, parameter in model.backbone.model.named_parameters(remove_duplicate=False):
        if owner.setdefault(id(parameter), name) != name:
            del state[_BACKBONE + name]
    return state


def _parted(
    tensors: Mapping[str, Tensor | Deferred],
) -> tuple[dict[str, Tensor | Deferred], dict[str, Tensor | Deferred]]:
    """The tensors of the stock backbone, and what a model adds to it."""
    stock = {n: t for n, t in tensors.items() if n.startswith(_BACKBONE) and not is_extra_name(n)}
    return stock, {name: tensor for name, tensor in tensors.items() if name not in stock}


def _own_name(name: str) -> str:
    """The name in a model of a tensor on disk."""
    return f"{_BACKBONE}model.{name.removeprefix(_BACKBONE)}" if name.startswith(_BACKBONE) else name


def _open_stock(
    folder: Path, settings: Mapping[str, Any], expected: Mapping[str, Tensor | Deferred], dtype: torch.dtype
) -> Backbone:
    """The backbone beside a lossless model's own tensors; it must be the one that these were trained with."""
    own, wanted = folder / STOCK, settings.get(_STOCK_HASH)
    if not (own / CONFIG).is_file():
        raise CheckpointError(f"{own} is missing: the backbone of hash {wanted} belongs there.")
    found = stock_hash(own)
    if found != wanted:
        raise CheckpointError(f"{own} has the hash {found}, but {folder} was trained with {wanted}.")
    with quiet():
        backbone = open_backbone(own, dtype=dtype)
    shapes = {_BACKBONE + name: t.shape for name, t in backbone.model.state_dict().items()}
    if any(shapes.get(name) != tensor.shape for name, tensor in expected.items()):
        raise CheckpointError(f"{own} has another shape than {folder / CONFIG} says.")
    return backbone


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Change the dtype of the parameters; rotary frequencies and other buffers keep theirs."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
