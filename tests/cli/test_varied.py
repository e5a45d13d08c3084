"""What the workers of reproduce keep of a variant, and when it counts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deeptalk.cli import varied
from deeptalk.cli.shipped import lay_out_shipped
from deeptalk.codec import load_codec
from deeptalk.model.weights import load, load_encoder
from deeptalk.recipes.preference import SHIPPED_MODEL
from deeptalk.recipes.variants import ADAPTIVE, BRIEF_ALIGN, BRIEF_TEXT, SHIPPED_CODEC, SHIPPED_ENCODER
from deeptalk.training.stage import Places


def kept(recipes: Any) -> dict[str, Any]:
    """Figures as a run of these recipes leaves them."""
    stages = [{"recipe": recipe.name, "recipe_values": recipe.to_dict()} for recipe in recipes]
    return json.loads(json.dumps({"stages": stages}))


def test_a_run_has_a_file_for_each_seed(tmp_path: Path):
    assert varied.results_file(tmp_path, "adaptive", 1) == tmp_path / "adaptive.json"
    assert varied.results_file(tmp_path, "adaptive", 2) == tmp_path / "adaptive-seed-2.json"


def test_figures_count_for_the_recipe_that_gave_them_and_for_later_settings_with_a_default():
    recipe = ADAPTIVE.stages[1]
    (stage,) = kept([recipe])["stages"]
    stage["recipe_values"]["routing"].pop("renorm", None)
    assert varied._is_of(stage, recipe)
    assert not varied._is_of(stage, replace(recipe, num_steps=13))
    assert not varied._is_of(stage, ADAPTIVE.seeded(2).stages[1])


def test_the_start_is_a_text_backbone_that_cannot_be_asked_and_stage_1_that_can():
    assert varied.stages_of(varied.START, 1) == (BRIEF_TEXT, BRIEF_ALIGN)
    assert [varied.is_measurable(recipe) for recipe in (BRIEF_TEXT, BRIEF_ALIGN)] == [False, True]


def test_last_losses_are_means_of_the_last_tenth():
    lines = [{"losses": {"text": float(step)} | ({"heard": 2.0} if step == 19 else {})} for step in range(20)]
    assert varied._last_losses(lines) == {"text": 18.5, "heard": 2.0}


@pytest.mark.weights
def test_the_shipped_parts_lie_where_stages_find_them(tmp_path: Path):
    places = Places(root=tmp_path, data=tmp_path / "data")
    lay_out_shipped(places)
    model = load("pocket")
    encoder = load_encoder(places.need(SHIPPED_ENCODER))
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor), name
    assert load_codec(places.need(SHIPPED_CODEC)).num_codebooks == 7
    again = load(places.need(SHIPPED_MODEL))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    note = places.need(SHIPPED_CODEC) / "recipe.json"
    note.write_text("{}")
    lay_out_shipped(places)
    assert note.read_text() == "{}"
