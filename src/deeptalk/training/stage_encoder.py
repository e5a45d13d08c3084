"""Pretraining of the speech encoder on transcribed clips, and its folder on disk."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers.models.whisper.modeling_whisper import sinusoids

from deeptalk.data.augment import Augmentation
from deeptalk.data.transcription import TranscriptionBatches, Transcripts
from deeptalk.errors import ConfigError
from deeptalk.model.encoder import SpeechEncoder
from deeptalk.model.folder import TOKENIZER
from deeptalk.model.weights import load_encoder, save_encoder
from deeptalk.streams.text import TextTokenizer
from deeptalk.training.ctc import Ctc, EncoderForCtc
from deeptalk.training.parts import EncoderPart
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.stage import Places

HEADS = "heads.safetensors"
_POSITION_SCALE = 0.03


class EncoderStage:
    """Pretraining of the encoder; a recipe that starts from another one goes on with its weights and heads."""

    def __init__(self, recipe: Recipe, places: Places) -> None:
        part, objective = recipe.model, recipe.objective
        if not isinstance(part, EncoderPart) or not isinstance(objective, Ctc):
            raise ConfigError(
                f"recipe {recipe.name!r} needs an EncoderPart as its model and Ctc as its objective."
            )
        self.recipe, self.places, self.part, self.objective = recipe, places, part, objective
        tokenizer = TextTokenizer(places.data / TOKENIZER)
        self.transcripts = Transcripts(places.data, tokenizer)
        earlier = [places.need(name) for name in recipe.starts_from]
        self.model = EncoderForCtc(
            load_encoder(earlier[-1]) if earlier else SpeechEncoder(part.encoder),
            num_tokens=tokenizer.vocab_size,
            num_phones=len(self.transcripts.phone_ids),
            phone_layer=objective.phone_layer,
            tokenizer=tokenizer,
        )
        if not earlier:
            _place(self.model.encoder)
        for folder in earlier:
            self.model.load_state_dict(safetensors.torch.load_file(folder / HEADS), strict=False)

    def batches(self, *, rank: int, world_size: int) -> TranscriptionBatches:
        """Clips in ever new rooms."""
        augmentation = self.part.augmentation
        return self._stream(self.recipe.mixture, augmentation=augmentation, rank=rank, world_size=world_size)

    def held_out(self) -> Sequence[Any]:
        """The first batches of the evaluation sources, as they were recorded."""
        sources, count = self.recipe.evaluation, self.recipe.eval_batches
        return list(islice(self._stream(sources, augmentation=None), count)) if sources else []

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """The encoder with its config; the heads beside it, for a recipe that goes on."""
        save_encoder(self.model.encoder, folder, provenance=provenance)
        heads = {k: v for k, v in self.model.state_dict().items() if not k.startswith("encoder.")}
        safetensors.torch.save_file(heads, folder / HEADS)
        shutil.copyfile(self.places.data / TOKENIZER, folder / TOKENIZER)

    def _stream(
        self,
        sources: tuple[Source, ...],
        *,
        augmentation: Augmentation | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> TranscriptionBatches:
        return TranscriptionBatches(
            [self.places.data / f"{source.manifest}.jsonl" for source in sources],
            [source.weight for source in sources],
            self.transcripts,
            mel=self.part.mel,
            augmentation=augmentation,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            labels_frames=self.objective.aligned > 0,
            rank=rank,
            world_size=world_size,
        )


def _place(encoder: SpeechEncoder) -> None:
    """Whisper's sinusoids for positions, as quiet as untrained convolutions, lest they drown them."""
    table = encoder.embed_positions.weight
    with torch.no_grad():
        table.copy_(sinusoids(*table.shape) * _POSITION_SCALE)
