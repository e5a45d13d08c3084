"""Stages 1 to 3: eight streams of a dialogue, each learning its next token."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from deeptalk.backbone import BackboneOutput, RouterMask, sequence_balance_loss
from deeptalk.errors import ConfigError
from deeptalk.experts import groups_of
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.streams.batch import Batch
from deeptalk.streams.layout import IGNORE, TEXT
from deeptalk.training.loss import (
    Reduction,
    exact_rows,
    reduce_streams,
    stream_counts,
    stream_sums,
    text_against,
)
from deeptalk.training.objective import Measure, Term, added, weighted_means


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """Cross-entropy of the word and of the phones that an answer is saying, read off two decoder layers.

    Not in the paper, whose backbone of 16 B parameters finds by itself which word to say next. A small one
    learns spoken sentences by heart instead; told where it is, it learns to look.
    """

    word_weight: float = 1.0
    phone_weight: float = 1.0
    word_layer: int = 3
    phone_layer: int = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised:
    """Cross-entropy of text and of each codebook, the balance loss of the backbone, and `Alignment` if given.

    With `code_noise` a share of the codes that a row reads of its own answer, drawn for each row from 0 to
    this, are codes of chance: what follows must come from the text, as a decoded answer reads its own errors.
    With `hearing_weight` the speech frames behind the adapter learn to be like the text embeddings of what is
    said, by connectionist temporal classification: what the backbone knows from text, speech then reaches.
    Of a share of `words_alone` of the clips, a ``worded`` model reads the words that it heard and no frames.
    With `text_chunk` the text head runs on so many positions at a time, which a large one has memory for.
    `router_mask` is no setting: the run fills it in from partition and routing.
    """

    num_codebooks: int = 7
    text_weight: float = 1 / 8
    codec_weight: float = 1 / 8
    balance_weight: float = 0.0
    code_noise: float = 0.0
    hearing_weight: float = 0.0
    words_alone: float = 0.0
    alignment: Alignment | None = None
    reduction: Reduction = "head_mean"
    text_chunk: int | None = added(None)
    router_mask: RouterMask | None = field(
        default=None, repr=False, compare=False, metadata={"setting": False}
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.code_noise <= 1.0:
            raise ConfigError(f"code_noise is a share from 0 to 1, got {self.code_noise}.")
        if self.text_chunk is not None and self.text_chunk < 1:
            raise ConfigError(f"text_chunk is a number of positions or None, got {self.text_chunk}.")
        if not 0.0 <= self.words_alone <= 1.0:
            raise ConfigError(f"words_alone is a share from 0 to 1, got {self.words_alone}.")

    def tiny(self) -> "Supervised":
        """The same loss of a backbone with three layers."""
        if self.alignment is None:
            return self
        return replace(self, alignment=replace(self.alignment, word_layer=1, phone_layer=2))

    @property
    def terms(self) -> tuple[Term, ...]:
        """Text, the codebooks, balance, and what is heard, words and phones where they are learnt."""
        said = self.alignment
        codec = (Term(name=f"codec_{i}", weight=self.codec_weight) for i in range(self.num_codebooks))
        return (
            Term(name="text", weight=self.text_weight),
            *codec,
            Term(name="balance", weight=self.balance_weight),
            *((Term(name="heard", weight=self.hearing_weight),) if self.hearing_weight else ()),
            *(
                (Term(name="words", weight=said.word_weight), Term(name="phones", weight=said.phone_weight))
                if said is not None
                else ()
            ),
        )

    def num_positions(self, batch: Batch) -> int:
        """Positions that are no padding."""
        return int(batch.mask.sum())

    def counts(self, batch: Batch) -> Tensor:
        """Supervised tokens of each stream, sequences, tokens of what is heard, words and phones."""
        streams = stream_counts(batch.labels)
        rest = [streams.new_tensor([len(batch.mask) if self.balance_weight else 0])]
        if self.hearing_weight:
            known = 0 if batch.heard is None else (batch.heard != IGNORE).sum()
            rest.append(streams.new_tensor([known]))
        if self.alignment is not None:
            known = streams.new_zeros(2)
            if batch.said is not None:
                is_known = batch.said != IGNORE
                known = torch.stack([is_known[..., 0].sum(), is_known[..., 1:].sum()]).float()
            rest.append(known)
        return torch.cat([streams, *rest])

    def sums(self, model: DeepTalk, batch: Batch, *, generator: torch.Generator) -> Tensor:
        """Summed cross-entropies; behind those of the streams the balance loss, once for each sequence."""
        if self.code_noise:
            batch = disturb_codes(
                batch, most=self.code_noise, codebook_size=model.layout.codebook_size, generator=generator
            )
        frames = model.speech_frames(batch)
        speech = log_probs = None
        if frames is not None:
            is_kept = None
            if self.words_alone:
                chance = torch.rand(len(frames), generator=generator, device=frames.device)
                is_kept = chance >= self.words_alone
            log_probs = model.heard_words(frames)
            speech = model.add_words(frames, heard=log_probs, is_kept=is_kept)
        output = self._run(model, batch, collect=self.balance_weight > 0, speech=speech)
        heads = (model.backbone.lm_head, *model.heads.codec)
        sums = stream_sums(output.hidden, heads, batch.labels, chunk=self.text_chunk)
        balance = sums.new_zeros(())
        if output.router is not None:
            balance = sequence_balance_loss(output.router, batch.mask) * len(batch.mask)
        heard = [_heard_sum(model, batch, log_probs)[None]] if self.hearing_weight else []
        said = [] if self.alignment is None else [_said_sums(self.alignment, model, output, batch)]
        return torch.cat([sums, balance[None], *heard, *said])

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The streams by `reduction`, plus the weighted means of the other terms."""
        size, terms = 1 + self.num_codebooks, self.terms
        streams = reduce_streams(terms[:size], sums[:size], counts[:size], reduction=self.reduction)
        return streams + weighted_means(terms[size:], sums[size:], counts[size:])

    def measures(self, model: DeepTalk, batch: Batch) -> Mapping[str, Measure]:
        """Rows with an exact text, and codes of the first codebook that are the likeliest."""
        hidden = self._run(model, batch, collect=False, speech=None).hidden
        figures = {"exact_text": exact_rows(model.backbone.lm_head, hidden, batch.labels[:, TEXT])}
        if batch.backbone_says is not None:
            text = batch.labels[:, TEXT]
            figures |= text_against(model.backbone.lm_head, hidden, text, batch.backbone_says)
        chosen = batch.labels[:, 1] != IGNORE
        if chosen.any():
            right = model.heads.codec[0](hidden[chosen]).argmax(-1) == batch.labels[:, 1][chosen]
            figures["code_accuracy"] = Measure(total=float(right.sum()), count=float(chosen.sum()))
        return figures

    def _run(self, model: DeepTalk, batch: Batch, *, collect: bool, speech: Tensor | None) -> BackboneOutput:
        if self.router_mask is None:
            return model.hidden(batch, collect=collect, speech=speech)
        groups = groups_of(batch.kind, batch.row)
        return model.hidden(
            batch, router_mask=self.router_mask, groups=groups, collect=collect, speech=speech
        )


