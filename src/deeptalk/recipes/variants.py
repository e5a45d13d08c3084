"""Variants of the pocket stages 2.1 to 3 on short, equal budgets (method.md, sections 13 and 14).

All begin with `pocket-align`: stage 1 moves nothing of the backbone, so it is the same for each, `lossless`
included. Stages of one kind see the same samples in the same order; `PureMoE` sees those of all stages in one
run, `lossless` those with speech, as text alone has nothing to teach it. None of them has been trained.
"""

from dataclasses import replace

from deeptalk.experts import Routing
from deeptalk.recipes.pocket import POCKET_AUDIO_EXPERTS, POCKET_JOINT, POCKET_TEXT_EXPERTS
from deeptalk.training.optim import Muon
from deeptalk.training.recipe import Appended, AtRandom, ByLoad, Copies, Source

BY_LOAD = ByLoad(
    num_audio_experts=8,
    num_batches=24,
    audio=(Source(manifest="speech_train", task="speech_to_speech"),),
    text=(Source(manifest="speech_train", task="text_to_speech"),),
)

ADAPTIVE_AUDIO = replace(
    POCKET_AUDIO_EXPERTS, name="pocket-adaptive-audio-experts", partition=BY_LOAD, num_steps=500
)
ADAPTIVE_TEXT = replace(
    POCKET_TEXT_EXPERTS,
    name="pocket-adaptive-text-experts",
    starts_from=("pocket-adaptive-audio-experts",),
    num_steps=50,
)
ADAPTIVE_JOINT = replace(
    POCKET_JOINT,
    name="pocket-adaptive-joint",
    starts_from=("pocket-adaptive-text-experts",),
    num_steps=750,
)

# table 8: the experts by lot, all else equal
RANDOM_1_AUDIO = replace(
    ADAPTIVE_AUDIO,
    name="pocket-random-1-audio-experts",
    partition=AtRandom(num_audio_experts=8, seed=1),
)
RANDOM_1_TEXT = replace(
    ADAPTIVE_TEXT, name="pocket-random-1-text-experts", starts_from=("pocket-random-1-audio-experts",)
)
RANDOM_1_JOINT = replace(
    ADAPTIVE_JOINT, name="pocket-random-1-joint", starts_from=("pocket-random-1-text-experts",)
)
RANDOM_2_AUDIO = replace(
    ADAPTIVE_AUDIO,
    name="pocket-random-2-audio-experts",
    partition=AtRandom(num_audio_experts=8, seed=2),
)
RANDOM_2_TEXT = replace(
    ADAPTIVE_TEXT, name="pocket-random-2-text-experts", starts_from=("pocket-random-2-audio-experts",)
)
RANDOM_2_JOINT = replace(
    ADAPTIVE_JOINT, name="pocket-random-2-joint", starts_from=("pocket-random-2-text-experts",)
)
RANDOM_3_AUDIO = replace(
    ADAPTIVE_AUDIO,
    name="pocket-random-3-audio-experts",
    partition=AtRandom(num_audio_experts=8, seed=3),
)
RANDOM_3_TEXT = replace(
    ADAPTIVE_TEXT, name="pocket-random-3-text-experts", starts_from=("pocket-random-3-audio-experts",)
)
RANDOM_3_JOINT = replace(
    ADAPTIVE_JOINT, name="pocket-random-3-joint", starts_from=("pocket-random-3-text-experts",)
)

# no groups and no masks; the mixtures of the three stages, by their share of the positions
PURE_MOE = replace(
    POCKET_JOINT,
    name="pocket-pure-moe",
    paper="tables 7 and 8, PureMoE: no experts of a modality, one joint run",
    starts_from=("pocket-align",),
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.2269),
        Source(manifest="speech_train", task="speech_to_text", weight=0.1480),
        Source(manifest="speech_train", task="text_to_speech", weight=0.1815),
        Source(manifest="aloud", task="read_aloud", weight=0.2052),
        Source(manifest="reading", task="asr", weight=0.0533),
        Source(manifest="questions", task="asr", weight=0.0414),
        Source(manifest="text_train", task="text_to_text", weight=0.0727),
        Source(manifest="text_more", task="text_to_text", weight=0.0710),
    ),
    num_steps=1_267,
)

