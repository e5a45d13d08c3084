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


def test_a_run_is_done_when_every_stage_is_of_todays_recipe(tmp_path: Path):
    path = varied.results_file(tmp_path, "adaptive", 1)
    assert path == tmp_path / "adaptive.json"
    assert varied.results_file(tmp_path, "adaptive", 2) == tmp_path / "adaptive-seed-2.json"
    assert not varied.is_done("adaptive", 1, tmp_path)
    path.write_text(json.dumps(kept(ADAPTIVE.stages[:2])))
    assert not varied.is_done("adaptive", 1, tmp_path)
    path.write_text(json.dumps(kept(ADAPTIVE.stages)))
    assert varied.is_done("adaptive", 1, tmp_path)
    assert not varied.is_done("adaptive", 2, tmp_path)
    other = (*ADAPTIVE.stages[:2], replace(ADAPTIVE.stages[2], num_steps=201))
    path.write_text(json.dumps(kept(other)))
    assert not varied.is_done("adaptive", 1, tmp_path)


def test_figures_of_recipes_without_later_settings_still_count(tmp_path: Path):
    found = kept(ADAPTIVE.stages)
    for stage in found["stages"]:
        stage["recipe_values"]["routing"].pop("renorm", None)
    varied.results_file(tmp_path, "adaptive", 1).write_text(json.dumps(found))
    assert varied.is_done("adaptive", 1, tmp_path)


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
