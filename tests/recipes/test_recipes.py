"""Every recipe is sound: what it starts from exists, and what it frees is there to be freed."""

import dataclasses
from copy import deepcopy
from difflib import get_close_matches

import pytest
import torch
from torch import nn

from deeptalk.backbone import open_backbone
from deeptalk.backbone.extra import ExtraExperts
from deeptalk.codec import PocketCodec
from deeptalk.experts import Routing
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.recipes import FULL_SIZE, PIPELINE, POCKET_PIPELINE, RECIPES
from deeptalk.recipes.pocket import POCKET_BACKBONE, POCKET_JOINT, POCKET_LAYOUT
from deeptalk.recipes.preference import POCKET_PREFERENCE
from deeptalk.recipes.variants import POCKET_VARIANTS, SHIPPED_CODEC, SHIPPED_ENCODER
from deeptalk.training.ctc import EncoderForCtc
from deeptalk.training.parts import CodecPart, DialoguePart, EncoderPart, TextPart
from deeptalk.training.recipe import Recipe
from deeptalk.training.trainable import freeze_all_but

DIALOGUE = [r for r in RECIPES.values() if r.model is None or isinstance(r.model, DialoguePart)]
PRETRAINING = [r for r in RECIPES.values() if r not in DIALOGUE]


@pytest.fixture(scope="module")
def model() -> DeepTalk:
    model = DeepTalk(DeepTalkConfig.tiny())
    shape = model.backbone.layers
    is_audio = torch.zeros(shape.num_moe_layers, shape.num_experts, dtype=torch.bool)
    is_audio[:, :3] = True
    model.split(is_audio)
    return model


def trained_parts(recipe: Recipe, model: nn.Module) -> dict[str, bool]:
    """Whether any parameter of a part trains; the parts are the rows of method.md 9.1."""
    free = freeze_all_but(model, recipe.trains)
    rows = {
        "encoder": ("encoder.",),
        "adapter": ("adapter.",),
        "new rows": ("embedding.", "heads.codec."),
        "text tables": ("embed_tokens", "lm_head"),
        "attention": ("self_attn",),
        "shared experts": ("shared_experts",),
        "audio experts": (".experts.audio.",),
        "text experts": (".experts.text.",),
        "router": (".mlp.gate.",),
    }
    return {row: any(mark in name for name in free for mark in marks) for row, marks in rows.items()}


@pytest.mark.parametrize(
    ("index", "trains"),
    [
        (0, {"adapter", "new rows"}),
        (1, {"new rows", "audio experts"}),
        (2, {"text experts"}),
        (
            3,
            {
                "new rows",
                "text tables",
                "attention",
                "shared experts",
                "audio experts",
                "text experts",
                "router",
            },
        ),
    ],
)
def test_the_papers_stages_train_what_method_says(model: DeepTalk, index: int, trains: set[str]):
    parts = trained_parts(PIPELINE[index], model)
    assert {part for part, does in parts.items() if does} == trains


@pytest.mark.parametrize("recipe", DIALOGUE, ids=lambda recipe: recipe.name)
def test_the_encoder_never_trains_with_the_dialogue_model(model: DeepTalk, recipe: Recipe):
    if any("extra" in pattern or "stock" in pattern for pattern in recipe.trains):
        model = DeepTalk(DeepTalkConfig.tiny())
        model.add_experts(ExtraExperts(sources=((0, 1, 2), (3, 4, 5))))
    if "hearing.*" in recipe.trains or getattr(recipe.objective, "alignment", None) is not None:
        model = deepcopy(model)
        model.learn_alignment(word_layer=1, phone_layer=2, num_phones=4, phones_per_frame=2)
        model.learn_hearing()
    assert not trained_parts(recipe, model)["encoder"]


@pytest.mark.parametrize("recipe", PRETRAINING, ids=lambda recipe: recipe.name)
def test_pretraining_builds_and_trains_everything(recipe: Recipe):
    part = recipe.tiny().model
    if isinstance(part, CodecPart):
        built: nn.Module = PocketCodec(part.codec)
    elif isinstance(part, TextPart):
        built = open_backbone(dict(part.backbone))
    else:
        assert isinstance(part, EncoderPart)
        built = EncoderForCtc(SpeechEncoder(part.encoder), num_tokens=5, num_phones=4, phone_layer=1)
    assert freeze_all_but(built, recipe.trains)


@pytest.mark.parametrize(
    "pipeline",
    [
        PIPELINE,
        POCKET_PIPELINE,
        (*POCKET_PIPELINE, POCKET_PREFERENCE),
        (*POCKET_PIPELINE, *POCKET_VARIANTS),
    ],
    ids=["paper", "pocket", "pocket-preference", "pocket-variants"],
)
def test_stages_start_from_earlier_ones(pipeline: tuple[Recipe, ...]):
    before: set[str] = set()
    for recipe in pipeline:
        outside = {"whisper-medium", "deepseek-v2-lite", "snac-24khz", SHIPPED_ENCODER, SHIPPED_CODEC}
        missing = set(recipe.starts_from) - before - outside
        assert not missing, f"{missing}, near {get_close_matches(str(missing), before)}"
        before.add(recipe.name)


def test_every_recipe_has_its_name_and_its_section():
    others = len(POCKET_VARIANTS) + 2  # and two of stage RL
    assert len(RECIPES) == len(FULL_SIZE) + len(POCKET_PIPELINE) + others
    assert all(RECIPES[name].name == name and RECIPES[name].paper for name in RECIPES)


def test_routing_follows_the_paper():
    groups = [(recipe.routing.text, recipe.routing.audio) for recipe in PIPELINE if recipe.routing]
    assert groups == [("all", "all"), ("audio", "audio"), ("text", "text"), ("all", "all")]
    assert POCKET_JOINT.routing == Routing(text="all", audio="all")


def test_pairs_are_those_of_the_last_pocket_model():
    assert POCKET_PREFERENCE.starts_from == (POCKET_PIPELINE[-1].name,)
    sources = (*POCKET_PREFERENCE.mixture, *POCKET_PREFERENCE.evaluation)
    assert {source.task for source in sources} == {"preference"}


def test_the_pocket_model_fits_together_and_is_small():
    encoder = next(r.model.encoder for r in POCKET_PIPELINE if isinstance(r.model, EncoderPart))
    part = next(r.model for r in POCKET_PIPELINE if isinstance(r.model, DialoguePart))
    assert isinstance(encoder, EncoderConfig)
    config = DeepTalkConfig(
        encoder=encoder,
        adapter=part.adapter,
        backbone=POCKET_BACKBONE,
        layout=POCKET_LAYOUT,
        mel=part.mel,
        fusion=part.fusion,
    )
    with torch.device("meta"):
        model = DeepTalk(config)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 14_000_000


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_recipe_has_a_tiny_twin(recipe: Recipe):
    tiny = recipe.tiny()
    assert tiny.num_steps == 2
    assert tiny.hash != recipe.hash
    assert dataclasses.replace(tiny, seed=recipe.seed + 1).hash != tiny.hash
