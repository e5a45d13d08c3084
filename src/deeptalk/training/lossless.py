"""What keeps a stage of a lossless model from touching text (method.md, sections 9.2 and 14)."""

from dataclasses import replace
from typing import Any

from deeptalk.backbone.extra import is_extra_name
from deeptalk.errors import ConfigError
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.streams.batch import Batch
from deeptalk.streams.layout import IGNORE, TEXT
from deeptalk.streams.modality import Row
from deeptalk.training.recipe import Recipe
from deeptalk.training.stage import SizedBatches
from deeptalk.training.trainable import is_named


class TextOfTextRows:
    """Batches whose text is learnt from text rows alone, as only these are asked for text in decoding."""

    def __init__(self, batches: SizedBatches) -> None:
        self._batches = batches

    def __next__(self) -> Batch:
        """The next batch."""
        return text_of_text_rows(next(self._batches))

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return self._batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        self._batches.load_state_dict(state)

    def num_batches_per_epoch(self, source: int = 0) -> int:
        """Batches of this process in which the source is seen once."""
        return self._batches.num_batches_per_epoch(source)


def text_of_text_rows(batch: Batch) -> Batch:
    """The batch without the text labels of speech rows."""
    labels = batch.labels.clone()
    labels[batch.row == Row.SPEECH, TEXT] = IGNORE
    return replace(batch, labels=labels)


def check_frozen(model: DeepTalk, recipe: Recipe) -> None:
    """Refuse a recipe that would move a lossless model's backbone; `ConfigError` names a tensor it frees."""
    for name, _ in model.backbone.named_parameters(prefix="backbone"):
        if not is_extra_name(name) and is_named(name, recipe.trains):
            raise ConfigError(
                f"recipe {recipe.name!r} trains {name}, but the backbone of a lossless model stays as it is: "
                "backbone.*.experts.extra.* and backbone.*.extra_router.* are all that trains beside it."
            )
