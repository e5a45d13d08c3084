"""Stage RL: a model prefers those of its own spoken answers that are understood."""

from dataclasses import replace

from deeptalk.experts import Routing
from deeptalk.recipes.pocket import POCKET_PIPELINE
from deeptalk.training.optim import AdamW
from deeptalk.training.preference import Preference
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.schedule import Cosine

PREFERENCE = Recipe(
    name="preference",
    paper="stage RL; tables 5 and 6",
    starts_from=("joint",),
    routing=Routing(text="all", audio="all"),
    # the paper doesn't say what trains; the authors' code freezes encoder and adapter
    trains=("backbone.*", "embedding.*", "heads.codec.*"),
    mixture=(Source(manifest="preference", task="preference"),),
    evaluation=(Source(manifest="preference_eval", task="preference"),),
    objective=Preference(beta=0.1),  # from the authors' code; the paper gives none
    optim=AdamW(lr=2e-5, betas=(0.9, 0.95), weight_decay=0.0),
    schedule=Cosine(warmup_fraction=0.03),
    epochs=1,
    batch_size=8 * 2 * 1_000,  # 8 pairs per GPU, table 6
    accumulate=4,
    max_positions=1_000,
    precision="bf16",
    weights="bf16",
    recompute="layers",
    max_bad_steps=10,
    max_bad_fraction=0.01,
    seed=42,
)

PREFERENCE_AUDIO = replace(
    PREFERENCE,
    name="preference-audio",  # lighter: only what speaks
    trains=("backbone.*.experts.audio.*", "embedding.codec.*", "heads.codec.*"),
)

SHIPPED_MODEL = "shipped-model"
"""The built-in model where a stage leaves its result."""

# tried for half a minute, not shipped: LOG.md
POCKET_PREFERENCE = Recipe(
    name="pocket-preference",
    paper="stage RL; tables 5 and 6",
    starts_from=(POCKET_PIPELINE[-1].name,),
    routing=Routing(text="all", audio="all"),
    # what speaks; the paper doesn't say what trains, the authors' code lets all but encoder and adapter move
    trains=("backbone.*.experts.audio.*", "embedding.codec.*", "heads.codec.*"),
    mixture=(Source(manifest="preference", task="preference"),),
    evaluation=(Source(manifest="preference_eval", task="preference"),),
    objective=Preference(beta=0.1),  # from the authors' code; the paper gives none
    optim=AdamW(lr=2e-5, betas=(0.9, 0.95), weight_decay=0.0),
    schedule=Cosine(warmup_fraction=0.03),
    epochs=1,
    batch_size=6_000,  # of both rows: about 30 pairs
    accumulate=2,
    max_positions=400,
    eval_every=20,
    save_every=100,
    seed=70,
)

# table 1 in small: what the shipped model reads aloud, against itself; `deeptalk reproduce --only table-1`
POCKET_PREFERENCE_ALOUD = replace(
    POCKET_PREFERENCE,
    name="pocket-preference-aloud",
    starts_from=(SHIPPED_MODEL,),
    mixture=(Source(manifest="preference_aloud", task="preference"),),
    evaluation=(Source(manifest="preference_aloud_eval", task="preference"),),
    optim=AdamW(lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.0),
    epochs=2,
    batch_size=3_000,
    accumulate=2,
    eval_every=10,
)
