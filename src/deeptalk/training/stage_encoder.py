"""Pretraining of the speech encoder on transcribed clips, and its folder on disk."""

import math
import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperEncoderLayer, sinusoids

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
_POSITION_SCALE = 0.7
_DISTANCES = (-1, 1, -3, 3)  # frames of 20 ms
_SHARPNESS = 1.3


class EncoderStage:
    """Pretraining of the encoder; a recipe that starts from another goes on with its weights and heads."""

    def __init__(self, recipe: Recipe, places: Places) -> None:
        part, objective = recipe.model, recipe.objective
        if not isinstance(part, EncoderPart) or not isinstance(objective, Ctc):
            raise ConfigError(
                f"recipe {recipe.name!r} needs an EncoderPart as its model and Ctc as its objective."
            )
        self.recipe, self.places, self.part, self.objective = recipe, places, part, objective
        tokenizer = TextTokenizer(places.tokenizer)
        self.transcripts = Transcripts(places.data, tokenizer)
        earlier = [places.need(name) for name in recipe.starts_from]
        self.model = EncoderForCtc(
            load_encoder(earlier[-1]) if earlier else SpeechEncoder(part.encoder),
            num_tokens=tokenizer.vocab_size,
            num_phones=len(self.transcripts.phone_ids),
            phone_layer=objective.phone_layer,
            tokenizer=tokenizer,
        )
        self.model.encoder.attend_eagerly()
        if not earlier:
            _begin(self.model.encoder)
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
        shutil.copyfile(self.places.tokenizer, folder / TOKENIZER)

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


def _begin(encoder: SpeechEncoder) -> None:
    """Starting values for training from nothing on few hours of speech.

    Whisper's own (0.02 everywhere) let untrained convolutions whisper under its sinusoids, and leave it to
    attention to discover that neighbours matter. Here all matrices keep the level, and each head begins by
    looking at a fixed distance: shifted sinusoids are rotated ones, so query and key are the same pairs of
    channels, the query's rotated.
    """
    for conv in (encoder.conv1, encoder.conv2):
        torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    table, heads = encoder.embed_positions.weight, encoder.settings.heads
    with torch.no_grad():
        table.copy_(sinusoids(*table.shape) * _POSITION_SCALE)
        for layer in encoder.layers:
            assert isinstance(layer, WhisperEncoderLayer)
            attention = layer.self_attn
            for linear in (attention.v_proj, attention.out_proj, layer.fc1, layer.fc2):
                torch.nn.init.xavier_normal_(linear.weight)
            for head in range(heads):
                _look_at(attention, head, distance=_DISTANCES[head % len(_DISTANCES)])


def _look_at(attention: WhisperAttention, head: int, *, distance: int) -> None:
    """Make a head attend to the frame at a distance, by the fastest sinusoids that its width can hold."""
    width, size = attention.q_proj.weight.shape[1], attention.head_dim
    pairs, half = size // 2, width // 2
    first = head * size
    speeds = torch.exp(-math.log(10_000.0) / (half - 1) * torch.arange(pairs)) * distance
    rows, channels = first + torch.arange(pairs), torch.arange(pairs)
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        weight[first : first + size] *= 0.1
    attention.k_proj.weight[rows, channels] += _SHARPNESS
    attention.k_proj.weight[rows + pairs, channels + half] += _SHARPNESS
    # sin(w(t + d)) = cos(wd) sin(wt) + sin(wd) cos(wt), cos(w(t + d)) = cos(wd) cos(wt) - sin(wd) sin(wt)
    attention.q_proj.weight[rows, channels] += _SHARPNESS * speeds.cos()
    attention.q_proj.weight[rows, channels + half] += _SHARPNESS * speeds.sin()
    attention.q_proj.weight[rows + pairs, channels + half] += _SHARPNESS * speeds.cos()
    attention.q_proj.weight[rows + pairs, channels] -= _SHARPNESS * speeds.sin()
