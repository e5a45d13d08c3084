"""Variants differ in what they are about and in nothing else."""

from collections import Counter
from dataclasses import replace

import pytest

from deeptalk.backbone.extra import ExtraExperts, is_extra_name
from deeptalk.errors import ConfigError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.recipes import RECIPES
from deeptalk.recipes.pocket import POCKET_ALIGN, POCKET_AUDIO_EXPERTS, POCKET_JOINT
from deeptalk.recipes.variants import (
    ADAPTIVE_AUDIO,
    ADAPTIVE_JOINT,
    ADAPTIVE_TEXT,
    BY_LOAD,
    LOSSLESS_AUDIO,
    LOSSLESS_JOINT,
    MOEXTEND_AUDIO,
    MOEXTEND_JOINT,
    MOEXTEND_TEXT,
    POCKET_VARIANTS,
    PURE_MOE,
)
from deeptalk.training.lossless import check_frozen
from deeptalk.training.recipe import AtRandom, Copies, Recipe
from deeptalk.training.trainable import freeze_all_but


def num_positions(recipe: Recipe) -> int:
    assert recipe.num_steps is not None
    return recipe.num_steps * recipe.batch_size * recipe.accumulate


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_partition_is_all_that_differs_from_adaptive(seed: int):
    parts = {"audio-experts": ADAPTIVE_AUDIO, "text-experts": ADAPTIVE_TEXT, "joint": ADAPTIVE_JOINT}
    for part, adaptive in parts.items():
        own = RECIPES[f"pocket-random-{seed}-{part}"]
        assert own.starts_from == tuple(
            name.replace("adaptive", f"random-{seed}") for name in adaptive.starts_from
        )
        same = replace(
            own, name=adaptive.name, starts_from=adaptive.starts_from, partition=adaptive.partition
        )
        assert same == adaptive
    chosen = RECIPES[f"pocket-random-{seed}-audio-experts"].partition
    assert chosen == AtRandom(num_audio_experts=BY_LOAD.num_audio_experts, seed=seed)


def test_stages_of_one_kind_see_the_same_samples():
    for own, adaptive in (
        (MOEXTEND_AUDIO, ADAPTIVE_AUDIO),
        (MOEXTEND_TEXT, ADAPTIVE_TEXT),
        (MOEXTEND_JOINT, ADAPTIVE_JOINT),
        (LOSSLESS_AUDIO, ADAPTIVE_AUDIO),
    ):
        for part in ("mixture", "seed", "batch_size", "accumulate", "num_steps", "schedule", "objective"):
            assert getattr(own, part) == getattr(adaptive, part), (own.name, part)
    with_speech = tuple(source for source in ADAPTIVE_JOINT.mixture if source.task != "text_to_text")
    assert LOSSLESS_JOINT.mixture == with_speech
    share = sum(source.weight for source in with_speech)
    assert LOSSLESS_JOINT.num_steps == round(share * (ADAPTIVE_JOINT.num_steps or 0))
    assert ADAPTIVE_AUDIO.partition == BY_LOAD == POCKET_AUDIO_EXPERTS.partition
    assert LOSSLESS_AUDIO.partition == Copies(of=BY_LOAD)


def test_pure_moe_sees_the_samples_of_all_stages_in_one_run():
    stages = (ADAPTIVE_AUDIO, ADAPTIVE_TEXT, ADAPTIVE_JOINT)
    total = sum(num_positions(stage) for stage in stages)
    assert num_positions(PURE_MOE) == pytest.approx(total, rel=1e-3)
    shares: Counter[tuple[str, str]] = Counter()
    for stage in stages:
        for source in stage.mixture:
            shares[source.manifest, source.task] += source.weight * num_positions(stage) / total  # type: ignore
    assert {(s.manifest, s.task): s.weight for s in PURE_MOE.mixture} == pytest.approx(shares, abs=1e-4)
    assert PURE_MOE.partition is None
    assert PURE_MOE.routing is None or PURE_MOE.routing.is_free


def test_every_variant_begins_with_the_same_stage_1():
    first = {recipe.starts_from for recipe in POCKET_VARIANTS if "pocket-align" in recipe.starts_from}
    assert first == {("pocket-align",)}
    names = {recipe.name for recipe in POCKET_VARIANTS}
    assert all(set(recipe.starts_from) <= names | {"pocket-align"} for recipe in POCKET_VARIANTS)
    model = DeepTalk(DeepTalkConfig.tiny())
    free = freeze_all_but(model, POCKET_ALIGN.trains)
    assert {name.split(".")[0] for name in free} == {"adapter", "embedding", "heads"}
    assert POCKET_ALIGN.model.fusion == "sum"


@pytest.mark.parametrize("recipe", [LOSSLESS_AUDIO, LOSSLESS_JOINT], ids=lambda recipe: recipe.name)
def test_lossless_stages_train_what_method_says(recipe: Recipe):
    model = DeepTalk(DeepTalkConfig.tiny())
    model.add_experts(ExtraExperts(sources=((0, 1, 2), (3, 4, 5))))
    check_frozen(model, recipe)
    free = freeze_all_but(model, recipe.trains)
    assert not [name for name in free if name.startswith("backbone.") and not is_extra_name(name)]
    rows = {
        "adapter": any(name.startswith("adapter.") for name in free),
        "new rows": any(name.startswith(("embedding.", "heads.codec.")) for name in free),
        "copies": any(".experts.extra." in name for name in free),
        "own router": any(".extra_router." in name for name in free),
    }
    joint = {"adapter", "own router"} if recipe is LOSSLESS_JOINT else set()
    assert {row for row, trains in rows.items() if trains} == {"new rows", "copies"} | joint
    with pytest.raises(ConfigError, match=r"trains backbone\..* stays as it is"):
        check_frozen(model, replace(recipe, trains=POCKET_JOINT.trains))
    with pytest.raises(ConfigError, match=r"experts\.stock\.gate_up_proj"):
        check_frozen(model, replace(recipe, trains=("backbone.*.experts.*",)))
