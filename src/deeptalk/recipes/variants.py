"""Variants of the pocket stages 2.1 to 3 on short, equal budgets (method.md, sections 13 and 14).

All begin with `pocket-brief-align`: stage 1 on a text backbone of its own, with the encoder and the codec of
the shipped model. Only variants whose stage 1 is what they are about have their own. Stages of one kind see
the same samples in the same order; `PURE_MOE` sees those of all stages in one run, `LOSSLESS` those with
speech, as text alone has nothing to teach it. ``deeptalk reproduce`` trains and measures them.
"""

from dataclasses import dataclass, replace

from deeptalk.experts import Routing
from deeptalk.recipes.pocket import (
    POCKET_ALIGN,
    POCKET_AUDIO_EXPERTS,
    POCKET_JOINT,
    POCKET_TEXT,
    POCKET_TEXT_EXPERTS,
)
from deeptalk.training.optim import Muon
from deeptalk.training.recipe import Appended, AtRandom, ByLoad, Copies, Recipe, Source
from deeptalk.training.schedule import Cosine
from deeptalk.training.supervised import Supervised

SHIPPED_ENCODER, SHIPPED_CODEC = "shipped-encoder", "shipped-codec"
"""Parts of the built-in model that stand where a stage leaves its result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A way from stage 1 to an answering model, and what it is about."""

    name: str
    about: str
    stages: tuple[Recipe, ...]

    def seeded(self, number: int) -> "Variant":
        """The same with other seeds of training; the first is the variant itself."""
        if number == 1:
            return self
        own = {stage.name for stage in self.stages}

        def other(name: str) -> str:
            return f"{name}-seed-{number}" if name in own else name

        stages = tuple(
            replace(
                stage,
                name=other(stage.name),
                starts_from=tuple(map(other, stage.starts_from)),
                seed=stage.seed + 100 * (number - 1),
            )
            for stage in self.stages
        )
        return replace(self, name=f"{self.name}-seed-{number}", stages=stages)


def linked(name: str, about: str, **stages: Recipe) -> Variant:
    """A variant whose stages are called ``pocket-NAME-STAGE``, each going on from the one before.

    The first keeps what it starts from.
    """
    done: list[Recipe] = []
    for stage, recipe in stages.items():
        start = (done[-1].name,) if done else recipe.starts_from
        done.append(replace(recipe, name=f"pocket-{name}-{stage.replace('_', '-')}", starts_from=start))
    return Variant(name=name, about=about, stages=tuple(done))


# stands for the pretrained language model, as pocket-text does, in half of the steps
BRIEF_TEXT = replace(
    POCKET_TEXT,
    name="pocket-brief-text",
    mixture=(
        Source(manifest="text_train", task="text_to_text", weight=0.74),
        Source(manifest="text_more", task="text_to_text", weight=0.18),
        Source(manifest="reading_train", task="repeat", weight=0.08),
    ),
    num_steps=2_400,
)

# frames stand 160 ms apart: what a short run can learn to read
BRIEF_ALIGN = replace(
    POCKET_ALIGN,
    name="pocket-brief-align",
    starts_from=(SHIPPED_ENCODER, "pocket-brief-text", SHIPPED_CODEC),
    model=replace(
        POCKET_ALIGN.model,
        adapter=replace(POCKET_ALIGN.model.adapter, stride=8, hidden=160),
    ),
    mixture=(
        Source(manifest="reading", task="asr", weight=0.3),
        Source(manifest="questions", task="asr", weight=0.3),
        Source(manifest="speech_train", task="speech_to_text", weight=0.4),
    ),
    num_steps=300,
    encoded_passes=1,
)

BY_LOAD = ByLoad(
    num_audio_experts=4,
    num_batches=24,
    audio=(Source(manifest="speech_train", task="speech_to_speech"),),
    text=(Source(manifest="speech_train", task="text_to_speech"),),
)

