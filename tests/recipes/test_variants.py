"""Variants differ in what they are about and in nothing else."""

from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise

import pytest

from deeptalk.backbone.extra import ExtraExperts, is_extra_name
from deeptalk.errors import ConfigError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.recipes import RECIPES
from deeptalk.recipes.pocket import POCKET_JOINT
from deeptalk.recipes.variants import (
    ADAPTIVE,
    ADAPTIVE_AUDIO,
    ADAPTIVE_JOINT,
    ADAPTIVE_TEXT,
    BRIEF_ALIGN,
    BY_LOAD,
    LOSSLESS,
    LOSSLESS_AUDIO,
    LOSSLESS_JOINT,
    MOEXTEND_AUDIO,
    MOEXTEND_JOINT,
    MOEXTEND_TEXT,
    PURE_MOE,
    VARIANTS,
    Variant,
)
from deeptalk.training.lossless import check_frozen
from deeptalk.training.parts import DialoguePart
from deeptalk.training.recipe import AtRandom, Copies, Recipe
from deeptalk.training.trainable import freeze_all_but


def num_positions(recipe: Recipe) -> int:
    assert recipe.num_steps is not None
    return recipe.num_steps * recipe.batch_size * recipe.accumulate


ABLATIONS = [
    variant
    for name, variant in VARIANTS.items()
    if name not in ("adaptive", "pure-moe", "moextend", "lossless", "rounds-2")
]


@pytest.mark.parametrize("variant", ABLATIONS, ids=lambda variant: variant.name)
def test_an_ablation_differs_from_adaptive_in_what_it_is_about_alone(variant: Variant):
    differences = set()
    stages = list(variant.stages)
    if stages[0].name.endswith("-align"):
        differences |= differing(stages.pop(0), BRIEF_ALIGN)
        assert stages[0].starts_from == (variant.stages[0].name,)
    assert len(stages) == len(ADAPTIVE.stages)
    for own, adaptive in zip(stages, ADAPTIVE.stages, strict=True):
        assert own.name == adaptive.name.replace("adaptive", variant.name)
        differences |= differing(own, adaptive) - {"starts_from"}
    allowed = {"router": {"trains"}, "renorm-topk": {"routing"}, "renorm-none": {"routing"}}
    if variant.stages[0].name.endswith("-align"):
        allowed[variant.name] = {"model"}
    assert differences == allowed.get(variant.name, {"partition"})


def differing(one: Recipe, other: Recipe) -> set[str]:
    """The settings in which two recipes differ, but for their names."""
    pairs = ((f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(Recipe))
    return {name for name, own, others in pairs if own != others} - {"name"}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_partition_has_its_own_draw(seed: int):
    chosen = RECIPES[f"pocket-random-{seed}-audio-experts"].partition
    assert chosen == AtRandom(num_audio_experts=BY_LOAD.num_audio_experts, seed=seed)


def test_another_seed_of_a_variant_goes_its_own_way_from_the_same_start():
    other = ADAPTIVE.seeded(3)
    assert ADAPTIVE.seeded(1) is ADAPTIVE
    assert [stage.name for stage in other.stages] == [f"{stage.name}-seed-3" for stage in ADAPTIVE.stages]
    assert other.stages[0].starts_from == ADAPTIVE.stages[0].starts_from
    assert other.stages[1].starts_from == (other.stages[0].name,)
    assert {a.seed - b.seed for a, b in zip(other.stages, ADAPTIVE.stages, strict=True)} == {200}
    assert all(
        differing(a, b) <= {"seed", "starts_from"} for a, b in zip(other.stages, ADAPTIVE.stages, strict=True)
    )


def test_two_rounds_take_the_steps_of_one():
    steps = {"audio": 0, "text": 0, "joint": 0}
    for stage in VARIANTS["rounds-2"].stages:
        steps[next(kind for kind in steps if f"-{kind}" in stage.name)] += stage.num_steps or 0
    assert list(steps.values()) == [stage.num_steps for stage in ADAPTIVE.stages]


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
    assert ADAPTIVE_AUDIO.partition == BY_LOAD
    assert LOSSLESS_AUDIO.partition == Copies(of=BY_LOAD)


def test_pure_moe_sees_the_samples_of_all_stages_in_one_run():
    stages, (run,) = ADAPTIVE.stages, PURE_MOE.stages
    total = sum(num_positions(stage) for stage in stages)
    assert num_positions(run) == pytest.approx(total, rel=1e-3)
    shares: Counter[tuple[str, str]] = Counter()
    for stage in stages:
        for source in stage.mixture:
            shares[source.manifest, source.task] += source.weight * num_positions(stage) / total  # type: ignore
    assert {(s.manifest, s.task): s.weight for s in run.mixture} == pytest.approx(shares, abs=1e-4)
    assert run.partition is None
    assert run.routing is None or run.routing.is_free


def test_every_variant_begins_with_the_same_stage_1_unless_it_is_about_it():
    for variant in VARIANTS.values():
        first = variant.stages[0]
        own = replace(first, name=BRIEF_ALIGN.name, model=BRIEF_ALIGN.model) == BRIEF_ALIGN
        assert own or first.starts_from == (BRIEF_ALIGN.name,), variant.name
        for before, after in pairwise(variant.stages):
            assert after.starts_from == (before.name,)
    model = DeepTalk(DeepTalkConfig.tiny())
    model.learn_hearing()
    free = freeze_all_but(model, BRIEF_ALIGN.trains)
    assert {name.split(".")[0] for name in free} == {"adapter", "embedding", "heads", "hearing"}
    assert BRIEF_ALIGN.model.fusion == "sum"


@pytest.mark.parametrize("recipe", LOSSLESS.stages, ids=lambda recipe: recipe.name)
def test_lossless_stages_train_what_method_says(recipe: Recipe):
    model = DeepTalk(DeepTalkConfig.tiny())
    model.learn_hearing()
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


@pytest.mark.parametrize("name", ["adaptive", "mean8", "mean2", "conv", "stride-4"])
def test_an_adapter_of_its_own_fits_the_fusion(name: str):
    first = VARIANTS[name].stages[0]
    part = (first if isinstance(first.model, DialoguePart) else BRIEF_ALIGN).model
    assert isinstance(part, DialoguePart)
    config = DeepTalkConfig.tiny(fusion=part.fusion)
    widths = {"in_width": config.adapter.in_width, "out_width": config.adapter.out_width}
    model = DeepTalk(replace(config, adapter=replace(part.adapter, **widths)))
    assert model.word_head is not None
