"""A dialogue with a model: listen or read, reply in speech while it is made, be interrupted."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import RLock

import torch

from deeptalk.codec import Codec
from deeptalk.decoding.engine import DecodingEngine
from deeptalk.decoding.listening import Listening, prompt_of
from deeptalk.decoding.speech import Reply, Spoken, Stopwatch, Voicing
from deeptalk.decoding.state import DecodingOptions, DialogueState, History
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Tensor
from deeptalk.streams import Prompt, Turn
from deeptalk.streams.prompt import READ_ALOUD
from deeptalk.streams.text import TextCodec

_logger = logging.getLogger(__name__)

Asked = Callable[[str], tuple[History, Prompt]]
"""From a mode to the dialogue up to p0 and the prompt whose last column p0 is."""


@dataclass(slots=True, eq=False)
class _Speaking:
    """A reply in the making; ``keeps_history`` is False for what doesn't belong to the dialogue."""

    voicing: Voicing
    watch: Stopwatch
    keeps_history: bool
    state: DialogueState | None = None
    first_audio_seconds: float | None = None
    is_running: bool = False
    is_over: bool = False


class Conversation:
    """One dialogue with one model. Its history is the text row's cache, so a turn is computed once.

    ``voice`` is one of the model's speakers (its first by default). ``interrupt`` may be called from another
    thread, the rest from one thread at a time.
    """

    def __init__(
        self,
        engine: DecodingEngine,
        codec: Codec,
        *,
        voice: str | None = None,
        seed: int = 0,
        options: DecodingOptions | None = None,
        frames_per_chunk: int = 2,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        layout = engine.layout
        voice = voice or next(iter(layout.speakers), None)
        self._mode = "answer" if voice is None else f"speaker:{voice}"
        layout.mode_id(self._mode)
        if frames_per_chunk < 1:
            raise ConfigError(f"frames_per_chunk must be at least 1, got {frames_per_chunk}.")
        self._engine, self._codec = engine, codec
        self._options, self._seed = options or DecodingOptions(), seed
        self._frames_per_chunk, self._now = frames_per_chunk, now
        self._history = engine.new_history()
        self._listening: Listening | None = None
        self._asked: Asked | None = None
        self._asked_seconds = 0.0
        self._speaking: _Speaking | None = None
        self._concluding = RLock()
        self._num_replies = 0
        self._last_reply: Reply | None = None

    @property
    def sample_rate(self) -> int:
        """Samples per second of the replies."""
        return self._codec.sample_rate

    @property
    def num_positions(self) -> int:
        """Positions of the dialogue so far."""
        return self._history.num_positions

    @property
    def last_reply(self) -> Reply:
        """The reply that ended last."""
        if self._last_reply is None:
            raise ConfigError("There has been no reply yet: call reply() and iterate over it.")
        return self._last_reply

    def listen(self, samples: Float[Tensor, "S"]) -> None:
        """Hear samples at 16 kHz: a question at once, or in chunks of any size while it is spoken.

        Speaking into a reply interrupts it. Raises ``AudioError`` for what can't be heard; the turn is then
        forgotten.
        """
        watch = self._begin_turn()
        if self._listening is None:
            self._listening = Listening(self._engine, self._history)
        try:
            self._listening.push(samples)
        except Exception:
            self._forget_turn()
            raise
        listening = self._listening
        self._asked = lambda mode: listening.finish(mode=mode)
        self._asked_seconds = watch.seconds

    def say_text(self, text: str) -> None:
        """Ask in writing."""
        watch = self._begin_turn()
        if self._listening is not None:
            raise ConfigError("A turn is spoken or written: call reply() before say_text().")
        self._asked = self._written(text, self._history)
        self._asked_seconds = watch.seconds

    def reply(self) -> Iterator[Spoken]:
        """Answer what was asked, in pieces that come while the rest is made.

        An iteration that is left early counts as interrupted.
        """
        if self._asked is None:
            raise ConfigError("Nothing has been asked: call listen() or say_text() first.")
        asked, seconds = self._asked, self._asked_seconds
        self._forget_turn()
        return self._speak(asked, seconds=seconds, keeps_history=True)

    def interrupt(self) -> None:
        """End the running reply; what it has said so far stays in the dialogue."""
        speaking = self._speaking
        if speaking is None:
            return
        speaking.is_over = True
        if not speaking.is_running:
            self._conclude(speaking)

    def transcribe(self, samples: Float[Tensor, "S"]) -> str:
        """What is said in samples at 16 kHz, apart from the dialogue."""
        listening = Listening(self._engine, self._engine.new_history())
        listening.push(samples)
        history, prompt = listening.finish(mode="asr")
        state = self._engine.start(history, prompt.grid[:, -1], row=prompt.row, options=self._transcribing())
        while not state.is_finished:
            self._engine.step(state)
        return self._tokenizer.decode(state.answers[0].text_ids).strip()

    def read_aloud(self, text: str) -> Iterator[Spoken]:
        """Speak a text, apart from the dialogue."""
        asked = self._written(READ_ALOUD.format(text=text), self._engine.new_history())
        return self._speak(asked, seconds=0.0, keeps_history=False)

    def _speak(self, asked: Asked, *, seconds: float, keeps_history: bool) -> Iterator[Spoken]:
        self.interrupt()
        voicing = Voicing(self._codec, self._tokenizer, frames_per_chunk=self._frames_per_chunk)
        watch = Stopwatch(self._now, seconds=seconds)
        self._speaking = _Speaking(voicing=voicing, watch=watch, keeps_history=keeps_history)
        return self._pieces(self._speaking, asked)

    def _pieces(self, speaking: _Speaking, asked: Asked) -> Iterator[Spoken]:
        try:
            self._resume(speaking)
            if speaking.is_over:
                return
            history, prompt = asked(self._mode)
            seed = self._seed + self._num_replies
            speaking.state = self._engine.start(
                history, prompt.grid[:, -1], row=prompt.row, options=self._options, seed=seed
            )
            while not (speaking.is_over or speaking.state.is_finished):
                piece = self._next_piece(speaking, speaking.state)
                if piece.text or len(piece.samples):
                    self._pause(speaking)
                    yield piece
                    self._resume(speaking)
        finally:
            self._pause(speaking)
            self._conclude(speaking)

    def _next_piece(self, speaking: _Speaking, state: DialogueState) -> Spoken:
        [frame] = self._engine.step(state)
        assert frame is not None
        piece = speaking.voicing.take(frame, state.answers[0])
        if len(piece.samples) and speaking.first_audio_seconds is None:
            speaking.first_audio_seconds = speaking.watch.seconds
        return piece

    def _resume(self, speaking: _Speaking) -> None:
        speaking.is_running = True
        speaking.watch.resume()

    def _pause(self, speaking: _Speaking) -> None:
        if speaking.is_running:
            speaking.watch.pause()
            speaking.is_running = False

    def _conclude(self, speaking: _Speaking) -> None:
        """Note what was said, once, whichever thread comes first; the dialogue goes on from there."""
        with self._concluding:
            if self._speaking is speaking:
                self._note(speaking)

    def _note(self, speaking: _Speaking) -> None:
        self._speaking, speaking.is_over = None, True
        if speaking.state is None:
            return
        answer, voicing = speaking.state.answers[0], speaking.voicing
        if speaking.keeps_history:
            self._history = self._engine.stop(speaking.state)
        self._num_replies += 1
        first, seconds = speaking.first_audio_seconds, voicing.num_samples / self.sample_rate
        width = self._engine.layout.num_codebooks
        self._last_reply = Reply(
            text=voicing.text.strip(),
            codes=torch.tensor(answer.frames, dtype=torch.long).reshape(-1, width),
            finish_reason=answer.finish_reason,
            time_to_first_audio_ms=None if first is None else 1000.0 * first,
            real_time_factor=speaking.watch.seconds / seconds if seconds else None,
        )

    def _begin_turn(self) -> Stopwatch:
        watch = Stopwatch(self._now)
        watch.resume()
        self.interrupt()
        if self._listening is None:
            self._make_room()
        return watch

    def _forget_turn(self) -> None:
        self._listening, self._asked, self._asked_seconds = None, None, 0.0

    def _make_room(self) -> None:
        """Begin anew when half of the model's positions are used: a turn needs the other half."""
        most = self._engine.model.backbone.model.config.max_position_embeddings
        if self._history.num_positions > most // 2:
            _logger.info("The dialogue of %d positions is forgotten.", self._history.num_positions)
            self._history = self._engine.new_history()

    def _written(self, text: str, history: History) -> Asked:
        """A written turn behind ``history``."""
        if not text.strip():
            raise ConfigError("The text is empty: write what is asked.")
        turn, engine = Turn(role="user", text=text.strip()), self._engine

        def asked(mode: str) -> tuple[History, Prompt]:
            prompt = prompt_of(engine, turn, mode=mode, is_continuation=history.num_positions > 0)
            longer = history.fork()
            engine.extend(longer, prompt.grid[:, :-1])
            return longer, prompt

        return asked

    def _transcribing(self) -> DecodingOptions:
        """Greedy, whatever replies are made with."""
        return replace(DecodingOptions(), limits=self._options.limits)

    @property
    def _tokenizer(self) -> TextCodec:
        tokenizer = self._engine.model.tokenizer
        if tokenizer is None:
            raise ConfigError("The model has no tokenizer; load it from its folder or give it one.")
        return tokenizer
