"""README's section on a model of one's own: its commands, as they stand there, on a random Qwen3-MoE."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from deeptalk.backbone.tiny import FAMILIES
from deeptalk.cli import app

ROOT = Path(__file__).parents[2]
SECTION = re.search(r"^## Your own MoE model$(.*?)^## ", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
QUESTIONS = ("what is red", "who are you", "how many days", "is it late")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the reader has: a language model as the stock library writes it, recordings and dialogues."""
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    ids = {"vocab_size": 272, "bos_token_id": None, "eos_token_id": fast.eos_token_id}
    ids |= {"max_position_embeddings": 2_048, "num_experts_per_tok": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**FAMILIES["qwen3_moe"], **ids}))
    model.save_pretrained(tmp_path / "my-moe", max_shard_size="60KB")
    fast.save_pretrained(tmp_path / "my-moe")
    corpus = tmp_path / "my-corpus"
    corpus.mkdir()
    generator = np.random.default_rng(0)
    dialogues, texts = [], []
    for number, question in enumerate(QUESTIONS):
        for name, text in ((f"q{number}", question), (f"a{number}", "yes")):
            soundfile.write(corpus / f"{name}.flac", generator.uniform(-0.3, 0.3, 8_000), 16_000)
            (corpus / f"{name}.txt").write_text(text)
        turns = [{"role": "user", "text": question}, {"role": "assistant", "text": "yes"}]
        texts.append({"messages": turns})
        heard = [{**turns[0], "audio": f"q{number}.flac"}, {**turns[1], "audio": f"a{number}.flac"}]
        dialogues.append({"messages": heard})
    for name, rows in (("dialogues", dialogues), ("texts", texts)):
        (corpus / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipes = (ROOT / "examples" / "own_model.py").read_text()
    changed = recipes.replace("num_audio_experts=2,", "num_audio_experts=2, num_batches=1,")
    assert changed != recipes
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "own_model.py").write_text(changed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.weights
def test_the_commands_make_a_model_that_stock_tools_read(room: Path):
    assert SECTION is not None
    (block,) = re.findall(r"^```sh\n(.*?)^```$", SECTION[1], re.M | re.S)
    for line in block.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == ".venv/bin/deeptalk"
        if arguments[0] == "assemble":
            arguments += ["--hidden", "16"]  # a tenth of the time
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (line, result.output, result.exception)
    again: Any = AutoModelForCausalLM.from_pretrained(room / "my-moe-again")
    before: Any = AutoModelForCausalLM.from_pretrained(room / "my-moe")
    assert type(again) is type(before)
    shapes = {name: tensor.shape for name, tensor in before.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes
    moved = [n for n, t in again.state_dict().items() if not torch.equal(t, before.state_dict()[n])]
    assert any("experts" in name for name in moved)
