"""A model and data of one's own at tiny size, for tests that train through all stages."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from deeptalk.backbone.tiny import FAMILIES
from deeptalk.codec import SineCodec, save_codec
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.training.stage_dialogue import save_speaking

QUESTIONS = ("what is red", "who are you", "how many days", "is it late", "why", "and then", "no", "where")


def furnish(root: Path, *, family: str | None = None) -> None:
    """`root/own/model` for the recipes of `own_recipes.py`, and `root/data`.

    The model stands on the tiny DeepSeek-V2, or on another `family` of `deeptalk.backbone.tiny`.
    """
    data = root / "data"
    (data / "sounds").mkdir(parents=True)
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(data / "tokenizer.json"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = DeepTalkConfig.tiny(fusion="mean8")
        encoder = replace(config.encoder, max_positions=256)
        backbone = {**config.backbone, "initializer_range": 0.2}
        if family is not None:
            kept = ("vocab_size", "hidden_size", "num_experts_per_tok", "max_position_embeddings")
            kept += ("bos_token_id", "eos_token_id")
            backbone = {**FAMILIES[family], **{key: backbone[key] for key in kept}}
        model = DeepTalk(replace(config, encoder=encoder, backbone=backbone))
    save_codec(SineCodec(num_codebooks=7, codebook_size=32), root / "codec")
    (root / "own" / "model").mkdir(parents=True)
    save_speaking(
        model,
        root / "own" / "model",
        tokenizer_path=data / "tokenizer.json",
        codec_folder=root / "codec",
        provenance={},
    )
    (root / "own" / "model" / "recipe.json").write_text("{}")
    generator = np.random.default_rng(0)
    recordings, dialogues, texts = [], [], []
    for number, question in enumerate(QUESTIONS):
        path = f"sounds/{number}.flac"
        size = 6_400 + 1_600 * (number % 3)
        soundfile.write(data / path, generator.uniform(-0.3, 0.3, size), 16_000)
        sound = {"audio": path, "duration": size / 16_000}
        recordings.append({"id": f"r{number}", "text": question, **sound})
        turns = [{"role": "user", "text": question}, {"role": "assistant", "text": "yes"}]
        codes = generator.integers(0, 32, (3 + number % 2, 7)).tolist()
        heard = [{**turns[0], **sound}, {**turns[1], "codes": codes, "order": "breadth", "speaker": "slt"}]
        dialogues.append({"id": f"d{number}", "messages": heard})
        texts.append({"id": f"t{number}", "messages": turns})
    for name, rows in (("recordings", recordings), ("dialogues", dialogues), ("texts", texts)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    furnish(Path(sys.argv[1]))