# a quarter of the experts, evenly spread, appended: beside them everything is as before
MOEXTEND_AUDIO = replace(
    ADAPTIVE_AUDIO,
    name="pocket-moextend-audio-experts",
    paper="table 2, MoExtend: new experts beside the pretrained ones, with router rows of their own",
    partition=Appended(sources=(3, 7, 11, 15, 19, 23, 27, 31)),
    routing=Routing(text="all", audio="all"),
    trains=("backbone.*.experts.extra.*", "backbone.*.extra_router.*", "embedding.*", "heads.codec.*"),
    optim=Muon(lr=2e-3, betas=(0.9, 0.95), matrices=("*layers.*", "!*.extra_router.*")),
)
MOEXTEND_TEXT = replace(
    ADAPTIVE_TEXT,
    name="pocket-moextend-text-experts",
    paper="table 2, MoExtend: the pretrained experts on text alone",
    starts_from=("pocket-moextend-audio-experts",),
    trains=("backbone.*.experts.stock.*",),
)
MOEXTEND_JOINT = replace(
    ADAPTIVE_JOINT,
    name="pocket-moextend-joint",
    paper="table 2, MoExtend: both modalities together",
    starts_from=("pocket-moextend-text-experts",),
    optim=Muon(
        lr=1.2e-3,
        betas=(0.9, 0.95),
        weight_decay=0.02,
        matrices=("*layers.*", "adapter.*", "!*.gate.weight", "!*.extra_router.*"),
    ),
)

# what speaks learns in copies; there is no stage 2.2, as text has lost nothing
LOSSLESS_AUDIO = replace(
    ADAPTIVE_AUDIO,
    name="pocket-lossless-audio-experts",
    paper="not in the paper: stage 2.1 in copies of the audio experts, text stays the backbone bit for bit",
    partition=Copies(of=BY_LOAD),
    routing=Routing(text="text", audio="audio"),
    trains=("backbone.*.experts.extra.*", "embedding.*", "heads.codec.*"),
)
LOSSLESS_JOINT = replace(
    ADAPTIVE_JOINT,
    name="pocket-lossless-joint",
    paper="not in the paper: stage 3 in copies of the audio experts and of the routers",
    starts_from=("pocket-lossless-audio-experts",),
    routing=Routing(text="text", audio="all"),
    trains=(
        "adapter.*",
        "backbone.*.experts.extra.*",
        "backbone.*.extra_router.*",
        "embedding.*",
        "heads.codec.*",
    ),
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.25),
        Source(manifest="speech_train", task="speech_to_text", weight=0.25),
        Source(manifest="speech_train", task="text_to_speech", weight=0.04),
        Source(manifest="aloud", task="read_aloud", weight=0.08),
        Source(manifest="reading", task="asr", weight=0.09),
        Source(manifest="questions", task="asr", weight=0.07),
    ),
    optim=Muon(
        lr=1.2e-3,
        betas=(0.9, 0.95),
        weight_decay=0.02,
        matrices=("*.experts.extra.*", "adapter.*"),
    ),
    num_steps=585,
)

POCKET_VARIANTS = (
    ADAPTIVE_AUDIO,
    ADAPTIVE_TEXT,
    ADAPTIVE_JOINT,
    RANDOM_1_AUDIO,
    RANDOM_1_TEXT,
    RANDOM_1_JOINT,
    RANDOM_2_AUDIO,
    RANDOM_2_TEXT,
    RANDOM_2_JOINT,
    RANDOM_3_AUDIO,
    RANDOM_3_TEXT,
    RANDOM_3_JOINT,
    PURE_MOE,
    MOEXTEND_AUDIO,
    MOEXTEND_TEXT,
    MOEXTEND_JOINT,
    LOSSLESS_AUDIO,
    LOSSLESS_JOINT,
)
