"""What a stage takes from text, measured against the text backbone while it trains, and bounded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from deeptalk.backbone import Backbone, open_backbone
from deeptalk.backbone.stock import stock_hash
from deeptalk.errors import ConfigError, DeepTalkError
from deeptalk.model.origin import origin_of
from deeptalk.streams import Batch
from deeptalk.streams.layout import IGNORE, TEXT
from deeptalk.training.evaluate import evaluate
from deeptalk.training.loop import Forward
from deeptalk.training.objective import Task
from deeptalk.training.stage_dialogue import DialogueStage

NUM_TOKENS = 1_024
"""Tokens of text that are measured, at most."""


class TextLostError(DeepTalkError):
    """Text has lost more than it may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextBound:
    """How much text may lose: nats of cross-entropy per token more than ``backbone``, a folder, has.

    ``manifest`` names texts of the data that nothing trains on.
    """

    backbone: Path
    most: float
    manifest: str = "text_eval"

    def __post_init__(self) -> None:
        if not self.most >= 0:
            raise ConfigError(f"text may lose a number of nats from 0, got {self.most}.")


class TextGate:
    """A fixed set of texts, and what the text backbone says of each token."""

    def __init__(self, batches: Sequence[Batch], *, most: float) -> None:
        self._batches, self._most = batches, most

    def measure(self, task: Task, forward: Forward) -> Mapping[str, float]:
        """``text_nats``, ``text_nats_backbone`` (cross-entropies) and ``text_kl``, means over tokens.

        Raises:
            TextLostError: text has lost more than it may.
        """
        found = evaluate(task, self._batches, forward=forward)
        told = {name: found[name] for name in ("text_nats", "text_nats_backbone", "text_kl")}
        lost = told["text_nats"] - told["text_nats_backbone"]
        if not lost <= self._most:
            raise TextLostError(
                f"text has lost {lost:.3f} nats per token ({told['text_nats_backbone']:.3f} in the backbone, "
                f"{told['text_nats']:.3f} now), more than the {self._most:g} that it may; what was saved "
                "before stays, and --resume goes on from there with a larger bound."
            )
        return told


def open_gate(stage: object, bound: TextBound) -> TextGate:
    """The gate of a stage: its texts as it reads them, asked of the text backbone once.

    Raises:
        ConfigError: the stage trains no model of text and speech, its model was made of another backbone,
            or the manifest has no texts.
    """
    if not isinstance(stage, DialogueStage):
        raise ConfigError("a bound on what text may lose is for stages 1 to 3, which have a text backbone.")
    before = stage.recipe.starts_from
    own = next(filter(None, (origin_of(stage.places.result(name)) for name in before)), None)
    given = stock_hash(bound.backbone)
    if own is not None and own != given:
        raise ConfigError(
            f"{bound.backbone} has the hash {given}, and {stage.recipe.name!r} begins with a model of {own}: "
            "text is held against its own backbone."
        )
    backbone = open_backbone(bound.backbone, dtype=stage.recipe.dtype)
    texts = stage.texts(bound.manifest)
    batches = list(_said_by(backbone, islice(texts, texts.num_batches_per_epoch())))
    if not batches:
        raise ConfigError(f"{bound.manifest} of the data has no text to measure.")
    return TextGate(batches, most=bound.most)


@torch.no_grad()
def _said_by(backbone: Backbone, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches until so many tokens are measured, each with the backbone's log-probabilities of them."""
    left, vocab_size = NUM_TOKENS, backbone.embed_tokens.num_embeddings
    for batch in batches:
        labels = torch.full_like(batch.labels, IGNORE)
        chosen = (batch.labels[:, TEXT] != IGNORE).nonzero()[:left]
        rows, places = chosen.unbind(1)
        labels[rows, TEXT, places] = batch.labels[rows, TEXT, places]
        ids = batch.grid[:, TEXT].clamp(max=vocab_size - 1)  # larger ones stand behind the text alone
        hidden = backbone(backbone.embed_tokens(ids), mask=batch.mask).hidden
        said = backbone.lm_head(hidden[labels[:, TEXT] != IGNORE]).float().log_softmax(-1)
        left -= len(chosen)
        yield replace(batch, labels=labels, backbone_says=said)
        if left <= 0:
            return
