"""The authors' released checkpoints as folders of ours, and back (method.md, section 6).

Their language model has one table for inputs and outputs: text, special ids of text, then codes and special
ids of one codebook after the other. Here text and its special ids are the backbone's text table, tied to its
head, so that the text softmax runs over the same rows; each codebook has its rows twice, as table and head.

Their names were read in their code, never in their weights: tensors are matched by pattern and shape, and
what fits nothing is an error that lists all of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from deeptalk.audio.log_mel import MelSpec
from deeptalk.backbone.backbone import config_from_dict
from deeptalk.backbone.banks import fused_state_dict, made
from deeptalk.backbone.checkpoint import INDEX
from deeptalk.errors import CheckpointError, ConfigError, DeepTalkError
from deeptalk.model.adapter import AdapterConfig
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.encoder import EncoderConfig
from deeptalk.model.folder import (
    CONFIG,
    PICKLES,
    TOKENIZER,
    check_tensors,
    read_config,
    read_json,
    weight_files,
    write_folder,
)
from deeptalk.model.fresh import check_free, fresh_folder
from deeptalk.model.released_layout import (
    HEAD,
    TABLE,
    check_pieces,
    our_name,
    ours_of_pieces,
    pieces_of_ours,
    pieces_of_theirs,
    shape_of,
)
from deeptalk.model.weights import MODEL_TYPE, model_folder, tensors_beside_backbone
from deeptalk.shapes import Tensor
from deeptalk.streams.layout import PAPER_TEMPLATE, StreamLayout

ORIGINALS = "released"
"""The subfolder that keeps what else belongs to the original: its settings and its tokenizer's files."""

TENSORS = "tensors.json"
"""In that subfolder: every tensor of the original with its dtype."""

SIZES = ("text_vocab_size", "text_special_tokens", "audio_vocab_size", "audio_special_tokens")
"""The settings by which a released checkpoint is known."""

_AUDIO_TOKEN = "<|audio|>"
_AUDIO_IDS = {"EOA": 0, "PAD_A": 1, "BOA": 2, "ANS_A": 3, "ASR": 4}
_SPEAKERS = {"M29": 7, "F10": 8}
_WHISPER_HEAD = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was written, and of how many tensors the original consists."""

    folder: str
    num_tensors: int
    num_parameters: int


def is_released(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a released checkpoint."""
    return all(name in settings for name in SIZES)


def from_released(
    source: str | Path, target: str | Path, *, audio_experts: str | Path | None = None
) -> Converted:
    """Write a released checkpoint as a model of ours; ``audio_experts`` is its file of lists by layer.

    Weights get the widest dtype of the original. A checkpoint of stage 2 masks a group of experts and needs
    the file.

    Raises:
        CheckpointError: tensors are missing, left over or of another shape (all are listed), the two ends of
            the table differ, or a file can't be used.
        ConfigError: the settings don't fit together, or name a backbone that isn't supported.
    """
    source, target = Path(source), Path(target)
    check_free(target)
    settings, tokenizer = _read_settings(source), source / TOKENIZER
    if not tokenizer.is_file():
        raise CheckpointError(f"{tokenizer} is missing: a model is converted with its {TOKENIZER}.")
    theirs = _read(source)
    parts = pieces_of_theirs(source, theirs)
    try:
        config = _config(settings, parts, None if audio_experts is None else Path(audio_experts))
        expected, rows = _expected(config), _extra_rows(settings, tokenizer)
    except DeepTalkError:
        raise
    except Exception as error:  # settings that make no sense run into errors of many kinds
        raise CheckpointError(f"{source / CONFIG}: {' '.join(str(error).split())}") from error
    check_pieces(source, theirs, parts, pieces_of_ours(expected, config.layout))
    with fresh_folder(target) as folder:
        write_folder(
            folder,
            config={"model_type": MODEL_TYPE, "architectures": ["DeepTalk"], **config.to_dict()},
            tensors=ours_of_pieces(parts, expected, config.layout, rows),
            dtype=reduce(torch.promote_types, {tensor.dtype for tensor in theirs.values()}),
            provenance={"converted_from": source.resolve().name, "preset": "released"},
            copies={TOKENIZER: tokenizer},
        )
        _keep_originals(source, folder / ORIGINALS, theirs)
    return _converted(target, theirs)


