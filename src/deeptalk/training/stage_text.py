"""The language model before any speech: pretraining on text dialogues, and its folder on disk."""

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from deeptalk.backbone import Backbone, open_backbone
from deeptalk.backbone.stock import save_stock
from deeptalk.data.dataset import DialogueBatches, load_source
from deeptalk.data.library import AnswerLibrary, ClipLibrary
from deeptalk.data.tasks import TaskContext
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.folder import TOKENIZER
from deeptalk.streams import StreamLayout
from deeptalk.streams.text import TextTokenizer
from deeptalk.training.parts import TextPart
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.stage import Places

LAYOUT = "layout.json"


class TextStage:
    """Pretraining of the language model on text dialogues; a recipe that starts from another one goes on."""

    def __init__(self, recipe: Recipe, places: Places) -> None:
        part = recipe.model
        if not isinstance(part, TextPart):
            raise ConfigError(f"recipe {recipe.name!r} needs a TextPart as its model.")
        self.recipe, self.places, self.part = recipe, places, part
        self.tokenizer_path = places.tokenizer
        self.tokenizer = TextTokenizer(self.tokenizer_path)
        if self.tokenizer.vocab_size > part.layout.vocab_size:
            raise ConfigError(
                f"{self.tokenizer_path} has {self.tokenizer.vocab_size} ids, the recipe's layout room for "
                f"{part.layout.vocab_size}."
            )
        earlier = [places.need(name) for name in recipe.starts_from]
        self.model: Backbone = open_backbone(earlier[-1] if earlier else dict(part.backbone))
        self.objective = recipe.objective

    def batches(self, *, rank: int, world_size: int) -> DialogueBatches:
        """Batches of text dialogues."""
        return self._stream(self.recipe.mixture, rank=rank, world_size=world_size)

    def held_out(self) -> Sequence[Any]:
        """The first batches of the evaluation sources."""
        sources = self.recipe.evaluation
        return list(islice(self._stream(sources), self.recipe.eval_batches)) if sources else []

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """A stock checkpoint of `transformers`, with tokenizer and streams beside it."""
        save_stock(self.model, folder)
        shutil.copyfile(self.tokenizer_path, folder / TOKENIZER)
        (folder / LAYOUT).write_text(json.dumps(self.part.layout.to_dict(), indent=1))

    def _stream(self, sources: tuple[Source, ...], *, rank: int = 0, world_size: int = 1) -> DialogueBatches:
        context = TaskContext(
            tokenizer=self.tokenizer,
            layout=self.part.layout,
            clips=ClipLibrary(()),
            answers=AnswerLibrary(),
            reader=None,
            stride=1,
            max_positions=self.recipe.max_positions,
        )
        loaded = [load_source(source, self.places.data, context) for source in sources]
        return DialogueBatches(
            loaded,
            context,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            rank=rank,
            world_size=world_size,
        )


def read_layout(folder: Path) -> StreamLayout:
    """The streams that a language model was trained for.

    Raises:
        CheckpointError: the folder was not written by text pretraining.
    """
    try:
        return StreamLayout.from_dict(json.loads((folder / LAYOUT).read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no readable {LAYOUT} ({error}).") from error
