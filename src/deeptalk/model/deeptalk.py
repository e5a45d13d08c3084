"""The speech-dialogue model: speech and eight streams in, logits of eight streams out, one backbone between.

Axes: B batch, K streams, T positions, N clips, F mel frames, U2 and U frames before and after the adapter,
D model width.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from deeptalk.audio.log_mel import MelSpec
from deeptalk.backbone import Backbone, BackboneOutput, RouterMask, RouterOutput, open_backbone
from deeptalk.backbone.banks import fuse_experts, split_experts
from deeptalk.backbone.extra import ExtraExperts, add_extra_experts
from deeptalk.errors import ConfigError
from deeptalk.model.adapter import Adapter
from deeptalk.model.alignment import AlignmentHeads, HearingHead
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.embedding import StreamEmbedding, root_mean_square
from deeptalk.model.encoder import SpeechEncoder
from deeptalk.model.heads import Heads, StreamLogits
from deeptalk.shapes import Bool, Float, Int, Tensor
from deeptalk.streams import Batch, StreamLayout
from deeptalk.streams.modality import is_audio
from deeptalk.streams.text import TextCodec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeepTalkOutput:
    """Logits of all streams at all positions, and the routers' decisions where they were collected."""

    logits: StreamLogits
    router: tuple[RouterOutput, ...] | None