def to_released(name_or_path: str | Path, target: str | Path) -> Converted:
    """Write a model that `from_released` wrote in the authors' layout again: equal tensors, equal settings.

    Raises:
        CheckpointError: it wasn't converted, or it has been trained and its tables are two by now.
    """
    source, target = model_folder(name_or_path), Path(target)
    check_free(target)
    settings = read_config(source, model_type=MODEL_TYPE)
    if not (source / ORIGINALS / TENSORS).is_file():
        raise CheckpointError(f"{source} was not converted from a released checkpoint; there is no way back.")
    original = read_json(source / ORIGINALS / CONFIG)
    config = DeepTalkConfig.from_dict(settings)
    expected = _expected(config)
    check_tensors(source, expected=expected)
    ours = _read(source)
    parts = pieces_of_ours(ours, config.layout)
    again = ours_of_pieces(parts, expected, config.layout, _extra_rows(original, source / TOKENIZER))
    changed = [name for name, tensor in again.items() if not torch.equal(made(tensor), ours[name])]
    if changed:
        raise CheckpointError(
            f"{source} has been trained since: {', '.join(changed)} would have to be rows of the one table "
            "of the released layout."
        )
    theirs = {
        name: parts[TABLE if (own := our_name(name)) == HEAD else own].to(getattr(torch, dtype)).clone()
        for name, dtype in read_json(source / ORIGINALS / TENSORS).items()
    }
    with fresh_folder(target) as folder:
        save_torch_state_dict(theirs, folder)
        for path in (source / ORIGINALS).iterdir():
            if path.name != TENSORS:
                (folder / path.name).write_bytes(path.read_bytes())
    return _converted(target, theirs)


