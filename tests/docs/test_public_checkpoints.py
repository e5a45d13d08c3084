"""From the public checkpoints to a joint model: the paper's recipes, on tiny models of the stock libraries.

Folders, file formats, ids and codebooks are those of the published ones; data are made in published layouts.
"""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from typer.testing import CliRunner

from deeptalk.backbone.tiny import FAMILIES
from deeptalk.cli import app
from deeptalk.codec import SnacCodec, SnacConfig

BOS, EOS, NUM_ROWS = 100_000, 100_001, 102_400
TINY = ("--tiny", "--set", "max_bad_fraction=none")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The three folders where the recipe looks for them; SNAC is a pickle still."""
    folders = [tmp_path / name / "model" for name in ("whisper-medium", "deepseek-v2-lite")]
    snac = tmp_path / "published-snac"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8}
        sizes |= dict.fromkeys(("encoder_layers", "decoder_layers"), 2) | {"max_source_positions": 64}
        sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
        WhisperForConditionalGeneration(WhisperConfig(**sizes, vocab_size=51_865)).save_pretrained(folders[0])
        ids = {"vocab_size": NUM_ROWS, "bos_token_id": BOS, "eos_token_id": EOS}
        ids |= {"max_position_embeddings": 2_048}
        stock: Any = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**{**FAMILIES["deepseek_v2"], **ids})
        )
        stock.to(torch.bfloat16).save_pretrained(folders[1], max_shard_size="2MB")
        codec = SnacCodec(replace(SnacConfig.tiny(), codebook_size=4_096))
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folders[0])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(letters)} | {"<bos>": BOS, "<eos>": EOS}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
    fast.save_pretrained(folders[1])
    snac.mkdir()
    (snac / "config.json").write_text(json.dumps({**asdict(codec.config), "latent_dim": None}))
    torch.save(codec.model.state_dict(), snac / "pytorch_model.bin")
    return tmp_path


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, Path]:
    """What stages 1 to 3 read, unpacked as it is published."""
    generator = np.random.default_rng(0)
    places = {name: tmp_path / "unpacked" / name for name in ("wenetspeech", "audioqa-1m", "math-instruct")}
    places |= {name: tmp_path / "unpacked" / name for name in ("camel-ai-math", "dolly-15k")}
    for place in places.values():
        place.mkdir(parents=True)

    def sound(path: Path, seconds: float) -> None:
        soundfile.write(path, generator.uniform(-0.3, 0.3, int(16_000 * seconds)), 16_000)

    sound(places["wenetspeech"] / "Y.wav", 3.0)
    segments = [
        {"sid": f"Y_{i}", "begin_time": i / 2, "end_time": i / 2 + 0.5, "text": "你好", "subsets": ["L"]}
        for i in range(6)
    ]
    audios = [{"aid": "Y", "path": "Y.wav", "segments": segments}]
    (places["wenetspeech"] / "WenetSpeech.json").write_text(json.dumps({"audios": audios}))
    rows = []
    for number in range(6):
        sound(places["audioqa-1m"] / f"{number}.wav", 0.5)
        codes = " ".join(map(str, generator.integers(0, 4_096, 21)))
        (places["audioqa-1m"] / f"{number}.codec").write_text(codes)
        question = {"role": "user", "content": f"Who is {number}?", "wavpath": f"{number}.wav"}
        answer = {"role": "assistant", "content": "Ann", "codec": f"{number}.codec", "speaker": "F10"}
        rows.append({"conversations": [question, answer]})
    (places["audioqa-1m"] / "train.json").write_text(json.dumps(rows))
    asked = [{"source": "x", "instruction": f"{n} and 1?", "output": str(n + 1)} for n in range(6)]
    (places["math-instruct"] / "MathInstruct.json").write_text(json.dumps(asked))
    for number in range(6):
        row = {"topic;": "Algebra", "message_1": f"{number} less 1?", "message_2": str(number - 1)}
        (places["camel-ai-math"] / f"{number:03}.json").write_text(json.dumps(row))
    told = [{"instruction": f"Name {n}", "context": "", "response": "Bob", "category": "x"} for n in range(6)]
    lines = "".join(json.dumps(row) + "\n" for row in told)
    (places["dolly-15k"] / "databricks-dolly-15k.jsonl").write_text(lines)
    return places


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "released-"])  # the values of the authors' scripts
def test_the_papers_stages_begin_with_the_folders_as_they_are_published(
    prefix: str, root: Path, corpora: dict[str, Path]
) -> None:
    snac = root / "published-snac"
    digest = sha256((snac / "pytorch_model.bin").read_bytes()).hexdigest()
    run("convert", snac, "--out", root / "snac-24khz" / "model", "--sha256", digest)
    run("doctor", root / "deepseek-v2-lite" / "model", "--gpu-gib", 80)
    for name, folder in corpora.items():
        run("prepare", name, folder, "--out", root / "data")
    divided = ("--set", "partition.num_audio_experts=4", "--set", "partition.num_batches=1")
    ways = {"audio-experts": divided if prefix else (*divided, "--dense")}  # theirs move more than experts
    for stage in ("align", "audio-experts", "text-experts", "joint"):
        run("train", prefix + stage, "--root", root, *TINY, *ways.get(stage, ()))
    result = root / f"{prefix}joint" / "model"
    run("export", result, "--to", "transformers", "--out", root / "text")
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
        for folder in (root / "deepseek-v2-lite" / "model", root / "text")
    )
    assert after.keys() == before.keys()
    assert {tensor.dtype for name, tensor in after.items() if "gate.weight" not in name} == {torch.bfloat16}
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {"model.layers.1.mlp.experts.down_proj", "model.layers.1.mlp.gate.weight"} <= moved
    run("talk", "--model", result, "--text", "Who?", "--out", root / "said")
