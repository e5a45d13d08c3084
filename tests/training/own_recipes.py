"""The paper's stages on the tiny model of `own_room.py`, for `deeptalk train --recipes`."""

from dataclasses import replace

from deeptalk.recipes.align import ALIGN
from deeptalk.recipes.audio_experts import AUDIO_EXPERTS
from deeptalk.recipes.joint import JOINT
from deeptalk.recipes.preference import PREFERENCE
from deeptalk.recipes.text_experts import TEXT_EXPERTS
from deeptalk.training.recipe import ByLoad, Source

SPOKEN = Source(manifest="dialogues", task="speech_to_speech")
SHORT = {
    "epochs": None,
    "num_steps": 4,
    "accumulate": 2,
    "batch_size": 256,
    "save_every": 2,
    "precision": "fp32",
    "weights": "fp32",
    "recompute": "none",
}
TINY_ALIGN = replace(
    ALIGN,
    name="tiny-align",
    model=None,
    starts_from=("own",),
    mixture=(Source(manifest="recordings", task="asr"),),
    evaluation=(Source(manifest="recordings", task="asr"),),
    eval_every=2,  # before the checkpoint that a killed run goes on from
    eval_batches=1,
    **SHORT,
)
TINY_AUDIO_EXPERTS = replace(
    AUDIO_EXPERTS,
    name="tiny-audio-experts",
    starts_from=("tiny-align",),
    partition=ByLoad(
        num_audio_experts=2,
        num_batches=2,
        audio=(SPOKEN,),
        text=(Source(manifest="dialogues", task="text_to_speech"),),
    ),
    mixture=(SPOKEN,),
    **SHORT,
)
TINY_TEXT_EXPERTS = replace(
    TEXT_EXPERTS,
    name="tiny-text-experts",
    starts_from=("tiny-audio-experts",),
    mixture=(Source(manifest="texts", task="text_to_text"),),
    **SHORT,
)
TINY_JOINT = replace(
    JOINT,
    name="tiny-joint",
    starts_from=("tiny-text-experts",),
    mixture=(replace(SPOKEN, weight=3), Source(manifest="texts", task="text_to_text", weight=5)),
    **SHORT,
)
TINY_PREFERENCE = replace(PREFERENCE, name="tiny-preference", starts_from=("tiny-joint",), **SHORT)
"""It needs pairs that the model of the stage before has scored: `write_pairs`."""

STAGES = (TINY_ALIGN, TINY_AUDIO_EXPERTS, TINY_TEXT_EXPERTS, TINY_JOINT, TINY_PREFERENCE)
