"""Lossless stages leave text to the backbone, bit for bit, while copies learn to speak; and MoExtend."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deeptalk.backbone.extra import ExtraExperts, ExtraRouting, is_extra_name
from deeptalk.codec import SineCodec, save_codec
from deeptalk.errors import ConfigError
from deeptalk.experts import ExpertPartition, Routing, groups_of, router_mask
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.weights import load, save
from deeptalk.recipes.pocket import POCKET_ENCODER, POCKET_LAYOUT
from deeptalk.recipes.variants import (
    BY_LOAD,
    LOSSLESS_AUDIO,
    LOSSLESS_JOINT,
    MOEXTEND_AUDIO,
    MOEXTEND_JOINT,
    MOEXTEND_TEXT,
)
from deeptalk.streams import TEXT, Batch, StreamLayout, Turn, collate, encode_dialogue
from deeptalk.streams.layout import IGNORE
from deeptalk.streams.text import ByteTokenizer
from deeptalk.training.lossless import TextOfTextRows, text_of_text_rows
from deeptalk.training.objective import Task
from deeptalk.training.optim import AdamW
from deeptalk.training.parts import EncoderPart, TextPart
from deeptalk.training.recipe import Appended, Copies, Recipe
from deeptalk.training.run import open_stage, run_stage
from deeptalk.training.stage import Places
from deeptalk.training.supervised import Supervised
from deeptalk.training.trainable import freeze_all_but

SOURCES = ((1, 4, 6), (0, 2, 7))
QWEN = {
    "model_type": "qwen3_moe",
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 257,
}


def build(family: str) -> DeepTalk:
    torch.manual_seed(0)
    config = DeepTalkConfig.tiny()
    return DeepTalk(replace(config, backbone=QWEN) if family == "qwen3_moe" else config)


def batch_of(*modes: str) -> Batch:
    """In mode ``text`` a written question answered in writing, else a spoken one answered in speech."""
    layout, tokenizer = StreamLayout.tiny(), ByteTokenizer()
    codes = torch.randint(0, layout.codebook_size, (4, 7), generator=torch.Generator().manual_seed(0))
    written = [Turn(role="user", text="two?"), Turn(role="assistant", text="Two.")]
    spoken = [Turn(role="user", num_speech_frames=5), Turn(role="assistant", text="Yes.", codes=codes)]
    turns = [written if mode == "text" else spoken for mode in modes]
    examples = [
        encode_dialogue(turn, tokenizer=tokenizer, layout=layout, mode=mode)
        for turn, mode in zip(turns, modes, strict=True)
    ]
    clips = [[] if mode == "text" else [torch.linspace(-1, 1, 160).view(8, 20)] for mode in modes]
    return collate(examples, clips, layout=layout, is_encoded=False, stride=2)


def stock_hash(model: DeepTalk) -> str:
    digest = sha256()
    for name, tensor in model.backbone.state_dict().items():
        if not is_extra_name(name):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("family", "routing"), [("deepseek_v2", "overlay"), ("qwen3_moe", "union")])
def test_text_logits_equal_the_backbones_before_and_after_fifty_steps(
    family: str, routing: ExtraRouting
) -> None:
    model, text = build(family), batch_of("text")
    with torch.no_grad():
        ids = text.grid[:, TEXT]
        stock = model.backbone.model(input_ids=ids).logits
        assert torch.equal(model(text).logits.text, stock)
        model.add_experts(ExtraExperts(sources=SOURCES, routing=routing))
        assert torch.equal(model(text).logits.text, stock)
    per_token = model.backbone.layers.experts_per_token
    partition = ExpertPartition(is_audio=model.is_audio(), experts_per_token=per_token)
    assert LOSSLESS_JOINT.routing is not None
    mask = router_mask(partition, LOSSLESS_JOINT.routing)
    objective = Supervised(text_weight=0.4, balance_weight=0.01, router_mask=mask)
    trains = tuple(pattern for pattern in LOSSLESS_JOINT.trains if pattern != "hearing.*")  # it has no head
    free = freeze_all_but(model, trains)
    optimizer = AdamW(lr=1e-2, weight_decay=0.1).build(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = stock_hash(model)
    task, batch = Task(model, objective).train(), text_of_text_rows(batch_of("speaker:slt", "text", "asr"))
    losses, generator = [], torch.Generator()
    for _ in range(50):
        loss = objective.total(task(batch, generator), objective.counts(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.5 * losses[0]
    assert stock_hash(model) == frozen
    after = model.eval().state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == set(free)
    assert not after["embedding.text_extra"][1:].any()  # PAD_T and AUD
    assert not any(after[f"embedding.codec.{i}.weight"][model.layout.pad_audio].any() for i in range(7))
    with torch.no_grad():
        assert torch.equal(model(text).logits.text, stock)
        assert torch.equal(model.backbone.model(input_ids=ids).logits, stock)
        groups = groups_of(text.kind, text.row)
        masked = model(text, router_mask=mask, groups=groups).logits.text
        assert torch.equal(masked, stock)
        forced = model(text, router_mask=mask, groups=torch.ones_like(groups)).logits.text
        assert not torch.allclose(forced, stock, atol=1e-2)


@pytest.mark.parametrize("family", ["deepseek_v2", "qwen3_moe"])
@torch.no_grad()
def test_overlay_begins_as_the_backbone_even_where_copies_are_open(family: str) -> None:
    model, text = build(family).eval(), batch_of("text", "text")
    stock = model(text).logits.text
    model.add_experts(ExtraExperts(sources=SOURCES))
    groups = torch.ones_like(text.kind)
    output = model(text, groups=groups, collect=True)
    assert any((router.experts >= 8).any() for router in output.router or ())
    torch.testing.assert_close(output.logits.text, stock, atol=1e-6, rtol=0)


@torch.no_grad()
def test_copies_are_open_by_kind_and_row_alone() -> None:
    text, mixed = batch_of("text", "text"), batch_of("speaker:slt", "asr", "text")
    assert not groups_of(text.kind, text.row).any()
    flags = groups_of(mixed.kind, mixed.row)
    is_bracket_or_frame = mixed.grid[:, TEXT] == StreamLayout.tiny().text_aud
    p0 = int((mixed.grid[0, 1] == StreamLayout.tiny().speaker("slt")).nonzero())
    is_answer = torch.arange(flags.shape[1]) >= p0
    assert torch.equal(flags[0].bool(), (is_bracket_or_frame[0] | is_answer) & mixed.mask[0])
    assert torch.equal(flags[1:].bool(), is_bracket_or_frame[1:])
    model = build("deepseek_v2").eval()
    model.add_experts(ExtraExperts(sources=SOURCES, routing="union"))
    for batch in (text, mixed):  # no groups given: the model sees to them
        routers = model(batch, collect=True).router or ()
        open_to = [~router.logits[:, 8:].isneginf() for router in routers]
        expected = groups_of(batch.kind, batch.row).bool().view(-1, 1).expand(-1, 3)
        assert all(torch.equal(own, expected) for own in open_to)


def test_text_is_learnt_from_text_rows_alone() -> None:
    batch = batch_of("speaker:slt", "asr", "text")
    own = text_of_text_rows(batch)
    assert (batch.labels[0, TEXT] != IGNORE).any()
    assert (own.labels[0, TEXT] == IGNORE).all()
    assert torch.equal(own.labels[1:], batch.labels[1:])
    assert torch.equal(own.labels[:, 1:], batch.labels[:, 1:])


Complete = Callable[[Recipe], Path]


@pytest.fixture
def align(root: Path, data: Path) -> Path:
    """The result of a stage 1 with a random model."""
    hearing, text = POCKET_ENCODER.model.tiny(), TextPart(backbone={}, layout=POCKET_LAYOUT).tiny()
    assert isinstance(hearing, EncoderPart)
    torch.manual_seed(0)
    tiny = DeepTalkConfig.tiny()
    adapter = replace(tiny.adapter, levelled=True, worded=True)
    config = replace(
        tiny, encoder=hearing.encoder, adapter=adapter, backbone=text.backbone, layout=POCKET_LAYOUT
    )
    folder = root / "pocket-brief-align" / "model"
    save(DeepTalk(config), folder, tokenizer_path=data / "tokenizer.json", provenance={})
    save_codec(SineCodec(num_codebooks=7, codebook_size=512), folder / "codec")
    return folder


def tiny(recipe: Recipe) -> Recipe:
    own = replace(recipe.tiny(), average=None, encoded_passes=1)
    if isinstance(own.partition, Copies):
        return replace(own, partition=Copies(of=replace(BY_LOAD, num_audio_experts=3, num_batches=2)))
    return replace(own, partition=Appended(sources=(1, 4, 6))) if own.partition is not None else own


def moved(before: Path, after: Path) -> set[str]:
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys()
    return {name for name in new if not torch.equal(old[name], new[name])}


def test_lossless_stages_from_stage_1_on(complete: Complete, align: Path, root: Path, data: Path) -> None:
    audio = complete(tiny(LOSSLESS_AUDIO))
    joint = complete(tiny(LOSSLESS_JOINT))
    before = load_file(align / "model.safetensors")
    for folder in (audio, joint):
        model = load(folder)
        assert model.config.is_lossless
        state = model.backbone.model.state_dict()
        stock = {n: t for n, t in before.items() if n.startswith("backbone.")}
        for name, tensor in stock.items():
            own = name.removeprefix("backbone.").replace(".experts.", ".experts.stock.")
            assert torch.equal(state[own], tensor), name
        sources = model.config.extra_experts.sources  # type: ignore[union-attr]
        assert all(len(layer) == 3 for layer in sources)
    weights = (folder / "backbone" / "model.safetensors" for folder in (audio, joint))
    assert len({path.read_bytes() for path in weights}) == 1
    learnt = moved(audio, joint)
    assert any(".experts.extra." in name for name in learnt)
    assert any(".extra_router." in name for name in learnt)
    assert not any(name.startswith("encoder.") for name in learnt)

    places, again = Places(root=root, data=data), replace(tiny(LOSSLESS_AUDIO), name="again")
    stage = open_stage(replace(tiny(LOSSLESS_JOINT), name="joint-again"), places)
    batches = stage.batches(rank=0, world_size=1)
    assert isinstance(batches, TextOfTextRows)
    position = batches.state_dict()
    first = next(batches)
    assert (first.labels[first.row == 1, TEXT] == IGNORE).all()
    batches.load_state_dict(position)
    assert torch.equal(next(batches).grid, first.grid)
    assert batches.num_batches_per_epoch() > 0
    for partition in (again.partition, BY_LOAD):
        other = replace(again, starts_from=("pocket-lossless-audio-experts",), partition=partition)
        with pytest.raises(ConfigError, match="copies are made once"):
            open_stage(other, places)
    with pytest.raises(ConfigError, match="the backbone of a lossless model stays as it is"):
        list(run_stage(replace(again, trains=("backbone.*",)), root=root, data=data))


def test_moextend_from_stage_1_on(complete: Complete, align: Path) -> None:
    audio = complete(tiny(MOEXTEND_AUDIO))
    joint = complete(replace(tiny(MOEXTEND_JOINT), starts_from=(MOEXTEND_AUDIO.name,)))
    before, after = (load_file(folder / "model.safetensors") for folder in (align, audio))
    assert {name for name in after if name not in before} == {n for n in after if is_extra_name(n)}
    kept = [name for name in before if name.startswith("backbone.")]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    experts = "backbone.model.layers.1.mlp.experts.gate_up_proj"
    copies = after[experts.replace("experts.", "experts.extra.")]
    assert not torch.equal(copies, before[experts][[1, 4, 6]])
    learnt = moved(audio, joint)
    assert {experts, "backbone.model.layers.1.mlp.extra_router.rows"} <= learnt
    model = load(joint)
    assert model.config.extra_experts == ExtraExperts(sources=((1, 4, 6),) * 2, routing="append")
    assert Routing(**model.config.routing).is_free  # type: ignore[arg-type]
    freed = freeze_all_but(model, MOEXTEND_TEXT.trains)
    assert freed
    assert all(".experts.stock." in name for name in freed)
