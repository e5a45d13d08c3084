"""From a partition to the router mask of a stage: who may use which experts, and who belongs to which group.

The mask forbids experts before the softmax. The choice among the allowed ones would be the same after it,
the weights would not: they are not normalised again after the top-k, so with as many audio experts as a token
uses they sum to 1 in stage 2.1, and to less in stage 3 where all experts compete.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from deeptalk.backbone import RouterMask
from deeptalk.backbone.router import Renorm
from deeptalk.errors import ConfigError
from deeptalk.experts.partition import ExpertPartition
from deeptalk.shapes import Int, Tensor
from deeptalk.streams.modality import is_audio

Active = Literal["all", "text", "audio"]
TEXT_GROUP, AUDIO_GROUP = 0, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """The experts that tokens of the text group and of the audio group may use (paper, section 3.3).

    Stage 2.1 is ``audio``/``audio``, stage 2.2 ``text``/``text``, stages 1, 3 and inference ``all``/``all``.
    ``renorm`` says what the weights of a masked choice sum to.
    """

    text: Active = "all"
    audio: Active = "all"
    # at its default in no recipe's hash, which are older (training.objective.added)
    renorm: Renorm = field(default="group", metadata={"added": True})

    def __post_init__(self) -> None:
        for name in ("text", "audio"):
            if getattr(self, name) not in get_args(Active):
                raise ConfigError(
                    f"routing of {name} tokens must be one of {', '.join(get_args(Active))}, "
                    f"got {getattr(self, name)!r}."
                )

    @property
    def is_free(self) -> bool:
        """Whether every token may use every expert, so that no mask is needed."""
        return self.text == self.audio == "all"


def router_mask(partition: ExpertPartition, routing: Routing) -> RouterMask:
    """The experts allowed to each group, in the order text, audio."""
    audio = partition.is_audio
    experts = {"all": torch.ones_like(audio), "audio": audio, "text": ~audio}
    table = torch.stack([experts[routing.text], experts[routing.audio]])
    return RouterMask(table=table, renorm=routing.renorm)


def groups_of(kind: Int[Tensor, "B T"], row: Int[Tensor, "B"]) -> Int[Tensor, "B T"]:
    """The group of each position: audio for speech input and for the answer of a speech row, else text.

    It depends on kind and row alone, never on values; the last prompt position is an answer position.
    """
    return torch.where(is_audio(kind, row), AUDIO_GROUP, TEXT_GROUP)