ADAPTIVE_AUDIO = replace(
    POCKET_AUDIO_EXPERTS,
    name="pocket-adaptive-audio-experts",
    starts_from=("pocket-brief-align",),
    partition=BY_LOAD,
    trains=("backbone.*.experts.audio.*", "embedding.*", "heads.codec.*"),
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.30),
        Source(manifest="speech_train", task="speech_to_text", weight=0.25),
        Source(manifest="speech_train", task="text_to_speech", weight=0.20),
        Source(manifest="aloud", task="read_aloud", weight=0.25),
    ),
    objective=Supervised(text_weight=1.0, code_noise=0.4, words_alone=0.5),
    num_steps=70,
    encoded_passes=1,
)
ADAPTIVE_TEXT = replace(
    POCKET_TEXT_EXPERTS,
    name="pocket-adaptive-text-experts",
    starts_from=("pocket-adaptive-audio-experts",),
    num_steps=12,
)
ADAPTIVE_JOINT = replace(
    POCKET_JOINT,
    name="pocket-adaptive-joint",
    starts_from=("pocket-adaptive-text-experts",),
    trains=("adapter.*", "backbone.*", "embedding.*", "heads.codec.*", "hearing.*"),
    mixture=(
        Source(manifest="speech_train", task="speech_to_speech", weight=0.16),
        Source(manifest="speech_train", task="speech_to_text", weight=0.30),
        Source(manifest="speech_train", task="text_to_speech", weight=0.04),
        Source(manifest="aloud", task="read_aloud", weight=0.05),
        Source(manifest="reading", task="asr", weight=0.06),
        Source(manifest="questions", task="asr", weight=0.06),
        Source(manifest="text_train", task="text_as_heard", weight=0.15),
        Source(manifest="text_train", task="text_to_text", weight=0.12),
        Source(manifest="text_more", task="text_to_text", weight=0.06),
    ),
    objective=Supervised(
        text_weight=1.0, balance_weight=0.0005, code_noise=0.4, hearing_weight=0.1, words_alone=0.5
    ),
    schedule=Cosine(warmup_fraction=0.03, final_fraction=0.02),
    accumulate=2,
    num_steps=200,
    encoded_passes=1,
    average=0.98,
    eval_every=500,
    seed=48,
)

ADAPTIVE = Variant(
    name="adaptive",
    about="the paper's way: as many audio experts as a token uses, by load",
    stages=(ADAPTIVE_AUDIO, ADAPTIVE_TEXT, ADAPTIVE_JOINT),
)

# table 8: the experts by lot, all else equal
RANDOM_1 = linked(
    "random-1",
    "audio experts by lot, first draw",
    audio_experts=replace(ADAPTIVE_AUDIO, partition=AtRandom(num_audio_experts=4, seed=1)),
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)
RANDOM_2 = linked(
    "random-2",
    "audio experts by lot, second draw",
    audio_experts=replace(ADAPTIVE_AUDIO, partition=AtRandom(num_audio_experts=4, seed=2)),
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)
RANDOM_3 = linked(
    "random-3",
    "audio experts by lot, third draw",
    audio_experts=replace(ADAPTIVE_AUDIO, partition=AtRandom(num_audio_experts=4, seed=3)),
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)

# a load counted in parts of the layer's largest, so that what text uses most is out of the question
LOADS_MAX = linked(
    "loads-max",
    "audio experts by loads in parts of their layer's largest",
    audio_experts=replace(ADAPTIVE_AUDIO, partition=replace(BY_LOAD, normalisation="max")),
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)

# no groups and no masks; the mixtures of the three stages, by their share of the positions
PURE_MOE = Variant(
    name="pure-moe",
    about="no experts of a modality: one joint run over the samples of the three stages",
    stages=(
        replace(
            ADAPTIVE_JOINT,
            name="pocket-pure-moe",
            paper="tables 7 and 8, PureMoE: no experts of a modality, one joint run",
            starts_from=("pocket-brief-align",),
            mixture=(
                Source(manifest="speech_train", task="speech_to_speech", weight=0.1934),
                Source(manifest="speech_train", task="speech_to_text", weight=0.2827),
                Source(manifest="speech_train", task="text_to_speech", weight=0.0803),
                Source(manifest="aloud", task="read_aloud", weight=0.1003),
                Source(manifest="reading", task="asr", weight=0.0438),
                Source(manifest="questions", task="asr", weight=0.0438),
                Source(manifest="text_train", task="text_as_heard", weight=0.1095),
                Source(manifest="text_train", task="text_to_text", weight=0.1025),
                Source(manifest="text_more", task="text_to_text", weight=0.0438),
            ),
            num_steps=274,
        ),
    ),
)

# as many experts as a token uses, evenly spread, appended: beside them everything is as before
MOEXTEND_AUDIO = replace(
    ADAPTIVE_AUDIO,
    name="pocket-moextend-audio-experts",
    paper="table 2, MoExtend: new experts beside the pretrained ones, with router rows of their own",
    partition=Appended(sources=(7, 15, 23, 31)),
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
    optim=replace(
        ADAPTIVE_JOINT.optim, matrices=("*layers.*", "adapter.*", "!*.gate.weight", "!*.extra_router.*")
    ),
)
MOEXTEND = Variant(
    name="moextend",
    about="four experts appended to the 32, open to every token",
    stages=(MOEXTEND_AUDIO, MOEXTEND_TEXT, MOEXTEND_JOINT),
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
        "hearing.*",
    ),
    mixture=tuple(source for source in ADAPTIVE_JOINT.mixture if source.task != "text_to_text"),
    optim=replace(ADAPTIVE_JOINT.optim, matrices=("*.experts.extra.*", "adapter.*")),
    num_steps=164,
)
LOSSLESS = Variant(
    name="lossless",
    about="audio experts are copies, text stays the backbone bit for bit",
    stages=(LOSSLESS_AUDIO, LOSSLESS_JOINT),
)

