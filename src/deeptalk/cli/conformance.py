"""The whole method on a tiny model of every supported family: what ``deeptalk doctor --families`` shows.

The stock library writes a random checkpoint in shards; it is opened, its expert load measured, its experts
divided, one masked step of every stage of the paper taken, and the result fused and written in shards again,
which the stock library then has to read as the same model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deeptalk.backbone import RouterMask, open_backbone
from deeptalk.backbone.checkpoint import weight_files
from deeptalk.backbone.families import SELECTIONS
from deeptalk.backbone.stock import quiet, save_stock
from deeptalk.backbone.tiny import FAMILIES
from deeptalk.data.preference import Pair, PairAnswer, PreferenceBatch, collate_pairs, encode_pair
from deeptalk.errors import DeepTalkError
from deeptalk.experts import ExpertPartition, groups_of, partition_by_load, profile_load, router_mask
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.recipes import PIPELINE, Recipe
from deeptalk.recipes.preference import PREFERENCE
from deeptalk.shapes import Tensor
from deeptalk.streams import Batch, StreamLayout, Turn, collate, encode_dialogue
from deeptalk.streams.text import ByteTokenizer
from deeptalk.training.preference import reference_log_probs
from deeptalk.training.trainable import freeze_all_but

TOLERANCE = 1e-5
"""The largest difference that two logits of the same model may have, computed by different kernels."""

_STAGES = (*PIPELINE, PREFERENCE)
_NUM_AUDIO_EXPERTS = 4
_SHARD_SIZE = "60KB"
_LEARNING_RATE = 1e-2


class ConformanceError(DeepTalkError):
    """A step of the method that a family doesn't come through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conformance:
    """How one family came through the method, with the largest difference of any logit.

    ``open_difference`` lies between the stock model and ours that was opened from its files,
    ``stock_difference`` between ours after all ``stages`` and the stock model that was read from our files.
    """

    family: str
    router: str
    selection: str
    num_shards: int
    stages: tuple[str, ...]
    open_difference: float
    stock_difference: float


def conform(name: str, folder: Path) -> Conformance:
    """Take one of `FAMILIES` through the method; its checkpoints are written below ``folder``.

    Raises:
        ConformanceError: a step goes wrong.
        DeepTalkError: the family is refused with this version of ``transformers``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stock = _write_stock(FAMILIES[name], folder / "stock")
        backbone = open_backbone(folder / "stock")
        settings = backbone.model.config.to_dict()
        model = DeepTalk(replace(DeepTalkConfig.tiny(), backbone=settings), backbone=backbone)
    opened = _difference(stock, backbone.model)
    batch = _batch(model.layout, "what", "who")
    texts = _batch(model.layout, "why", "two?")
    load = profile_load(model, [batch] * 2, [texts] * 2)  # of three samples: each is once even and once odd
    partition = partition_by_load(load, num_audio_experts=_NUM_AUDIO_EXPERTS)
    for recipe in _STAGES:
        if recipe.partition is not None:
            model.split(partition.is_audio)
        _train(model, recipe, partition, _pairs(model) if recipe is PREFERENCE else batch)
    model.fuse()
    save_stock(backbone, folder / "result", shard_size=_SHARD_SIZE)
    result: Any = AutoModelForCausalLM.from_pretrained(folder / "result", local_files_only=True)
    expected = backbone.model.state_dict()
    if any(not torch.equal(tensor, expected[key]) for key, tensor in result.state_dict().items()):
        raise ConformanceError("the stock library reads other tensors than were written.")
    return Conformance(
        family=name,
        router=type(backbone.model.get_submodule(backbone.router_names[0])).__name__,
        selection=SELECTIONS[type(backbone.hooks[0].rule)],
        num_shards=len(weight_files(folder / "result")),
        stages=tuple(recipe.name for recipe in _STAGES),
        open_difference=opened,
        stock_difference=_difference(backbone.model, result.eval()),
    )


def conform_all() -> Iterator[tuple[str, Conformance | DeepTalkError]]:
    """Every family by name, with how it came through or why it didn't."""
    for name in FAMILIES:
        with TemporaryDirectory() as folder:
            try:
                with quiet():
                    result = conform(name, Path(folder))
            except DeepTalkError as error:
                result = error
            yield name, result


