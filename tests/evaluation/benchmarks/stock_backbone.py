"""A stock model and its tokenizer in a folder, as other people's harnesses open them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from deeptalk.decoding import LoadedModel

BOS = 256


def another_backbone(loaded: LoadedModel, folder: Path) -> Path:
    """The folder of a random backbone of a model's shape that is not its own."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        other = type(loaded.model.backbone.model)(loaded.model.backbone.model.config)
    other.save_pretrained(folder)
    return folder


def stock_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as they are, behind BOS, as the stock library has it."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
    hidden = [byte for byte in range(256) if byte not in shown]
    vocab = {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer, made.decoder = split, decoders.ByteLevel()  # pyright: ignore
    made.add_special_tokens(["<bos>", "<eos>"])
    made.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", BOS)])  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", eos_token="<eos>")
