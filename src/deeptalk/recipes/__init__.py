"""Every stage of training as a literal value: the paper's pipeline, and the pocket model's."""

from deeptalk.recipes.align import ALIGN
from deeptalk.recipes.audio_experts import AUDIO_EXPERTS
from deeptalk.recipes.joint import JOINT
from deeptalk.recipes.pocket import POCKET_PIPELINE
from deeptalk.recipes.preference import POCKET_PREFERENCE
from deeptalk.recipes.text_experts import TEXT_EXPERTS
from deeptalk.recipes.variants import POCKET_VARIANTS
from deeptalk.training.recipe import Recipe

PIPELINE = (ALIGN, AUDIO_EXPERTS, TEXT_EXPERTS, JOINT)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*PIPELINE, *POCKET_PIPELINE, POCKET_PREFERENCE, *POCKET_VARIANTS)
}

__all__ = ["PIPELINE", "POCKET_PIPELINE", "RECIPES", "Recipe"]