# table 7: more audio experts
EXPERTS_6 = linked(
    "experts-6",
    "6 audio experts of 32",
    audio_experts=replace(ADAPTIVE_AUDIO, partition=replace(BY_LOAD, num_audio_experts=6)),
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)
EXPERTS_9 = linked(
    "experts-9",
    "9 audio experts of 32",
    audio_experts=replace(ADAPTIVE_AUDIO, partition=replace(BY_LOAD, num_audio_experts=9)),
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)
EXPERTS_12 = linked(
    "experts-12",
    "12 audio experts of 32",
    audio_experts=replace(ADAPTIVE_AUDIO, partition=replace(BY_LOAD, num_audio_experts=12)),
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)

# ablations, each one `replace` of the paper's way
ROUTER = linked(
    "router",
    "routers train in stage 2, too, as in the authors' code",
    audio_experts=replace(ADAPTIVE_AUDIO, trains=(*ADAPTIVE_AUDIO.trains, "backbone.*.gate.weight")),
    text_experts=replace(ADAPTIVE_TEXT, trains=(*ADAPTIVE_TEXT.trains, "backbone.*.gate.weight")),
    joint=ADAPTIVE_JOINT,
)
RENORM_TOPK = linked(
    "renorm-topk",
    "masked weights are normalised over the chosen experts",
    audio_experts=replace(ADAPTIVE_AUDIO, routing=Routing(text="audio", audio="audio", renorm="topk")),
    text_experts=replace(ADAPTIVE_TEXT, routing=Routing(text="text", audio="text", renorm="topk")),
    joint=ADAPTIVE_JOINT,
)
RENORM_NONE = linked(
    "renorm-none",
    "masked weights are not normalised again",
    audio_experts=replace(ADAPTIVE_AUDIO, routing=Routing(text="audio", audio="audio", renorm="none")),
    text_experts=replace(ADAPTIVE_TEXT, routing=Routing(text="text", audio="text", renorm="none")),
    joint=ADAPTIVE_JOINT,
)
ROUNDS_2 = linked(
    "rounds-2",
    "two rounds of choosing audio experts, of half the steps each",
    audio_experts=replace(ADAPTIVE_AUDIO, num_steps=35),
    text_experts=replace(ADAPTIVE_TEXT, num_steps=6),
    audio_experts_again=replace(ADAPTIVE_AUDIO, num_steps=35, seed=146),
    text_experts_again=replace(ADAPTIVE_TEXT, num_steps=6, seed=147),
    joint=ADAPTIVE_JOINT,
)
MEAN_8 = linked(
    "mean8",
    "a position is the mean of its eight streams, as in the authors' code",
    align=replace(BRIEF_ALIGN, model=replace(BRIEF_ALIGN.model, fusion="mean8")),
    audio_experts=ADAPTIVE_AUDIO,
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)
MEAN_2 = linked(
    "mean2",
    "a position is the mean of text and of the mean of the codes, as the paper may be read",
    align=replace(BRIEF_ALIGN, model=replace(BRIEF_ALIGN.model, fusion="mean2")),
    audio_experts=ADAPTIVE_AUDIO,
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)
CONVOLUTION = linked(
    "conv",
    "an adapter of strided convolutions, as section 3.1 has it",
    align=replace(
        BRIEF_ALIGN,
        model=replace(BRIEF_ALIGN.model, adapter=replace(BRIEF_ALIGN.model.adapter, kind="conv")),
    ),
    audio_experts=ADAPTIVE_AUDIO,
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)
STRIDE_4 = linked(
    "stride-4",
    "speech frames of 80 ms, as the shipped model's",
    align=replace(
        BRIEF_ALIGN,
        model=replace(BRIEF_ALIGN.model, adapter=replace(BRIEF_ALIGN.model.adapter, stride=4)),
    ),
    audio_experts=ADAPTIVE_AUDIO,
    text_experts=ADAPTIVE_TEXT,
    joint=ADAPTIVE_JOINT,
)

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        ADAPTIVE,
        RANDOM_1,
        RANDOM_2,
        RANDOM_3,
        LOADS_MAX,
        PURE_MOE,
        MOEXTEND,
        LOSSLESS,
        EXPERTS_6,
        EXPERTS_9,
        EXPERTS_12,
        ROUTER,
        RENORM_TOPK,
        RENORM_NONE,
        ROUNDS_2,
        MEAN_8,
        MEAN_2,
        CONVOLUTION,
        STRIDE_4,
    )
}

POCKET_VARIANTS: tuple[Recipe, ...] = (
    BRIEF_TEXT,
    BRIEF_ALIGN,
    *(stage for variant in VARIANTS.values() for stage in variant.stages),
)
