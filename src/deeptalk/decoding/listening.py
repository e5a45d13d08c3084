"""A spoken turn while it arrives: what can be computed before its end is computed before its end.

With an encoder of mode ``chunked``, spectrogram, encoder, adapter and the backbone's prefill run block by
block behind the speaker; with the other modes samples wait for the end.
"""

import torch

from deeptalk.audio import LogMelStream, check_samples, log_mel
from deeptalk.decoding.engine import DecodingEngine
from deeptalk.decoding.state import History
from deeptalk.errors import AudioError, ConfigError
from deeptalk.model import AdapterStream, EncoderStream
from deeptalk.shapes import Float, Tensor
from deeptalk.streams import Prompt, Turn, encode_prompt
from deeptalk.streams.prompt import NO_SPEECH


class SpeechFrames:
    """Samples in, adapter frames out; the frames of ``push`` and ``finish`` are those of the whole clip."""

    def __init__(self, engine: DecodingEngine) -> None:
        self._model = engine.model
        self._mel = LogMelStream(self._model.mel)
        self._waiting: list[Tensor] = []
        self._streams: tuple[EncoderStream, AdapterStream] | None = None
        if self._model.encoder.settings.mode == "chunked":
            self._streams = EncoderStream(self._model.encoder), AdapterStream(self._model.adapter)

    @torch.inference_mode()
    def push(self, samples: Float[Tensor, "S"]) -> Float[Tensor, "U D"]:
        """Take further samples at the spectrogram's rate."""
        check_samples(samples, name="listen")
        if samples.ndim != 1 or not bool(samples.isfinite().all()):
            raise AudioError("Samples must be one row of finite numbers.")
        if self._streams is None:
            self._waiting.append(samples)
            return samples.new_zeros(0, self._model.config.adapter.out_width)
        encoder, adapter = self._streams
        return self._model.add_words(adapter.push(encoder.push(self._mel.push(samples))))

    @torch.inference_mode()
    def finish(self) -> Float[Tensor, "U D"]:
        """The frames that are left when the speaker has ended."""
        if self._streams is not None:
            encoder, adapter = self._streams
            rest = torch.cat([encoder.push(self._mel.finish()), encoder.finish()])
            return self._model.add_words(torch.cat([adapter.push(rest), adapter.finish()]))
        mel = log_mel(torch.cat([*self._waiting, torch.zeros(0)])[None], spec=self._model.mel)
        if not mel.shape[-1]:
            return mel.new_zeros(0, self._model.config.adapter.out_width)
        lengths = torch.tensor([mel.shape[-1]], device=self._model.device)
        return self._model.encode_speech(mel.to(self._model.device), lengths)[0]


class Listening:
    """A user's spoken turn behind a dialogue; the given history stays as it is."""

    def __init__(self, engine: DecodingEngine, history: History) -> None:
        self._engine = engine
        self._frames = SpeechFrames(engine)
        self._history = history.fork()
        self._is_continuation = history.num_positions > 0
        self._num_frames = 0
        self._shortest = self._prompt(1, mode="text")
        self._first = int((self._shortest.speech_at != NO_SPEECH).nonzero()[0])

    def push(self, samples: Float[Tensor, "S"]) -> None:
        """Hear further samples."""
        self._hear(self._frames.push(samples))

    def finish(self, *, mode: str) -> tuple[History, Prompt]:
        """The dialogue up to p0, which is the prompt's last column."""
        self._hear(self._frames.finish())
        if not self._num_frames:
            raise AudioError("Nothing was heard: a question needs at least a tenth of a second of sound.")
        prompt = self._prompt(self._num_frames, mode=mode)
        self._engine.extend(self._history, prompt.grid[:, self._first + self._num_frames : -1])
        return self._history, prompt

    def _hear(self, frames: Float[Tensor, "U D"]) -> None:
        count = len(frames)
        if not count:
            return
        start = self._shortest.grid
        grid = start[:, self._first : self._first + 1].repeat(1, count)
        speech_at = torch.arange(count)
        if not self._num_frames:
            grid = torch.cat([start[:, : self._first], grid], dim=1)
            speech_at = torch.cat([torch.full((self._first,), NO_SPEECH), speech_at])
        self._engine.extend(self._history, grid, speech=frames, speech_at=speech_at)
        self._num_frames += count

    def _prompt(self, num_frames: int, *, mode: str) -> Prompt:
        turn = Turn(role="user", num_speech_frames=num_frames)
        return prompt_of(self._engine, turn, mode=mode, is_continuation=self._is_continuation)


def prompt_of(engine: DecodingEngine, turn: Turn, *, mode: str, is_continuation: bool) -> Prompt:
    """The positions of one turn of the user, up to p0."""
    model = engine.model
    if model.tokenizer is None:
        raise ConfigError("The model has no tokenizer; load it from its folder or give it one.")
    return encode_prompt(
        [turn],
        tokenizer=model.tokenizer,
        layout=model.layout,
        mode=mode,
        is_continuation=is_continuation,
    )
