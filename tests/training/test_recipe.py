import dataclasses
import itertools
import json
from importlib.resources import files
from typing import Any

import pytest
import torch
from torch import nn

from deeptalk.errors import ConfigError
from deeptalk.experts import Routing
from deeptalk.recipes import PIPELINE, POCKET_PIPELINE, RECIPES
from deeptalk.recipes.joint import JOINT
from deeptalk.training.objective import Term
from deeptalk.training.optim import AdamW
from deeptalk.training.override import override
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.schedule import Cosine
from deeptalk.training.supervised import Supervised
from deeptalk.training.trainable import freeze_all_but


def test_override_is_typed_and_dotted():
    changed = override(
        JOINT, "optim.lr=1e-5", "seed=7", "optim.betas=0.8,0.9", "average=0.9", "precision=fp32"
    )
    assert changed.optim.lr == 1e-5
    assert changed.seed == 7
    assert changed.optim.betas == (0.8, 0.9)
    assert changed.average == 0.9
    assert changed.precision == "fp32"
    assert override(changed, "average=none").average is None
    assert JOINT.optim.lr == 5e-5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.rl=1", "did you mean 'lr'"),
        ("sed=1", "did you mean 'seed'"),
        ("seed=1.5", "not a value of type int"),
        ("optim.betas=1", "not a value of type"),
        ("precision=fp64", "not a value of type"),
        ("seed.more=1", "no settings inside"),
        ("seed", "key=value"),
        ("optim.lr=-1", "lr"),
    ],
)
def test_override_refuses_what_it_does_not_know(setting: str, message: str):
    with pytest.raises(ConfigError, match=message):
        override(JOINT, setting)


def test_hash_follows_what_changes_weights_and_nothing_else():
    assert JOINT.hash == dataclasses.replace(JOINT, eval_every=3, save_every=9).hash
    assert JOINT.hash != dataclasses.replace(JOINT, seed=1).hash
    assert JOINT.hash != override(JOINT, "optim.lr=1e-5").hash
    assert len({recipe.hash for recipe in RECIPES.values()}) == len(RECIPES)


def stored(recipe: Recipe, *without: str) -> dict[str, Any]:
    """A recipe as it was written down before some of its dotted fields existed."""
    values = json.loads(json.dumps(recipe.to_dict()))
    for path in without:
        *parents, name = path.split(".")
        inside = values
        for parent in parents:
            inside = inside[int(parent) if isinstance(inside, list) else parent]
        del inside[name]
    return values


def test_values_from_before_a_field_with_a_default_are_the_same_recipe():
    codec = override(RECIPES["pocket-codec-ahead"], "model.codec.look_ahead_frames=0")
    assert codec.makes_the_same_as(stored(codec))
    assert codec.makes_the_same_as(stored(codec, "model.codec.look_ahead_frames", "optim.eps", "precision"))
    assert codec.makes_the_same_as(stored(codec, "model.codec.quantiser"))
    assert codec.makes_the_same_as(stored(codec) | {"eval_every": 7, "paper": "none"})
    assert JOINT.makes_the_same_as(stored(override(JOINT, "eval_every=3"), "objective.alignment"))
    source = dataclasses.replace(JOINT, mixture=(Source(manifest="m", task="asr"),))
    assert source.makes_the_same_as(stored(source, "mixture.0.weight"))


def test_values_that_differ_are_another_recipe():
    ahead, spoken = RECIPES["pocket-codec-ahead"], RECIPES["pocket-audio-experts"]
    assert not ahead.makes_the_same_as(stored(ahead, "model.codec.look_ahead_frames"))  # 1, not the default
    assert not spoken.makes_the_same_as(stored(spoken, "objective.alignment"))
    assert not spoken.makes_the_same_as(stored(spoken, "objective.alignment.word_weight"))
    assert not spoken.makes_the_same_as(stored(spoken, "mixture.3.manifest"))  # it has no default
    assert not spoken.makes_the_same_as(stored(spoken) | {"dropped": 1})
    assert not spoken.makes_the_same_as(stored(spoken) | {"mixture": stored(spoken)["mixture"][:-1]})
    assert not JOINT.makes_the_same_as(stored(override(JOINT, "optim.lr=1e-5")))


def test_the_shipped_weights_come_from_the_pipeline_as_it_stands():
    shipped = json.loads((files("deeptalk") / "assets" / "pocket" / "stages.json").read_text())["stages"]
    recipes = {recipe.name: recipe for recipe in POCKET_PIPELINE}
    assert list(shipped)[-1] == POCKET_PIPELINE[-1].name
    assert shipped.keys() <= recipes.keys()
    different = [name for name in shipped if not recipes[name].makes_the_same_as(shipped[name]["recipe"])]
    assert not different


