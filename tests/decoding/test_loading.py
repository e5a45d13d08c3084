from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from deeptalk.codec import SineCodec, save_codec
from deeptalk.decoding import DecodingOptions, Limits, load
from deeptalk.errors import CheckpointError
from deeptalk.model import DeepTalk, DeepTalkConfig, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(tmp_path / "made.json"))
    torch.manual_seed(0)
    model = DeepTalk(DeepTalkConfig.tiny())
    save(model, tmp_path / "model", tokenizer_path=tmp_path / "made.json", provenance={"recipe": "none"})
    save_codec(SineCodec(), tmp_path / "model" / "codec")
    return tmp_path / "model"


def test_a_folder_speaks(folder: Path):
    loaded = load(folder)
    assert loaded.voices == ("rms", "slt")
    conversation = loaded.conversation(
        voice="slt", seed=1, options=DecodingOptions(limits=Limits(max_frames=3, max_text_tokens=3))
    )
    conversation.listen(0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0)))
    samples = torch.cat([piece.samples for piece in conversation.reply()])
    assert len(samples) == 2048 * conversation.last_reply.num_frames > 0
    assert conversation.sample_rate == 24_000


def test_a_codec_that_does_not_fit(folder: Path):
    save_codec(SineCodec(codebook_size=16), folder / "codec")
    with pytest.raises(CheckpointError, match="7 codebooks of 16"):
        load(folder)
