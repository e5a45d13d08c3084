"""Stage 3: both modalities together, every expert open to every token."""

from deeptalk.experts import Routing
from deeptalk.training.optim import AdamW
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.schedule import Cosine
from deeptalk.training.supervised import Supervised

JOINT = Recipe(
    name="joint",
    paper="section 3.3, stage 3; algorithm 1, step 4; tables 5 and 6",
    starts_from=("text-experts",),
    routing=Routing(text="all", audio="all"),
    # the paper writes M' = M(D^A and D^T), the whole model; the authors' code freezes encoder and adapter
    trains=("backbone.*", "embedding.*", "heads.codec.*"),
    mixture=(
        Source(manifest="audioqa-1m", task="speech_to_speech", weight=700),
        Source(manifest="audioqa-1m", task="speech_to_text", weight=300),
        Source(manifest="math-instruct", task="text_to_text", weight=262),
        Source(manifest="camel-ai-math", task="text_to_text", weight=50),
        Source(manifest="dolly-15k", task="text_to_text", weight=15),
    ),
    objective=Supervised(text_weight=1 / 8, codec_weight=1 / 8, balance_weight=0.001, text_chunk=1_024),
    # weight decay, warm-up, epochs, positions, seed: open in the paper, from the authors' scripts
    optim=AdamW(lr=5e-5, betas=(0.9, 0.95), weight_decay=0.0),
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
