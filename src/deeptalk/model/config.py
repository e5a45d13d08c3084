"""What a DeepTalk model is made of, as the plain values of its config.json."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from deeptalk.audio.log_mel import MelSpec
from deeptalk.backbone.extra import ExtraExperts
from deeptalk.errors import ConfigError
from deeptalk.model.adapter import AdapterConfig
from deeptalk.model.embedding import Fusion
from deeptalk.model.encoder import MEL_FRAMES_PER_FRAME, EncoderConfig
from deeptalk.streams.layout import StreamLayout

ROUTES = ("all", "text", "audio")
"""The experts that the rows of a modality may use."""

LONGEST_PART_SECONDS = 30.0
"""A longer recording is written down in parts, whatever a model can hear at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepTalkConfig:
    """Every part of a model by its own config; ``backbone`` is a config of ``transformers`` as a dict.

    ``audio_experts`` names the audio experts of each mixture-of-experts layer, or is None before the experts
    are divided. ``routing`` says which experts text and speech rows use: ``all``, ``text`` or ``audio``.
    ``extra_experts`` says which experts have been copied: the copies are the audio experts then, and being
    made, are never made again. ``sentence_seconds`` is how long a sentence may be of a model that has learnt
    from single ones: what is longer than one and a half is written down in parts.
    """

    encoder: EncoderConfig
    adapter: AdapterConfig
    backbone: Mapping[str, Any]
    layout: StreamLayout
    mel: MelSpec = field(default_factory=MelSpec)
    fusion: Fusion = "mean8"
    audio_experts: tuple[tuple[int, ...], ...] | None = None
    routing: Mapping[str, str] = field(default_factory=lambda: {"text": "all", "audio": "all"})
    extra_experts: ExtraExperts | None = None
    sentence_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.sentence_seconds is not None and not 0.5 <= self.sentence_seconds < math.inf:
            raise ConfigError(
                f"sentence_seconds must be finite and at least 0.5, got {self.sentence_seconds}."
            )
        if self.fusion not in get_args(Fusion):
            raise ConfigError(f"fusion must be one of {', '.join(get_args(Fusion))}, got {self.fusion!r}.")
        if "model_type" not in self.backbone:
            raise ConfigError("backbone must be a config of transformers and name its model_type.")
        if any(not isinstance(e, int) for layer in self.audio_experts or () for e in layer):
            raise ConfigError("audio_experts must list expert numbers, one list per layer.")
        pairs = (
            ("encoder.num_mels", self.encoder.num_mels, "mel.num_mels", self.mel.num_mels),
            ("adapter.in_width", self.adapter.in_width, "encoder.d_model", self.encoder.d_model),
        )
        for left, ours, right, theirs in pairs:
            if ours != theirs:
                raise ConfigError(f"{left} is {ours} and {right} is {theirs}; they must be equal.")
        if self.encoder.mode == "chunked" and self.mel.reference != "fixed":
            raise ConfigError(
                "An encoder of mode chunked needs mel.reference 'fixed': it can't know a clip's end."
            )
        if set(self.routing) != {"text", "audio"} or any(r not in ROUTES for r in self.routing.values()):
            raise ConfigError(
                f"routing must give text and audio one of {', '.join(ROUTES)} each, got {dict(self.routing)}."
            )
        if self.extra_experts is not None and self.audio_experts is not None:
            raise ConfigError("A model has audio_experts or extra_experts, not both.")
        if self.is_lossless and (self.fusion != "sum" or self.routing["text"] != "text"):
            raise ConfigError(
                "A lossless model keeps text as its backbone has it: it needs fusion 'sum' and text routed "
                f"to 'text', got fusion {self.fusion!r} and text to {self.routing['text']!r}."
            )

    @property
    def is_lossless(self) -> bool:
        """Whether text rows read the backbone alone, whose weights no stage may move (method.md, 14)."""
        return self.extra_experts is not None and self.extra_experts.is_lossless

    @property
    def longest_clip_seconds(self) -> float:
        """How much speech the encoder can hear at a time."""
        num_mel_frames = MEL_FRAMES_PER_FRAME * self.encoder.max_positions
        return num_mel_frames * self.mel.hop_length / self.mel.sample_rate

    def longest_part_seconds(self, seconds: float) -> float:
        """How long the parts may be in which a recording of so many seconds is written down."""
        longest = min(LONGEST_PART_SECONDS, self.longest_clip_seconds)
        if self.sentence_seconds is None or self.is_one_sentence(seconds):
            return longest
        return min(longest, self.sentence_seconds)

    def is_one_sentence(self, seconds: float) -> bool:
        """Whether the model has learnt to hear so much at a time; sentences may be half as long again."""
        return self.sentence_seconds is None or seconds <= 1.5 * self.sentence_seconds

    @classmethod
    def tiny(cls, *, fusion: Fusion = "sum") -> "DeepTalkConfig":
        """A random model of every part, for tests."""
        layout = StreamLayout.tiny()
        return cls(
            encoder=EncoderConfig.tiny(),
            adapter=AdapterConfig.tiny(),
            backbone=tiny_backbone(vocab_size=layout.vocab_size),
            layout=layout,
            mel=MelSpec.tiny(),
            fusion=fusion,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        experts = self.audio_experts
        extra: dict[str, Any] = {}
        if self.extra_experts is not None:
            extra["extra_experts"] = self.extra_experts.to_dict()
        if self.sentence_seconds is not None:
            extra["sentence_seconds"] = self.sentence_seconds
        return {
            "encoder": self.encoder.to_dict(),
            "adapter": self.adapter.to_dict(),
            "backbone": dict(self.backbone),
            "layout": self.layout.to_dict(),
            "mel": asdict(self.mel),
            "fusion": self.fusion,
            "audio_experts": None if experts is None else [list(layer) for layer in experts],
            "routing": dict(self.routing),
            **extra,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DeepTalkConfig":
        """Read what ``to_dict`` wrote; a missing or unfitting key is a `ConfigError`."""
        try:
            experts, extra = values["audio_experts"], values.get("extra_experts")
            return cls(
                encoder=EncoderConfig.from_dict(values["encoder"]),
                adapter=AdapterConfig.from_dict(values["adapter"]),
                backbone=dict(values["backbone"]),
                layout=StreamLayout.from_dict(values["layout"]),
                mel=MelSpec(**values["mel"]),
                fusion=values["fusion"],
                audio_experts=None if experts is None else tuple(tuple(layer) for layer in experts),
                routing=dict(values["routing"]),
                extra_experts=None if extra is None else ExtraExperts.from_dict(extra),
                sentence_seconds=values.get("sentence_seconds"),
            )
        except KeyError as error:
            raise ConfigError(f"The config lacks the key {error}.") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"The config has a key that doesn't fit: {error}.") from error


def tiny_backbone(*, vocab_size: int) -> dict[str, Any]:
    """A DeepSeek-V2 of two layers, the second with eight experts, for tests."""
    return {
        "model_type": "deepseek_v2",
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "kv_lora_rank": 16,
        "q_lora_rank": None,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": 256,
        "eos_token_id": 257,
    }