def _write_stock(settings: Mapping[str, Any], folder: Path) -> Any:
    layout = StreamLayout.tiny()
    ids = {"vocab_size": layout.vocab_size, "bos_token_id": layout.bos_id, "eos_token_id": layout.eos_id}
    stock = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**settings, **ids})).eval()
    for name, tensor in stock.named_buffers():
        if name.endswith("e_score_correction_bias"):
            tensor.normal_(std=0.3)
    stock.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
    return stock


@torch.no_grad()
def _difference(left: Any, right: Any) -> float:
    """The largest difference of any logit of two stock models, on the ids of a few tokens."""
    ids = torch.arange(18).view(2, 9) * 7 % 256
    difference = float((left(input_ids=ids).logits - right(input_ids=ids).logits).abs().max())
    if not difference <= TOLERANCE:
        raise ConformanceError(f"logits differ by {difference:.1e}, more than {TOLERANCE}.")
    return difference


def _batch(layout: StreamLayout, *questions: str) -> Batch:
    """One question that is spoken and answered aloud, and written ones answered in writing."""
    generator = torch.Generator().manual_seed(len(questions[0]))
    codes = torch.randint(0, layout.codebook_size, (4, layout.num_codebooks), generator=generator)
    spoken = [
        Turn(role="user", num_speech_frames=5),
        Turn(role="assistant", text="Yes.", codes=codes, speaker="slt"),
    ]
    written = [
        [Turn(role="user", text=question), Turn(role="assistant", text="Two.")] for question in questions
    ]
    examples = [
        encode_dialogue(turns, tokenizer=ByteTokenizer(), layout=layout, mode=mode)
        for turns, mode in ((spoken, "speaker:slt"), *((turns, "text") for turns in written))
    ]
    mel = torch.randn(8, 20, generator=generator)
    return collate(examples, [[mel], *([] for _ in written)], layout=layout, is_encoded=False, stride=2)


def _pairs(model: DeepTalk) -> PreferenceBatch:
    """Two ways of saying a text, scored by the model as it is."""
    layout, generator = model.layout, torch.Generator().manual_seed(0)
    win, lose = (
        PairAnswer(codes=torch.randint(layout.codebook_size, (n, layout.num_codebooks), generator=generator))
        for n in (3, 4)
    )
    pair = Pair(prompt="Say yes.", text="Yes.", win=win, lose=lose, speaker="slt")
    batch = collate_pairs([encode_pair(pair, tokenizer=ByteTokenizer(), layout=layout)], layout=layout)
    return replace(batch, ref_log_prob=reference_log_probs(model, batch).clone())


def _train(
    model: DeepTalk, recipe: Recipe, partition: ExpertPartition, batch: Batch | PreferenceBatch
) -> None:
    """One step of a stage, with its own white list, routing, loss and optimiser."""
    trained = set(freeze_all_but(model, recipe.trains))
    objective: Any = recipe.objective
    if isinstance(batch, Batch) and recipe.routing is not None and not recipe.routing.is_free:
        mask = router_mask(partition, recipe.routing)
        _check_mask(model, batch, mask)
        objective = replace(objective, router_mask=mask)
    optimizer = replace(recipe.optim, lr=_LEARNING_RATE).build(model)
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    sums: Tensor = objective.sums(model, batch, generator=torch.Generator())
    loss = objective.total(sums, objective.counts(batch))
    loss.backward()
    optimizer.step()
    model.zero_grad()
    moved = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    idle = [pattern for pattern in recipe.trains if not any(fnmatchcase(name, pattern) for name in moved)]
    if not bool(loss.isfinite()) or idle or not moved <= trained:
        raise ConformanceError(
            f"stage {recipe.name}: loss {loss.item():.3g}; nothing moved of {idle}; moved without being "
            f"named: {sorted(moved - trained)}."
        )


@torch.no_grad()
def _check_mask(model: DeepTalk, batch: Batch, mask: RouterMask) -> None:
    groups = groups_of(batch.kind, batch.row)
    output = model.hidden(batch, router_mask=mask, groups=groups, collect=True)
    for layer, router in enumerate(output.router or ()):
        if not bool(mask.allowed(layer, groups.flatten()).gather(-1, router.experts).all()):
            raise ConformanceError(f"a token of layer {layer} chose an expert that its mask forbids.")
