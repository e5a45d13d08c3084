"""The paper's stages on a language model and on data of your own: copy this file and name your manifests.

    deeptalk train own-align --recipes own_model.py --root build/own

ROOT/own/model is what `deeptalk assemble` wrote, ROOT/data what `deeptalk prepare` and `deeptalk encode` did.
"""

from dataclasses import replace

from deeptalk.recipes.align import ALIGN
from deeptalk.recipes.audio_experts import AUDIO_EXPERTS
from deeptalk.recipes.joint import JOINT
from deeptalk.recipes.text_experts import TEXT_EXPERTS
from deeptalk.training.recipe import ByLoad, Source

OWN_ALIGN = replace(
    ALIGN,
    name="own-align",
    model=None,  # it is put together already
    starts_from=("own",),
    mixture=(Source(manifest="recordings", task="asr"),),
)

OWN_AUDIO_EXPERTS = replace(
    AUDIO_EXPERTS,
    name="own-audio-experts",
    starts_from=("own-align",),
    partition=ByLoad(
        num_audio_experts=2,  # at least as many as a token uses, as `deeptalk doctor` tells
        audio=(Source(manifest="dialogues", task="speech_to_speech"),),
        text=(Source(manifest="dialogues", task="text_to_speech"),),
    ),
    mixture=(Source(manifest="dialogues", task="speech_to_speech"),),
)

OWN_TEXT_EXPERTS = replace(
    TEXT_EXPERTS,
    name="own-text-experts",
    starts_from=("own-audio-experts",),
    mixture=(Source(manifest="texts", task="text_to_text"),),
)

OWN_JOINT = replace(
    JOINT,
    name="own-joint",
    starts_from=("own-text-experts",),
    mixture=(
        Source(manifest="dialogues", task="speech_to_speech", weight=7),
        Source(manifest="dialogues", task="speech_to_text", weight=3),
        Source(manifest="texts", task="text_to_text", weight=10),
    ),
)