def _read_settings(source: Path) -> dict[str, Any]:
    """The settings of a released checkpoint, whose pickles aren't opened and whose code isn't run."""
    if not any(source.glob("*.safetensors")) and any(path.suffix in PICKLES for path in source.glob("*")):
        raise CheckpointError(f"{source} holds pickles, which can run code when opened, and no safetensors.")
    settings = read_json(source / CONFIG)
    if not is_released(settings):
        raise CheckpointError(f"{source / CONFIG} is no released checkpoint's: it needs {', '.join(SIZES)}.")
    least = dict.fromkeys(SIZES, 1) | {"bos_token_id": 0, "eos_token_id": 0}
    wrong = [name for name, low in least.items() if not _is_count(settings.get(name), low)]
    if wrong or settings.get("mm_audio_num_codebook", 7) != 7:
        raise ConfigError(
            f"{source / CONFIG}: {', '.join(wrong or ['mm_audio_num_codebook'])} can't be used."
        )
    return settings


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _read(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder as they are stored."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        if not path.is_file():
            raise CheckpointError(f"{path} is missing.")
        try:
            with safe_open(path, framework="pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged or no safetensors file ({error}).") from error
    return tensors


def _config(
    settings: Mapping[str, Any], parts: Mapping[str, Tensor], audio_experts: Path | None
) -> DeepTalkConfig:
    """Sizes from the settings where they are there, from the tensors where not."""
    vocab_size = settings["text_vocab_size"] + settings["text_special_tokens"]
    encoder, adapter = _encoder(parts), shape_of(parts, "adapter.body.gate.weight")
    config = DeepTalkConfig(
        encoder=encoder,
        adapter=AdapterConfig(
            stride=1,
            in_width=adapter[1],
            hidden=adapter[0],
            out_width=shape_of(parts, "adapter.body.down.weight")[0],
        ),
        backbone=_backbone(settings) | {"vocab_size": vocab_size, "tie_word_embeddings": True},
        layout=StreamLayout(
            vocab_size=vocab_size,
            codebook_size=settings["audio_vocab_size"],
            num_specials=settings["audio_special_tokens"],
            bos_id=settings["bos_token_id"],
            eos_id=settings["eos_token_id"],
            speakers=_speakers(settings),
            template=PAPER_TEMPLATE,
        ),
        mel=MelSpec(num_mels=encoder.num_mels),
        fusion="mean8",
    )
    return replace(config, **_experts(settings, audio_experts))


def _encoder(parts: Mapping[str, Tensor]) -> EncoderConfig:
    """The Whisper encoder of these shapes; every published one has heads of 64."""
    width, num_mels, _ = shape_of(parts, "encoder.conv1.weight")
    layers = {name.split(".")[2] for name in parts if name.startswith("encoder.layers.")}
    return EncoderConfig(
        mode="pad30",
        d_model=width,
        layers=len(layers),
        heads=max(1, width // _WHISPER_HEAD),
        ffn=shape_of(parts, "encoder.layers.0.fc1.weight")[0],
        num_mels=num_mels,
        max_positions=shape_of(parts, "encoder.embed_positions.weight")[0],
    )


def _backbone(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the stock config of the backbone's family knows of the settings."""
    family = str(settings.get("model_type")).rpartition("-")[2]
    known = config_from_dict({"model_type": family}).to_dict().keys() | {"rope_theta", "rope_scaling"}
    left_out = {"architectures", "transformers_version", "dtype", "auto_map"}
    stock = {name: value for name, value in settings.items() if name in known - left_out}
    return stock | {"model_type": family}


def _speakers(settings: Mapping[str, Any]) -> dict[str, int]:
    """The voices by number; ids of other meaning than in the release are refused."""
    first = settings["audio_vocab_size"]
    ids = settings.get("audio_additional_tokens") or {
        n: first + i for n, i in (_AUDIO_IDS | _SPEAKERS).items()
    }
    wrong = [name for name, place in _AUDIO_IDS.items() if ids.get(name) != first + place]
    if wrong:
        raise ConfigError(f"audio_additional_tokens: {', '.join(wrong)} stand elsewhere than in the release.")
    return {name: ids[name] - first - 7 for name in _SPEAKERS if name in ids}


def _experts(settings: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """Partition and routing: what a stage froze was masked as well."""
    frozen = [name for name in ("audio", "text") if settings.get(f"freeze_{name}_experts")]
    if path is None:
        if frozen:
            raise ConfigError(
                f"This checkpoint masks its {frozen[0]} experts: give the file that lists the audio experts "
                "of its layers (audio_experts_file in its config.json)."
            )
        return {}
    try:
        layers = tuple(tuple(layer) for layer in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no JSON list of a list of experts for each layer ({error})."
        ) from error
    open_to = {"audio": "text", "text": "audio"}[frozen[0]] if frozen else "all"
    return {"audio_experts": layers, "routing": {"text": open_to, "audio": open_to}}


def _expected(config: DeepTalkConfig) -> dict[str, Tensor]:
    """The tensors of our folder, without their numbers."""
    with torch.device("meta"):
        outline = DeepTalk(config)
    if config.audio_experts is not None:
        outline.is_audio()  # the partition must fit the backbone
    stock = fused_state_dict(outline.backbone)
    return tensors_beside_backbone(outline) | {
        f"backbone.{name}": tensor for name, tensor in stock.items() if name != "lm_head.weight"
    }


def _extra_rows(settings: Mapping[str, Any], tokenizer: Path) -> list[int]:
    """The rows of their table that are EOT, PAD_T and AUD here."""
    first = settings["text_vocab_size"]
    ids = settings.get("text_additional_tokens") or {"EOT": first, "PAD_T": first + 1}
    speech = Tokenizer.from_file(str(tokenizer)).token_to_id(_AUDIO_TOKEN)
    rows = [ids.get("EOT"), ids.get("PAD_T"), speech]
    most = first + settings["text_special_tokens"]
    if any(row is None or not 0 <= row < most for row in rows):
        raise ConfigError(f"EOT, PAD_T and {_AUDIO_TOKEN} must be ids below {most}, got {rows}.")
    return rows


def _keep_originals(source: Path, folder: Path, theirs: Mapping[str, Tensor]) -> None:
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix in (".json", ".jinja", ".model", ".txt") and path.name != INDEX:
            (folder / path.name).write_bytes(path.read_bytes())
    dtypes = {name: str(tensor.dtype)[6:] for name, tensor in theirs.items()}
    (folder / TENSORS).write_text(json.dumps(dtypes, indent=0) + "\n", encoding="utf-8")


def _converted(target: Path, theirs: Mapping[str, Tensor]) -> Converted:
    num_parameters = sum(tensor.numel() for tensor in theirs.values())
    return Converted(folder=str(target), num_tensors=len(theirs), num_parameters=num_parameters)
