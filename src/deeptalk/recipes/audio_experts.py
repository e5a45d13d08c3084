"""Stage 2.1: the audio experts learn spoken dialogue; text experts are neither used nor moved."""

from deeptalk.experts import Routing
from deeptalk.training.optim import AdamW
from deeptalk.training.recipe import ByLoad, Recipe, Source
from deeptalk.training.schedule import Cosine
from deeptalk.training.supervised import Supervised

AUDIO_EXPERTS = Recipe(
    name="audio-experts",
    paper="section 3.3, stage 2.1; algorithm 1, steps 1 and 2; tables 5 and 6",
    starts_from=("align",),
    partition=ByLoad(  # AtRandom(...) is the ablation of table 8
        num_audio_experts=6,
        audio=(Source(manifest="audioqa-1m", task="speech_to_speech"),),
        # the same dialogues with the question as text, as the algorithm's wording asks; it needs their words
        text=(Source(manifest="audioqa-1m", task="text_to_speech"),),
    ),
    routing=Routing(text="audio", audio="audio"),  # every token passes through the audio experts
    trains=(  # the router isn't named, so it is frozen, as the paper says (the authors' code lets it move)
        "backbone.*.experts.audio.*",
        "embedding.*",
        "heads.codec.*",
    ),
    mixture=(Source(manifest="audioqa-1m", task="speech_to_speech"),),
    objective=Supervised(text_weight=1 / 8, codec_weight=1 / 8, text_chunk=1_024),
    # weight decay, warm-up, epochs, positions, seed: open in the paper, from the authors' scripts
    optim=AdamW(lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0),
    schedule=Cosine(warmup_fraction=0.03),
    epochs=2,
    batch_size=8 * 1_200,  # 8 dialogues per GPU, table 6
    accumulate=4,
    max_positions=1_200,
    precision="bf16",
    weights="bf16",
    recompute="layers",
    max_bad_steps=10,
    max_bad_fraction=0.01,
    seed=42,
)
