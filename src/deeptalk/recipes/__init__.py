"""Every stage of training as a literal value: the paper's pipeline, and the pocket model's."""

from deeptalk.recipes.align import ALIGN
from deeptalk.recipes.audio_experts import AUDIO_EXPERTS
from deeptalk.recipes.joint import JOINT
from deeptalk.recipes.pocket import POCKET_PIPELINE
from deeptalk.recipes.preference import (
    POCKET_PREFERENCE,
    POCKET_PREFERENCE_ALOUD,
    PREFERENCE,
    PREFERENCE_AUDIO,
)
from deeptalk.recipes.released import RELEASED
from deeptalk.recipes.text_experts import TEXT_EXPERTS
from deeptalk.recipes.variants import POCKET_VARIANTS
from deeptalk.training.recipe import Recipe

PIPELINE = (ALIGN, AUDIO_EXPERTS, TEXT_EXPERTS, JOINT)
"""Stages 1 to 3; `PREFERENCE` comes after them."""

FULL_SIZE = (*PIPELINE, PREFERENCE, PREFERENCE_AUDIO, *RELEASED)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *FULL_SIZE,
        *POCKET_PIPELINE,
        POCKET_PREFERENCE,
        POCKET_PREFERENCE_ALOUD,
        *POCKET_VARIANTS,
    )
}

__all__ = ["FULL_SIZE", "PIPELINE", "POCKET_PIPELINE", "RECIPES", "Recipe"]
