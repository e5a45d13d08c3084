"""A stock language model, a stock Whisper and a codec become the model that stage 1 starts from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, WhisperConfig, WhisperForConditionalGeneration

from deeptalk.audio import MelSpec
from deeptalk.backbone.tiny import FAMILIES
from deeptalk.codec import SineCodec
from deeptalk.decoding import load
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.assembly import Ear, assemble, open_ear
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.model.weights import save_encoder

EOS = 256


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-MoE with a tokenizer of bytes; texts begin with no token, as in the published ones."""
    folder = tmp_path_factory.mktemp("stock")
    ids = {"vocab_size": 272, "bos_token_id": None, "eos_token_id": EOS}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**FAMILIES["qwen3_moe"], **ids}))
    model.save_pretrained(folder, max_shard_size="60KB")
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab | {"<end>": EOS}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A random Whisper as the stock library writes it, in shards, and the model."""
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=64,
        num_mel_bins=8,
        max_source_positions=32,
        max_target_positions=16,
        pad_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    folder = tmp_path_factory.mktemp("whisper")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = WhisperForConditionalGeneration(config).eval()
    model.save_pretrained(folder, max_shard_size="12KB")
    return folder, model


def tiny_ear() -> Ear:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Ear(encoder=SpeechEncoder(EncoderConfig.tiny()).eval(), mel=MelSpec.tiny())


def put_together(stock: Path, target: Path, **changes: Any) -> Any:
    settings = {"ear": tiny_ear(), "codec": SineCodec(), "hidden": 24} | changes
    return assemble(stock, target, **settings)


@torch.no_grad()
def test_the_parts_are_as_they_were(stock: Path, tmp_path: Path) -> None:
    told = put_together(stock, tmp_path / "own", speakers=("ann",))
    loaded = load(tmp_path / "own")
    model, layout = loaded.model, loaded.model.layout
    expected: Any = AutoModelForCausalLM.from_pretrained(stock).eval()
    ids = torch.arange(12).view(2, 6)
    logits = model.backbone.model(input_ids=ids).logits
    torch.testing.assert_close(logits, expected(input_ids=ids).logits, atol=1e-5, rtol=0)
    ear = tiny_ear().encoder.state_dict()
    assert all(torch.equal(tensor, ear[name]) for name, tensor in model.encoder.state_dict().items())
    assert (layout.vocab_size, layout.eos_id, layout.template.bos) == (272, EOS, False)
    assert (layout.codebook_size, loaded.voices) == (32, ("ann",))
    assert (told.family, told.dtype) == ("qwen3_moe", "float32")
    assert told.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    new = (model.adapter, model.embedding, model.heads)
    assert told.num_new_parameters == sum(p.numel() for part in new for p in part.parameters())


def test_the_same_seed_gives_the_same_model(stock: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        put_together(stock, tmp_path / name, seed=seed)
    first, again, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == again != other


def test_weights_keep_the_dtype_of_the_language_model(stock: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(stock, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    (tmp_path / "half" / "tokenizer.json").write_bytes((stock / "tokenizer.json").read_bytes())
    assert put_together(tmp_path / "half", tmp_path / "own").dtype == "bfloat16"
    assert json.loads((tmp_path / "own" / "config.json").read_text())["dtype"] == "bfloat16"


@torch.no_grad()
def test_a_stock_whisper_hears_as_it_did(whisper: tuple[Path, Any]) -> None:
    folder, model = whisper
    ear = open_ear(folder)
    assert (ear.encoder.settings.mode, ear.mel.num_mels, ear.mel.reference) == ("pad30", 8, "clip")
    mel = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0))
    expected = model.model.encoder(mel).last_hidden_state
    found = ear.encoder(mel, torch.tensor([64, 64])).frames
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_encoder_of_ours_is_opened(tmp_path: Path) -> None:
    save_encoder(tiny_ear().encoder, tmp_path / "encoder", provenance={})
    ear = open_ear(tmp_path / "encoder")
    assert ear.mel == MelSpec.tiny()
    expected = tiny_ear().encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ear.encoder.state_dict().items())


def test_what_is_no_encoder_is_refused(stock: Path, whisper: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_type 'qwen3_moe'; an encoder comes from 'whisper'"):
        open_ear(stock)
    settings = json.loads((whisper[0] / "config.json").read_text())
    for changed, words in (
        ({"encoder_layers": 3}, "missing"),
        ({"encoder_layers": 1}, "not expected"),
        ({"encoder_ffn_dim": 40}, "of another shape"),
    ):
        folder = tmp_path / words.replace(" ", "-")
        folder.mkdir()
        for path in whisper[0].iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "config.json").write_text(json.dumps(settings | changed))
        with pytest.raises(CheckpointError, match=words):
            open_ear(folder)


def test_what_cant_be_put_together_leaves_nothing(stock: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stride must be one of 1, 2, 4, 8, got 3"):
        put_together(stock, tmp_path / "own", stride=3)
    with pytest.raises(ConfigError, match="speakers must have different numbers"):
        put_together(stock, tmp_path / "own", speakers=tuple(map(str, range(60))))
    assert not list(tmp_path.iterdir())
    put_together(stock, tmp_path / "own")
    with pytest.raises(CheckpointError, match="exists already"):
        put_together(stock, tmp_path / "own")
