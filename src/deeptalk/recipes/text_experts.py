"""Stage 2.2: the text experts learn to do without those that speech has taken."""

from deeptalk.experts import Routing
from deeptalk.training.optim import AdamW
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.schedule import Cosine
from deeptalk.training.supervised import Supervised

TEXT_EXPERTS = Recipe(
    name="text-experts",
    paper="section 3.3, stage 2.2; algorithm 1, step 3; tables 5 and 6",
    starts_from=("audio-experts",),
    routing=Routing(text="text", audio="text"),  # every token passes through the text experts
    trains=("backbone.*.experts.text.*",),
    # table 5; the in-house set is not public, and question sets that are also benchmarks are left out
    mixture=(
        Source(manifest="math-instruct", task="text_to_text", weight=262),
        Source(manifest="camel-ai-math", task="text_to_text", weight=50),
        Source(manifest="dolly-15k", task="text_to_text", weight=15),
    ),
    objective=Supervised(text_weight=1 / 8, codec_weight=1 / 8, balance_weight=0.001, text_chunk=1_024),
    # weight decay, warm-up, epochs, positions, seed: open in the paper, from the authors' scripts
    optim=AdamW(lr=2e-5, betas=(0.9, 0.95), weight_decay=0.0),
    schedule=Cosine(warmup_fraction=0.03),
    epochs=2,
    batch_size=8 * 1_000,  # 8 dialogues per GPU, table 6
    accumulate=2,
    max_positions=1_000,
    precision="bf16",
    weights="bf16",
    recompute="layers",
    max_bad_steps=10,
    max_bad_fraction=0.01,
    seed=42,
)
