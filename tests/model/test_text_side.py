"""The text side of a model is a stock checkpoint: same tensors, same logits, same words around turns."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from deeptalk.backbone.banks import fused_state_dict
from deeptalk.backbone.extra import ExtraExperts, ExtraRouting, is_extra_name
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.text_side import export_text_side
from deeptalk.model.weights import load, save
from deeptalk.streams import Batch, Turn, encode_dialogue
from deeptalk.streams.layout import PAPER_TEMPLATE
from deeptalk.streams.text import TextTokenizer

Build = Callable[..., DeepTalk]
QWEN = {
    "model_type": "qwen3_moe", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "intermediate_size": 48, "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def bytes_path(tmp_path: Path) -> Path:
    """A tokenizer of bytes with the special tokens of the tiny layout."""
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    tokenizer.save(str(tmp_path / "bytes.json"))
    return tmp_path / "bytes.json"


@pytest.fixture
def saved(tmp_path: Path, bytes_path: Path) -> Callable[..., Path]:
    def write(model: DeepTalk, *, dtype: torch.dtype = torch.float32) -> Path:
        save(model, tmp_path / "model", tokenizer_path=bytes_path, provenance={}, dtype=dtype)
        return tmp_path / "model"

    return write


def stock(folder: Path) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    opened, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return opened.eval(), opened.state_dict()


def check_same(source: Path, out: Path, batch: Batch, *, but: tuple[str, ...] = ()) -> None:
    """Stock tensors are those of the model, and stock logits those of its text positions."""
    model, (theirs, state) = load(source), stock(out)
    expected = {n: t for n, t in fused_state_dict(model.backbone).items() if not is_extra_name(n)}
    assert state.keys() == expected.keys()
    assert {n for n in expected if not torch.equal(state[n], expected[n])} == set(but)
    with torch.no_grad():
        ours = model(batch).logits.text[batch.mask]
        found = theirs(input_ids=batch.grid[:, 0].clamp(max=299), attention_mask=batch.mask.long()).logits
    torch.testing.assert_close(found[batch.mask], ours, atol=1e-5, rtol=0)


def test_a_model_with_banks_comes_out_bit_equal(
    build: Build, saved: Callable[..., Path], tmp_path: Path, text_batch: Batch
) -> None:
    model = build()
    members = torch.zeros(2, 8, dtype=torch.bool)
    members[:, [2, 5]] = True
    model.split(members)
    source = saved(model)
    written = export_text_side(source, tmp_path / "out")
    assert (written.architecture, written.num_weight_files) == ("DeepseekV2ForCausalLM", 1)
    assert not written.is_embedding_fused
    check_same(source, tmp_path / "out", text_batch)


@pytest.mark.parametrize("fusion", ["mean8", "mean2"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_a_mean_of_streams_is_what_the_text_table_becomes(
    saved: Callable[..., Path], tmp_path: Path, text_batch: Batch, fusion: str, is_tied: bool
) -> None:
    config = DeepTalkConfig.tiny(fusion=fusion)  # type: ignore[arg-type]
    model = DeepTalk(replace(config, backbone={**config.backbone, "tie_word_embeddings": is_tied}))
    with torch.no_grad():
        for table in model.embedding.codec:
            table.weight.normal_()
    source = saved(model)
    assert export_text_side(source, tmp_path / "out").is_embedding_fused
    check_same(source, tmp_path / "out", text_batch, but=("model.embed_tokens.weight",))


@pytest.mark.parametrize("routing", ["overlay", "union"])
def test_lossless_copies_are_left_out(
    build: Build, saved: Callable[..., Path], tmp_path: Path, text_batch: Batch, routing: ExtraRouting
) -> None:
    model = build()
    model.add_experts(ExtraExperts(sources=((1, 4), (0, 2)), routing=routing))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if is_extra_name(name):
                tensor.mul_(3)
    source = saved(model)
    export_text_side(source, tmp_path / "out")
    check_same(source, tmp_path / "out", text_batch)


def test_another_family_with_one_table_for_both_ends(
    saved: Callable[..., Path], tmp_path: Path, text_batch: Batch
) -> None:
    source = saved(DeepTalk(replace(DeepTalkConfig.tiny(), backbone=QWEN)))
    written = export_text_side(source, tmp_path / "out")
    assert written.architecture == "Qwen3MoeForCausalLM"
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    check_same(source, tmp_path / "out", text_batch)


def test_weights_keep_their_dtype_and_the_names_of_the_published_models(
    build: Build, saved: Callable[..., Path], tmp_path: Path
) -> None:
    source = saved(build(), dtype=torch.bfloat16)
    written = export_text_side(source, tmp_path / "out", max_shard_size=20_000)
    assert written.dtype == "bfloat16"
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) == written.num_weight_files > 1
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    tensors = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert index.keys() == tensors.keys()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert written.num_parameters == sum(tensor.numel() for tensor in tensors.values())
    stacked = load_file(source / "model.safetensors")["backbone.model.layers.1.mlp.experts.down_proj"]
    for expert in range(8):
        assert torch.equal(tensors[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"], stacked[expert])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("deepseek_v2", "bfloat16")
    assert not {"layout", "encoder", "auto_map", "experts_implementation"} & config.keys()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o644}


@pytest.mark.parametrize("is_paper", [False, True])
def test_chat_template_gives_the_ids_that_the_model_learnt(
    saved: Callable[..., Path], tmp_path: Path, bytes_path: Path, is_paper: bool
) -> None:
    config = DeepTalkConfig.tiny()
    template = PAPER_TEMPLATE if is_paper else config.layout.template
    config = replace(config, layout=replace(config.layout, template=template))
    assert export_text_side(saved(DeepTalk(config)), tmp_path / "out").is_chat_exact
    turns = [
        ("system", 'Say "é" 😀.'),
        ("user", "What?"),
        ("assistant", "Blue."),
        ("user", "Why?"),
        ("assistant", ""),
    ]
    ours = encode_dialogue(
        [Turn(role=role, text=text) for role, text in turns],  # type: ignore[arg-type]
        tokenizer=TextTokenizer(bytes_path),
        layout=config.layout,
        mode="text",
    )
    stock = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": role, "content": text} for role, text in turns]
    assert stock.apply_chat_template(messages, return_dict=False) == ours.grid[0].tolist()
    assert (stock.bos_token_id, stock.eos_token_id, stock.model_max_length) == (256, 257, 512)
    raw = [256] * template.bos + TextTokenizer(bytes_path).encode("Who?")
    assert stock("Who?")["input_ids"] == raw  # as harnesses over HTTP tokenise what they ask


def test_a_tokenizer_that_spans_words_and_template_is_told(
    build: Build, tmp_path: Path, tokenizer_path: Path
) -> None:
    save(build(), tmp_path / "model", tokenizer_path=tokenizer_path, provenance={})
    assert not export_text_side(tmp_path / "model", tmp_path / "out").is_chat_exact


def test_what_no_stock_model_computes_is_refused(
    build: Build, saved: Callable[..., Path], tmp_path: Path
) -> None:
    model = build()
    model.add_experts(ExtraExperts(sources=((1, 4), (0, 2)), routing="append"))
    with pytest.raises(ConfigError, match="appended"):
        export_text_side(saved(model), tmp_path / "out")
    model = build()
    members = torch.arange(8).expand(2, 8) < 3
    model.split(members)
    model.config = replace(model.config, routing={"text": "text", "audio": "audio"})
    with pytest.raises(ConfigError, match="goes to the text experts alone"):
        export_text_side(saved(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_is_left_as_it_is(
    build: Build, saved: Callable[..., Path], tmp_path: Path
) -> None:
    source, out = saved(build()), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in (out, tmp_path / "file"):
        with pytest.raises(CheckpointError, match="exists already"):
            export_text_side(source, taken)
    with pytest.raises(CheckpointError, match="can't be written"):
        export_text_side(source, tmp_path / "file" / "below")
    (out / "notes.txt").unlink()
    export_text_side(source, out)
    assert sorted(path.name for path in out.iterdir()) == [
        *("chat_template.jinja", "config.json", "generation_config.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"bytes.json", "file", "model", "out"}
