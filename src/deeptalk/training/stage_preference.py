"""Stage RL: a model that speaks, opened together with pairs of its own answers."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from deeptalk.data.preference import LoadedPairs, PreferenceBatches, Reference, load_pairs
from deeptalk.errors import ConfigError
from deeptalk.model.folder import TOKENIZER
from deeptalk.model.identity import model_hash
from deeptalk.model.weights import load
from deeptalk.streams.text import TextTokenizer
from deeptalk.training.objective import Objective
from deeptalk.training.preference import check_experts
from deeptalk.training.recipe import Recipe
from deeptalk.training.stage import Places
from deeptalk.training.stage_dialogue import CODEC, save_speaking


class PreferenceStage:
    """Learning from pairs. The reference is the start model, whose log-probabilities stand in the pairs.

    No second model is held in memory: pairs that another model has scored are refused instead.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        if len(recipe.starts_from) != 1:
            raise ConfigError(
                f"recipe {recipe.name!r} learns from pairs: starts_from must name the one stage whose model "
                f"has made them, got {recipe.starts_from}."
            )
        if recipe.partition is not None or not (recipe.routing is None or recipe.routing.is_free):
            raise ConfigError(
                f"recipe {recipe.name!r} learns from pairs: it takes no partition, and every token may use "
                "every expert, as in decoding."
            )
        self.recipe = recipe
        self.start = places.need(recipe.starts_from[0])
        self.model = load(self.start, dtype=recipe.dtype)
        check_experts(self.model)
        self._tokenizer = TextTokenizer(self.start / TOKENIZER)
        reference = Reference(model=model_hash(self.model), precision=recipe.precision)
        self._training, self._held_out = (
            [load_pairs(s, places.data, layout=self.model.layout, reference=reference) for s in sources]
            for sources in (recipe.mixture, recipe.evaluation)
        )
        if self.model.config.audio_experts is not None:
            self.model.split()

    @property
    def objective(self) -> Objective:
        """The recipe's own."""
        return self.recipe.objective

    def batches(self, *, rank: int, world_size: int) -> PreferenceBatches:
        """Batches of pairs."""
        return self._stream(self._training, rank=rank, world_size=world_size)

    def held_out(self) -> Sequence[Any]:
        """The first batches of the evaluation sources."""
        return list(islice(self._stream(self._held_out), self.recipe.eval_batches)) if self._held_out else []

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """A folder of the model with tokenizer and codec, as `deeptalk.load` opens it."""
        save_speaking(
            self.model,
            folder,
            tokenizer_path=self.start / TOKENIZER,
            codec_folder=self.start / CODEC,
            provenance=provenance,
            dtype=self.recipe.dtype,
        )

    def _stream(
        self, sources: Sequence[LoadedPairs], *, rank: int = 0, world_size: int = 1
    ) -> PreferenceBatches:
        return PreferenceBatches(
            sources,
            tokenizer=self._tokenizer,
            layout=self.model.layout,
            max_positions=self.recipe.max_positions,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            rank=rank,
            world_size=world_size,
        )