def _heard_sum(model: DeepTalk, batch: Batch, log_probs: Tensor | None) -> Tensor:
    """Minus the log-likelihood of what the batch's clips say; zero where nobody knows."""
    head = model.hearing
    assert head is not None, "a stage that learns to hear has added the head"
    if log_probs is None or batch.heard is None:
        return sum(0.0 * parameter.sum() for parameter in head.parameters())  # type: ignore[return-value]
    clips = torch.div(batch.speech_at[batch.speech_at >= 0], log_probs.shape[1], rounding_mode="floor")
    lengths = clips.bincount(minlength=len(log_probs))
    is_known = batch.heard != IGNORE
    has_text = is_known.any(-1)
    return F.ctc_loss(
        log_probs[has_text].transpose(0, 1),
        batch.heard[has_text].clamp(min=0),
        lengths[has_text],
        is_known.sum(-1)[has_text],
        blank=log_probs.shape[-1] - 1,
        reduction="sum",
        zero_infinity=True,
    )


def _said_sums(settings: Alignment, model: DeepTalk, output: BackboneOutput, batch: Batch) -> Tensor:
    """Summed cross-entropy of words and of phones, in this order; zero where nobody knows what is said."""
    heads = model.alignment
    assert heads is not None, "a stage that aligns has added the heads"
    said = batch.said
    if said is None:
        said = batch.grid.new_full((*batch.mask.shape, 1 + heads.phones_per_frame), IGNORE)
    words, phones = said[..., 0], said[..., 1:]
    is_word, is_phone = words != IGNORE, (phones != IGNORE).any(-1)
    word_logits = heads.word_logits(output.layers[settings.word_layer][is_word], model.backbone.lm_head)
    phone_logits = heads.phone_logits(output.layers[settings.phone_layer][is_phone])
    return torch.stack(
        [
            F.cross_entropy(word_logits.float(), words[is_word], reduction="sum"),
            F.cross_entropy(
                phone_logits.float().flatten(0, 1),
                phones[is_phone].flatten(),
                ignore_index=IGNORE,
                reduction="sum",
            ),
        ]
    )


def disturb_codes(batch: Batch, *, most: float, codebook_size: int, generator: torch.Generator) -> Batch:
    """The batch with a share of its input codes, by row from 0 to `most`, replaced by codes of chance."""
    codes = batch.grid[:, 1:]
    share = most * torch.rand(len(codes), 1, 1, generator=generator, device=codes.device)
    is_hit = torch.rand(codes.shape, generator=generator, device=codes.device) < share
    chance = torch.randint(codebook_size, codes.shape, generator=generator, device=codes.device)
    disturbed = torch.where(is_hit & (codes < codebook_size), chance, codes)
    return replace(batch, grid=torch.cat([batch.grid[:, :1], disturbed], dim=1))