class DeepTalk(nn.Module):
    """Encoder, adapter, stream embeddings, backbone and heads.

    The text table and the text head are the backbone's own. A pretrained encoder or backbone may be handed
    in; what is not, is made with random weights.
    """

    def __init__(
        self,
        config: DeepTalkConfig,
        *,
        encoder: SpeechEncoder | None = None,
        backbone: Backbone | None = None,
        tokenizer: TextCodec | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.encoder = encoder or SpeechEncoder(config.encoder)
        self.adapter = Adapter(config.adapter)
        self.backbone = backbone or open_backbone(dict(config.backbone))
        self._check_parts()
        if config.extra_experts is not None:
            add_extra_experts(self.backbone, config.extra_experts)
        width = config.adapter.out_width
        self.embedding = StreamEmbedding(config.layout, width=width, fusion=config.fusion)
        self.heads = Heads(config.layout, width=width)
        self.alignment: AlignmentHeads | None = None
        self.hearing = HearingHead(width) if config.adapter.worded else None
        if not self.embedding.text_extra.is_meta and not self.text_table.is_meta:
            self.embedding.initialise(rms=root_mean_square(self.text_table))
            if self.adapter.level is not None:
                nn.init.constant_(self.adapter.level, root_mean_square(self.text_table))

    @property
    def layout(self) -> StreamLayout:
        """Names and sizes of the streams."""
        return self.config.layout

    @property
    def mel(self) -> MelSpec:
        """The spectrogram that the encoder hears."""
        return self.config.mel

    @property
    def text_table(self) -> Tensor:
        """The backbone's text table ``[V, D]``."""
        return self.backbone.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        """Where the model stands."""
        return self.text_table.device

    @property
    def word_head(self) -> HearingHead | None:
        """The `HearingHead` where it is part of the model (``worded``), None where it only helps training."""
        return self.hearing if self.config.adapter.worded else None

    def forward(
        self,
        batch: Batch,
        *,
        router_mask: RouterMask | None = None,
        groups: Int[Tensor, "B T"] | None = None,
        collect: bool = False,
    ) -> DeepTalkOutput:
        """Logits of every stream at every position of a batch.

        ``router_mask`` and ``groups`` come together; ``collect`` asks for the routers' decisions.
        """
        states = self.hidden(batch, router_mask=router_mask, groups=groups, collect=collect)
        logits = self.heads(states.hidden, text_head=self.backbone.lm_head)
        return DeepTalkOutput(logits=logits, router=states.router)

    def hidden(
        self,
        batch: Batch,
        *,
        router_mask: RouterMask | None = None,
        groups: Int[Tensor, "B T"] | None = None,
        collect: bool = False,
        speech: Float[Tensor, "N U D"] | None = None,
    ) -> BackboneOutput:
        """The states below the heads, for a loss that needs logits at a few positions only.

        ``speech`` are the batch's speech frames where the caller has them from `add_words`. Of a
        lossless model, audio positions may choose copies, by kind and row alone where no groups are given.
        """
        if groups is None and self.config.is_lossless:
            groups = is_audio(batch.kind, batch.row).long()
        if speech is None:
            frames = self.speech_frames(batch)
            speech = None if frames is None else self.add_words(frames)
        x = self.embed(batch.grid, speech=speech, speech_at=batch.speech_at)
        return self.backbone(x, mask=batch.mask, groups=groups, router_mask=router_mask, collect=collect)

    def embed(
        self,
        grid: Int[Tensor, "B K T"],
        *,
        speech: Float[Tensor, "N U D"] | None = None,
        speech_at: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The backbone's input: the streams fused, speech frames at the places that ``speech_at`` names."""
        return self.embedding(grid, text_table=self.text_table, speech=speech, speech_at=speech_at)

    def encode_speech(
        self, mel: Float[Tensor, "N M F"], lengths: Int[Tensor, " N"]
    ) -> Float[Tensor, "N U D"]:
        """Speech frames of log-mel clips; ``lengths`` counts mel frames."""
        encoded = self.encoder(mel, lengths)
        return self.add_words(self.adapter(encoded.frames, encoded.lengths))

    def heard_words(self, frames: Float[Tensor, "*N U D"]) -> Float[Tensor, "*N U V+1"] | None:
        """Log-probabilities of what each frame may say, nothing last; None where there is no such head."""
        return None if self.hearing is None else self.hearing.log_probs(frames, self.text_table)

    def add_words(
        self,
        frames: Float[Tensor, "*N U D"],
        *,
        heard: Float[Tensor, "*N U V+1"] | None = None,
        is_kept: Bool[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "*N U D"]:
        """What the adapter gives as the backbone reads it: the same, unless the adapter is ``worded``.

        Then the text embeddings of what each frame may say, weighted by its probability, are added, in the
        size that text has behind the fusion; the row of EOT stands for nothing said. Of clips that
        ``is_kept`` leaves out, the backbone gets these alone. ``heard`` is what `heard_words` gives, where
        the caller has it.
        """
        if self.word_head is None:
            return frames
        heard = self.heard_words(frames) if heard is None else heard
        assert heard is not None, "a worded model has the head"
        likely = heard.exp().to(frames.dtype)
        pause = self.embedding.text_extra[self.layout.text_eot - self.layout.vocab_size]
        words = likely[..., :-1] @ self.text_table + likely[..., -1:] * pause
        words = words / self.embedding.frame_weight
        return words + (frames if is_kept is None else frames * is_kept[:, None, None])

    def learn_alignment(
        self, *, word_layer: int, phone_layer: int, num_phones: int, phones_per_frame: int
    ) -> None:
        """Add the heads of `AlignmentHeads` over two layers of the backbone; they are never saved."""
        self.backbone.keep(*{word_layer, phone_layer})
        self.alignment = AlignmentHeads(
            self.backbone.hidden_size, num_phones=num_phones, phones_per_frame=phones_per_frame
        )

    def learn_hearing(self) -> None:
        """Add the `HearingHead` over the adapter; it is saved where the adapter is ``worded``."""
        if self.hearing is None:
            self.hearing = HearingHead(self.backbone.hidden_size)

    def split(self, is_audio: Bool[Tensor, "L E"] | None = None) -> None:
        """Divide the experts into a text and an audio bank, by ``is_audio`` or as the config says, in place.

        The partition is kept in ``config``. Parameters become new objects: make the optimizer afterwards.
        Extra experts stand in a bank of their own from the start, so that nothing is left to do.
        """
        if is_audio is None and self.config.extra_experts is not None:
            return
        if is_audio is None:
            is_audio = self.is_audio()
        experts = tuple(tuple(layer.nonzero().flatten().tolist()) for layer in is_audio)
        split_experts(self.backbone, is_audio)
        self.config = replace(self.config, audio_experts=experts)

    def fuse(self) -> None:
        """Undo ``split`` in place: stock experts in stock order; the config keeps the partition."""
        fuse_experts(self.backbone)

    def add_experts(self, extra: ExtraExperts) -> None:
        """Copy experts beside the backbone's own, in place; they are the audio experts from now on.

        It is done once: the config says so, and copies come back from disk as they were trained. Raises
        `ConfigError` where that has been, or the experts are divided. Make the optimizer afterwards.
        """
        if self.config.extra_experts is not None or self.config.audio_experts is not None:
            raise ConfigError(
                "This model has its audio experts already; copies are made once, after stage 1."
            )
        routing = {"text": "text", "audio": "all"} if extra.is_lossless else self.config.routing
        config = replace(self.config, extra_experts=extra, routing=routing)
        add_extra_experts(self.backbone, extra)
        self.config = config

    def is_audio(self) -> Bool[Tensor, "L E"]:
        """Which experts of each layer are the config's audio experts."""
        shape = self.backbone.layers
        given, extra = self.config.audio_experts, self.config.extra_experts
        if given is None and extra is None:
            raise ConfigError("This model's experts are not divided yet; make a partition first.")
        table = torch.zeros(shape.num_moe_layers, shape.num_experts, dtype=torch.bool)
        if extra is not None:
            table[:, -extra.num_experts :] = True
            return table
        assert given is not None
        if len(given) != len(table) or not all(0 <= e < shape.num_experts for layer in given for e in layer):
            raise ConfigError(
                f"audio_experts must name experts 0 to {shape.num_experts - 1} of {len(table)} layers."
            )
        for layer, experts in enumerate(given):
            table[layer, list(experts)] = True
        return table

    def speech_frames(self, batch: Batch) -> Float[Tensor, "N U D"] | None:
        """What the adapter makes of a batch's speech, None where it has none; `add_words` comes next."""
        if batch.mel is not None:
            encoded = self.encoder(batch.mel, batch.speech_lengths)
            return self.adapter(encoded.frames, encoded.lengths)
        if batch.encoded is not None:
            encoded = batch.encoded.to(next(self.adapter.parameters()).dtype)
            return self.adapter(encoded, batch.speech_lengths)
        return None

    def _check_parts(self) -> None:
        rows, width = self.backbone.embed_tokens.weight.shape
        if rows != self.layout.vocab_size or width != self.config.adapter.out_width:
            raise ConfigError(
                f"The backbone's text table is [{rows}, {width}], but layout.vocab_size is "
                f"{self.layout.vocab_size} and adapter.out_width {self.config.adapter.out_width}."
            )
        if self.encoder.settings != self.config.encoder:
            raise ConfigError(
                f"The encoder was made with {self.encoder.settings}, "
                f"the model's config says {self.config.encoder}."
            )