def test_to_dict_names_the_kind_of_every_part():
    plain = JOINT.to_dict()
    assert plain["kind"] == "Recipe"
    assert plain["optim"] == {
        "kind": "AdamW",
        "lr": 5e-5,
        "betas": [0.9, 0.95],
        "weight_decay": 0.0,
        "eps": 1e-8,
        "clip_norm": 1.0,
    }
    assert plain["objective"]["kind"] == "Supervised"
    assert "router_mask" not in plain["objective"]


def test_a_recipe_needs_a_length():
    with pytest.raises(ConfigError, match="num_steps or epochs"):
        dataclasses.replace(JOINT, epochs=None)


def test_the_paper_is_written_down():
    assert [recipe.optim.lr for recipe in PIPELINE] == [2e-5, 1e-4, 2e-5, 5e-5]
    assert all(recipe.optim.betas == (0.9, 0.95) for recipe in PIPELINE)
    assert PIPELINE[1].routing == Routing(text="audio", audio="audio")
    for recipe in PIPELINE:
        weight = recipe.objective.balance_weight
        assert recipe.objective == Supervised(balance_weight=weight, text_chunk=1_024)
    assert [term.weight for term in Supervised().terms[:8]] == [1 / 8] * 8
    assert Supervised().terms[-1] == Term(name="balance", weight=0.0)


def test_cosine_warms_up_and_ends_low():
    schedule = Cosine(warmup_fraction=0.1, final_fraction=0.2)
    factors = [schedule.factor(step, 100) for step in range(100)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(factors) == 1.0
    assert factors[55] == pytest.approx(0.6, abs=0.01)
    assert factors[99] == pytest.approx(0.2, abs=0.001)


def test_a_cosine_ended_early_is_the_long_one_and_then_straight():
    long = Cosine(warmup_fraction=0.1, final_fraction=0.2)
    ended = Cosine(warmup_fraction=0.2, final_fraction=0.2, horizon=2, cooldown_fraction=0.4)
    factors = [ended.factor(step, 100) for step in range(101)]
    assert factors[:61] == [long.factor(step, 200) for step in range(61)]
    steps = [before - after for before, after in itertools.pairwise(factors[60:])]
    assert steps == pytest.approx([(factors[60] - 0.2) / 40] * 40)
    assert factors[100] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"horizon": 0.9}, "horizon must be at least 1"),
        ({"horizon": float("inf"), "cooldown_fraction": 0.1}, "finite"),
        ({"horizon": float("nan")}, "finite"),
        ({"cooldown_fraction": 0.98}, "1 - warmup_fraction"),
        ({"horizon": 2.0}, "needs a cooldown_fraction"),
    ],
)
def test_a_schedule_that_fits_no_stage_is_refused(wrong, reason):
    with pytest.raises(ConfigError, match=reason):
        Cosine(**wrong)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ears = nn.Linear(2, 2)
        self.mouths = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))


def test_the_white_list_frees_what_it_names_and_freezes_the_rest():
    model = Two()
    assert freeze_all_but(model, ("mouths.*", "!mouths.1.*")) == (
        "mouths.0.weight",
        "mouths.0.bias",
        "mouths.2.weight",
        "mouths.2.bias",
    )
    assert not model.ears.weight.requires_grad
    assert model.mouths[0].weight.requires_grad
    assert not model.mouths[1].weight.requires_grad
    optimizer = AdamW(lr=0.1, weight_decay=0.5).build(model)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_pattern_that_matches_nothing_is_an_error_that_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"'noses.*'(.|\n)*ears.weight(.|\n)*mouths.\*.weight  \(3\)"):
        freeze_all_but(Two(), ("ears.*", "noses.*"))
    with pytest.raises(ConfigError, match="nothing to train"):
        freeze_all_but(Two(), ("ears.*", "!ears.*"))


def test_decay_moves_matrices_only():
    model = Two()
    freeze_all_but(model, ("ears.*",))
    before = [p.detach().clone() for p in (model.ears.weight, model.ears.bias, model.mouths[0].weight)]
    optimizer = AdamW(lr=0.1, weight_decay=0.5).build(model)
    (model.ears(torch.ones(1, 2)).sum() * 0).backward()
    optimizer.step()
    assert torch.allclose(model.ears.weight, before[0] * (1 - 0.05))
    assert torch.equal(model.ears.bias, before[1])
    assert torch.equal(model.mouths[0].weight, before[2])


def test_tiny_is_short():
    tiny: Recipe = RECIPES["pocket-text"].tiny()
    assert tiny.num_steps == 2
    assert tiny.model.backbone["hidden_size"] == 32
    assert tiny.model.layout == RECIPES["pocket-text"].model.layout
