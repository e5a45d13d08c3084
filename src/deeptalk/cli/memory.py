"""How much memory each stage of the paper takes on a backbone, by arithmetic on the meta device.

Weights in bf16, and for every parameter that trains 14 bytes: a gradient in bf16, and in fp32 a master
weight and Adam's two moments; 4 with 8-bit states. Activations are counted with every layer recomputed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from deeptalk.backbone import Backbone
from deeptalk.backbone.checkpoint import first_id
from deeptalk.backbone.divided import expert_parameters
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.model.encoder import EncoderConfig
from deeptalk.recipes import PIPELINE, Recipe
from deeptalk.recipes.preference import PREFERENCE
from deeptalk.training.memory import GRADIENT_BYTES, STATE_BYTES, STATE_BYTES_8BIT, WEIGHT_BYTES
from deeptalk.training.parts import DialoguePart
from deeptalk.training.trainable import freeze_all_but

_WEIGHT_BYTES = WEIGHT_BYTES["bf16"]
_TRAINED_BYTES = GRADIENT_BYTES["bf16"] + STATE_BYTES["bf16"]
_TRAINED_BYTES_8BIT = GRADIENT_BYTES["bf16"] + STATE_BYTES_8BIT
_ACTIVATION_BYTES = 13
"""For each position, layer and unit of width: 6 GB of DeepSeek-V2-Lite at 8 x 1,024 positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageMemory:
    """What one stage holds: parameters, those of them that train, and bytes of activations.

    Of both how many are routed experts'.
    """

    stage: str
    num_parameters: int
    num_trained: int
    num_expert_parameters: int
    num_expert_trained: int
    activation_bytes: int

    @property
    def one_gpu_bytes(self) -> int:
        """On a single GPU, or on each where nothing but the batch is divided."""
        return self.zero2_bytes(1)

    @property
    def one_gpu_8bit_bytes(self) -> int:
        """On a single GPU with optimiser states of 8 bits, weights rounded by chance (`AdamW8bit`)."""
        states = _TRAINED_BYTES_8BIT * self.num_trained
        return _WEIGHT_BYTES * self.num_parameters + states + self.activation_bytes

    def zero2_bytes(self, num_gpus: int) -> int:
        """On each of several GPUs that divide gradients and optimiser states."""
        states = _TRAINED_BYTES * self.num_trained // num_gpus
        return _WEIGHT_BYTES * self.num_parameters + states + self.activation_bytes

    def zero3_bytes(self, num_gpus: int) -> int:
        """On each of several GPUs that divide weights, too (ZeRO-3, FSDP2)."""
        states = _WEIGHT_BYTES * self.num_parameters + _TRAINED_BYTES * self.num_trained
        return states // num_gpus + self.activation_bytes

    def expert_parallel_bytes(self, num_gpus: int) -> int:
        """On each of several GPUs that hold the routed experts together and all else each."""
        held = self.num_parameters - self.num_expert_parameters + self.num_expert_parameters // num_gpus
        trained = self.num_trained - self.num_expert_trained + self.num_expert_trained // num_gpus
        return _WEIGHT_BYTES * held + _TRAINED_BYTES * trained + self.activation_bytes


def plan_memory(outline: Backbone) -> Iterator[StageMemory]:
    """Every stage of the paper on a backbone's outline; stage 2.1 also without the experts it masks.

    As many experts serve audio as a token uses. The outline's experts are divided in place. Stage RL holds
    no reference model: its log-probabilities stand in the pairs.
    """
    model = outline_model(outline)
    for recipe in (*PIPELINE, PREFERENCE):
        names = set(freeze_all_but(model, recipe.trains))
        sizes = {name: tensor.numel() for name, tensor in model.named_parameters()}
        routed = set(expert_parameters(model))
        experts = {name for name, tensor in model.named_parameters() if tensor in routed}
        whole = StageMemory(
            stage=recipe.name,
            num_parameters=sum(sizes.values()),
            num_trained=sum(sizes[name] for name in names),
            num_expert_parameters=sum(sizes[name] for name in experts),
            num_expert_trained=sum(sizes[name] for name in experts & names),
            activation_bytes=_activation_bytes(recipe, outline),
        )
        yield whole
        if recipe.partition is not None:
            left_out = sum(size for name, size in sizes.items() if ".experts.text." in name)
            yield replace(
                whole,
                stage=f"{recipe.name} --dense",
                num_parameters=whole.num_parameters - left_out,
                num_expert_parameters=whole.num_expert_parameters - left_out,
            )


def outline_model(outline: Backbone) -> DeepTalk:
    """The paper's model around a backbone without numbers; of its experts the first ones serve audio."""
    shape = outline.layers
    with torch.device("meta"):
        model = DeepTalk(config_around(outline), backbone=outline)
    is_audio = torch.zeros(shape.num_moe_layers, shape.num_experts, dtype=torch.bool)
    is_audio[:, : shape.experts_per_token] = True
    model.split(is_audio)
    return model


def config_around(backbone: Backbone) -> DeepTalkConfig:
    """The paper's model around a language model."""
    config: Any = backbone.model.config
    part = PIPELINE[0].model
    assert isinstance(part, DialoguePart)
    end = first_id(config.eos_token_id) or 0
    begin = first_id(config.bos_token_id)
    layout = replace(
        part.layout,
        vocab_size=config.vocab_size,
        eos_id=end,
        bos_id=end if begin is None else begin,
    )
    return DeepTalkConfig(
        encoder=EncoderConfig(mode="pad30"),
        adapter=replace(part.adapter, out_width=backbone.hidden_size),
        backbone=config.to_dict(),
        layout=layout,
        mel=part.mel,
        fusion=part.fusion,
    )


def _activation_bytes(recipe: Recipe, outline: Backbone) -> int:
    config: Any = outline.model.config
    return recipe.batch_size * config.num_hidden_layers * outline.hidden_size * _ACTIVATION_BYTES
