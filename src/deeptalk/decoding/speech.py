"""An answer on its way out: ids become words and codes become samples, step by step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from deeptalk.codec import Codec, CodecStream
from deeptalk.decoding.answer import Answer, FinishReason, Frame
from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams.text import TextCodec, TextStream


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spoken:
    """A piece of a reply: the words and the samples that one step has added; either may be empty."""

    text: str
    samples: Float[Tensor, "S"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reply:
    """A reply that has ended.

    Both times count computing only, not the time that the caller holds a piece. ``time_to_first_audio_ms``
    begins when the last samples of the question are handed over; ``real_time_factor`` is computing time over
    the length of the sound. Without sound both are None.
    """

    text: str
    codes: Int[Tensor, "L Q"]
    finish_reason: FinishReason
    time_to_first_audio_ms: float | None
    real_time_factor: float | None

    @property
    def num_frames(self) -> int:
        """Frames of speech."""
        return len(self.codes)


class Stopwatch:
    """Adds up the time between ``resume`` and ``pause``."""

    def __init__(self, now: Callable[[], float], *, seconds: float = 0.0) -> None:
        self._now, self._total = now, seconds
        self._since: float | None = None

    def resume(self) -> None:
        """Count from here."""
        self._since = self._now()

    def pause(self) -> None:
        """Count until here."""
        self._total, self._since = self.seconds, None

    @property
    def seconds(self) -> float:
        """The time counted so far."""
        return self._total + (0.0 if self._since is None else self._now() - self._since)


class Voicing:
    """Turns the frames of one answer into pieces; sound leaves in chunks, the first after a single frame."""

    def __init__(self, codec: Codec, tokenizer: TextCodec, *, frames_per_chunk: int) -> None:
        self._codec, self._stream = codec, CodecStream(codec)
        self._words = TextStream(tokenizer)
        self._frames_per_chunk = frames_per_chunk
        self._waiting: list[Tensor] = []
        self._is_sound_open = True
        self._has_words = False
        self.text = ""
        self.num_samples = 0

    def take(self, frame: Frame, answer: Answer) -> Spoken:
        """What this step lets out."""
        words = "" if frame.text_id is None else self._words.push(frame.text_id)
        if answer.is_text_done:
            words += self._words.finish()
        if frame.codes is not None:
            self._waiting.append(frame.codes)
        parts = []
        enough = self._frames_per_chunk if self.num_samples else 1
        if len(self._waiting) >= enough or (self._waiting and answer.is_audio_done):
            parts.append(self._stream.push(torch.stack(self._waiting, dim=1)))
            self._waiting = []
        if answer.is_audio_done and self._is_sound_open and answer.frames:
            parts.append(self._stream.finish())
            self._is_sound_open = False
        samples = torch.cat(parts) if parts else torch.zeros(0)
        self.num_samples += len(samples)
        return Spoken(text=self._trimmed(words), samples=samples)

    def _trimmed(self, words: str) -> str:
        """The words without what stands before the first letter."""
        if not self._has_words:
            words = words.lstrip()
        self._has_words = self._has_words or bool(words)
        self.text += words
        return words
