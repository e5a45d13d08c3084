"""A new model of ours: a stock language model, a speech encoder and a codec; what joins them is random."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from deeptalk.audio.log_mel import MelSpec
from deeptalk.backbone import open_backbone
from deeptalk.backbone.checkpoint import (
    check_tokenizer,
    find_checkpoint,
    first_id,
    read_settings,
    refuse_tensors,
    stored_tensors,
    weight_files,
)
from deeptalk.backbone.stock import stock_hash
from deeptalk.codec import Codec, save_codec
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.adapter import AdapterConfig
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.embedding import Fusion
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.model.folder import CONFIG, TOKENIZER
from deeptalk.model.fresh import check_free, fresh_folder
from deeptalk.model.origin import BACKBONE_HASH
from deeptalk.model.weights import ENCODER_TYPE, MODEL_TYPE, PACKAGED, load, load_encoder, save
from deeptalk.streams.layout import PAPER_TEMPLATE, StreamLayout
from deeptalk.streams.text import TextTokenizer

WHISPER_TYPE = "whisper"
_WHISPER_ENCODER = ("model.encoder.", "encoder.")
_NUM_SPECIALS = 64
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ear:
    """A speech encoder and the spectrogram that it hears."""

    encoder: SpeechEncoder
    mel: MelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembled:
    """What was written; ``num_new_parameters`` are random: adapter, tables and heads of the new streams."""

    folder: str
    family: str
    dtype: str
    num_parameters: int
    num_new_parameters: int


def open_ear(source: str | Path) -> Ear:
    """The encoder of a model of ours (a folder, or a packaged one), one on its own, or a stock Whisper's.

    A stock Whisper is a folder or an id of the hub, and hears windows of 30 s as it was pretrained (`pad30`).

    Raises:
        CheckpointError: the source is none of these, or damaged.
    """
    if str(source) in PACKAGED:
        return _ear_of_model(source)
    folder = find_checkpoint(source)
    settings = read_settings(folder)
    model_type = settings.get("model_type")
    if model_type == MODEL_TYPE:
        return _ear_of_model(folder)
    if model_type == ENCODER_TYPE:
        return _ear(load_encoder(folder))
    if model_type == WHISPER_TYPE:
        return _ear(_open_whisper(folder, settings))
    raise CheckpointError(
        f"{folder / CONFIG} says model_type {model_type!r}; an encoder comes from {WHISPER_TYPE!r}, "
        f"{MODEL_TYPE!r} or {ENCODER_TYPE!r}."
    )


def assemble(
    backbone: str | Path,
    target: str | Path,
    *,
    ear: Ear,
    codec: Codec,
    speakers: Sequence[str] = ("M29", "F10"),
    fusion: Fusion = "mean8",
    stride: int = 4,
    hidden: int = 7_168,
    seed: int = 0,
) -> Assembled:
    """Write the model that stage 1 starts from, into a new folder (section 3.1 and figure 2).

    The language model keeps its weights and tokenizer; adapter, tables and heads of the codec streams are
    drawn by ``seed``. Weights are stored in the dtype of the language model's own.

    Args:
        backbone: a folder or an id of the hub, of a family in docs/families.md.
        target: a folder that doesn't exist yet.
        ear: the encoder, from `open_ear`.
        codec: copied into the folder; it decides how many codebooks and codes there are.
        speakers: names of the voices that answers will have.
        fusion: how the eight streams become one embedding.
        stride: encoder frames in a position of the language model: 1, 2, 4 or 8.
        hidden: width inside the adapter.
        seed: of the random weights.

    Raises:
        CheckpointError: the language model can't be used, or ``target`` is taken.
        ConfigError: the parts don't fit each other.
    """
    target = Path(target)
    check_free(target)
    source = find_checkpoint(backbone)
    dtype = _DTYPES.get(_stored_dtype(read_settings(source)), torch.float32)
    opened = open_backbone(source, dtype=dtype)
    stock: Any = opened.model.config
    check_tokenizer(source, stock)
    config = DeepTalkConfig(
        encoder=ear.encoder.settings,
        adapter=AdapterConfig(
            stride=stride,
            in_width=ear.encoder.settings.d_model,
            hidden=hidden,
            out_width=opened.hidden_size,
        ),
        backbone=stock.to_diff_dict() | {"model_type": stock.model_type},
        layout=_layout(stock, codec, speakers),
        mel=ear.mel,
        fusion=fusion,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = TextTokenizer(source / TOKENIZER)
        model = DeepTalk(config, encoder=ear.encoder, backbone=opened, tokenizer=tokenizer)
    note = {
        "assembled_from": {"backbone": str(backbone), "seed": seed},
        BACKBONE_HASH: stock_hash(source),
    }
    with fresh_folder(target) as folder:
        save(model, folder, tokenizer_path=source / TOKENIZER, provenance=note, dtype=dtype)
        save_codec(codec, folder / "codec")
    new = (model.adapter, model.embedding, model.heads)
    return Assembled(
        folder=str(target),
        family=stock.model_type,
        dtype=str(dtype).removeprefix("torch."),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_new_parameters=sum(parameter.numel() for part in new for parameter in part.parameters()),
    )


def _layout(stock: Any, codec: Codec, speakers: Sequence[str]) -> StreamLayout:
    """The streams beside a stock text table; a model that begins texts with no token gets none."""
    eos, bos = first_id(stock.eos_token_id), first_id(stock.bos_token_id)
    if eos is None:
        raise ConfigError("the language model names no eos_token_id; its config.json must say how texts end.")
    return StreamLayout(
        vocab_size=stock.vocab_size,
        codebook_size=codec.codebook_size,
        num_codebooks=codec.num_codebooks,
        num_specials=_NUM_SPECIALS,
        eos_id=eos,
        bos_id=eos if bos is None else bos,
        speakers={name: number for number, name in enumerate(speakers)},
        template=replace(PAPER_TEMPLATE, bos=bos is not None),
    )


def _stored_dtype(settings: dict[str, Any]) -> str:
    return str(settings.get("dtype") or settings.get("torch_dtype"))


def _ear_of_model(source: str | Path) -> Ear:
    model = load(source)
    return Ear(encoder=model.encoder, mel=model.mel)


def _ear(encoder: SpeechEncoder) -> Ear:
    settings = encoder.settings
    reference = "fixed" if settings.mode == "chunked" else "clip"
    return Ear(encoder=encoder, mel=MelSpec(num_mels=settings.num_mels, reference=reference))


def _open_whisper(folder: Path, settings: dict[str, Any]) -> SpeechEncoder:
    """The encoder of a stock Whisper; its decoder is left where it is."""
    try:
        config = EncoderConfig(
            mode="pad30",
            d_model=settings["d_model"],
            layers=settings["encoder_layers"],
            heads=settings["encoder_attention_heads"],
            ffn=settings["encoder_ffn_dim"],
            num_mels=settings["num_mel_bins"],
            max_positions=settings["max_source_positions"],
        )
    except KeyError as error:
        raise CheckpointError(f"{folder / CONFIG} lacks {error}.") from error
    names = {
        name: name.removeprefix(prefix)
        for prefix in _WHISPER_ENCODER
        for name in stored_tensors(folder)
        if name.startswith(prefix)
    }
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are all replaced
        encoder = SpeechEncoder(config)
    expected = encoder.state_dict()
    refuse_tensors(
        folder,
        {
            "missing": sorted(expected.keys() - set(names.values())),
            "not expected": sorted(names.keys() - {n for n, own in names.items() if own in expected}),
        },
    )
    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in names.keys() & set(file.keys()):
                tensors[names[name]] = file.get_tensor(name).float()
    wrong = [name for name, tensor in tensors.items() if tensor.shape != expected[name].shape]
    refuse_tensors(folder, {"of another shape": sorted(wrong)})
    encoder.load_state_dict(tensors)
    return encoder.eval()
