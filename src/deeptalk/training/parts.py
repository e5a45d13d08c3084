"""What a recipe makes from nothing, as values that a literal can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deeptalk.audio import MelSpec
from deeptalk.codec import PocketCodecConfig
from deeptalk.data.augment import Augmentation
from deeptalk.model.adapter import AdapterConfig
from deeptalk.model.config import tiny_backbone
from deeptalk.model.embedding import Fusion
from deeptalk.model.encoder import EncoderConfig
from deeptalk.streams import StreamLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecPart:
    """A codec with random weights."""

    codec: PocketCodecConfig

    def tiny(self) -> "CodecPart":
        """The smallest codec."""
        return CodecPart(codec=PocketCodecConfig.tiny())


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderPart:
    """A speech encoder with random weights, and what it hears."""

    encoder: EncoderConfig
    mel: MelSpec
    augmentation: Augmentation | None = None

    def tiny(self) -> "EncoderPart":
        """The smallest encoder of the same mode, for clips as long as before."""
        smallest = EncoderConfig.tiny(mode=self.encoder.mode)
        encoder = replace(smallest, max_positions=self.encoder.max_positions)
        return EncoderPart(encoder=encoder, mel=MelSpec.tiny())


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """A language model with random weights: a config of `transformers`, and the streams it will serve."""

    backbone: Mapping[str, Any]
    layout: StreamLayout

    def tiny(self) -> "TextPart":
        """The smallest backbone, with as many text ids as before."""
        sizes = tiny_backbone(vocab_size=self.layout.vocab_size)
        ids = {"bos_token_id": self.layout.bos_id, "eos_token_id": self.layout.eos_id}
        return TextPart(backbone=sizes | ids, layout=self.layout)


@dataclass(frozen=True, kw_only=True, slots=True)
class DialoguePart:
    """What joins encoder and backbone to a speech-dialogue model: adapter, streams, fusion.

    Encoder, backbone and codec come from earlier stages.
    """

    adapter: AdapterConfig
    layout: StreamLayout
    mel: MelSpec
    fusion: Fusion = "sum"
    routing: Mapping[str, str] = field(default_factory=lambda: {"text": "all", "audio": "all"})

    def tiny(self) -> "DialoguePart":
        """Fits the tiny encoder and the tiny backbone."""
        forms = {"levelled": self.adapter.levelled, "worded": self.adapter.worded}
        return replace(self, adapter=replace(AdapterConfig.tiny(), **forms), mel=MelSpec.tiny())
