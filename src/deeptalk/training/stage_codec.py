"""Pretraining of the codec on recordings of the voices it will speak with."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from deeptalk.codec import PocketCodec, load_codec, save_codec
from deeptalk.data.alignment import PHONES
from deeptalk.data.pretraining import WaveformBatches
from deeptalk.errors import ConfigError
from deeptalk.training.codec import CodecTraining
from deeptalk.training.parts import CodecPart
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.stage import Places


class CodecStage:
    """The codec to a folder that `load_codec` opens; a recipe that starts from another one goes on."""

    def __init__(self, recipe: Recipe, places: Places) -> None:
        if not isinstance(recipe.model, CodecPart):
            raise ConfigError(f"recipe {recipe.name!r} needs a CodecPart as its model.")
        self.recipe, self.places = recipe, places
        self.model = PocketCodec(recipe.model.codec)
        for name in recipe.starts_from:
            earlier = load_codec(places.need(name))
            if not isinstance(earlier, PocketCodec) or earlier.config != self.model.config:
                raise ConfigError(f"recipe {recipe.name!r} and {name!r} make codecs of different shape.")
            self.model.load_state_dict(earlier.state_dict())
        self.objective = recipe.objective
        if isinstance(recipe.objective, CodecTraining) and recipe.objective.phone_weight:
            self.model.learn_phones(len(PHONES))

    def batches(self, *, rank: int, world_size: int) -> WaveformBatches:
        """Stretches of `max_positions` codec frames."""
        return self._stream(self.recipe.mixture, rank=rank, world_size=world_size)

    def held_out(self) -> Sequence[Any]:
        """The first stretches of the evaluation sources."""
        sources = self.recipe.evaluation
        return list(islice(self._stream(sources), self.recipe.eval_batches)) if sources else []

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Configuration and weights."""
        save_codec(self.model, folder)

    def _stream(self, sources: Sequence[Source], *, rank: int = 0, world_size: int = 1) -> WaveformBatches:
        return WaveformBatches(
            [self.places.data / f"{source.manifest}.jsonl" for source in sources],
            sample_rate=self.model.sample_rate,
            num_samples=self.recipe.max_positions * self.model.samples_per_frame,
            samples_per_phone=self.model.samples_per_frame // self.model.config.quantiser.strides[0],
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            rank=rank,
            world_size=world_size,
        )
