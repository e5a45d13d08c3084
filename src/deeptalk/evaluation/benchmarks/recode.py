"""Recordings said again through a codec, or untouched: the ceiling of all that the codec can speak."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from deeptalk.audio import load_waveform
from deeptalk.codec import Codec
from deeptalk.errors import AudioError
from deeptalk.evaluation.benchmarks.generation import Ask, Reply


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recoder:
    """Answers an item with its own recording; without ``codec`` as it is. An item's text is its text row."""

    sample_rate: int
    codec: Codec | None = None

    def answer_all(self, batches: Sequence[Sequence[Ask]]) -> Iterator[list[Reply]]:
        """The replies to each batch, in order."""
        return ([self._answer(ask) for ask in batch] for batch in batches)

    @torch.inference_mode()
    def _answer(self, ask: Ask) -> Reply:
        assert ask.audio is not None
        try:
            sound = load_waveform(ask.audio, sample_rate=self.sample_rate)
        except AudioError as error:
            return Reply(text=None, reason=str(error).replace(str(ask.audio), ask.audio.name))
        if self.codec is not None:
            sound = self.codec.decode(self.codec.encode(sound[None]))[0, : len(sound)]
        return Reply(text=ask.text, sound=sound, finish_reason="stop")
