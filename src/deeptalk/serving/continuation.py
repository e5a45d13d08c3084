"""A text continued by the text head alone, without any words of a template around it.

The grid holds text only, so that the log-probabilities are those of the language model that was made to
speak. Axes: K streams, T positions, V text ids, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from deeptalk.decoding import DecodingEngine, Sampling, sample_token
from deeptalk.serving.turns import grid_of, tokenizer_of
from deeptalk.shapes import Float, Tensor
from deeptalk.streams.text import TextStream


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinuationOptions:
    """How a text goes on: at most ``max_tokens`` ids, up to the first of ``stops`` in what was added.

    Each id is told with the ``num_top`` likeliest; those of the prompt too where it is scored.
    """

    max_tokens: int
    stops: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    num_top: int = 0
    scores_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """An id, its natural log-probability given all before it, and the likeliest ids with theirs.

    The first id of a prompt has nothing before it: None.
    """

    id: int
    log_prob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Continuation:
    """One prompt that is read and continued; ``advance`` is for the model thread.

    ``prompt`` holds the scores of the prompt where they are wanted, ``added`` what came behind it (EOS
    included, which ends it), and ``text`` its words up to a stop.
    """

    def __init__(self, engine: DecodingEngine, ids: Sequence[int], options: ContinuationOptions) -> None:
        self._engine, self._options = engine, options
        self._history = engine.new_history()
        self._words = TextStream(tokenizer_of(engine))
        self._generator = torch.Generator().manual_seed(options.seed)
        self._coming = list(ids)
        self._before: Float[Tensor, "1 V"] | None = None
        self._is_reading = True
        self.prompt: list[Scored] = []
        self.added: list[Scored] = []
        self.text = ""
        self.finish_reason: Literal["stop", "length"] | None = None

    @torch.inference_mode()
    def advance(self, *, most: int) -> bool:
        """Read at most so many ids, or add one; whether that was all."""
        ids, self._coming = self._coming[:most], self._coming[most:]
        is_scored = self._is_reading and self._options.scores_prompt
        log_probs = self._log_probs(ids, last_only=not is_scored)
        if is_scored:
            self._score(ids, log_probs)
        self._before = log_probs[-1:]
        if not self._coming:
            self._is_reading = False
            self._add(log_probs[-1])
        return self.finish_reason is not None

    def _log_probs(self, ids: Sequence[int], *, last_only: bool) -> Float[Tensor, "T V"]:
        """What may follow each of these ids, which are put behind what was read."""
        engine = self._engine
        x = engine.model.embed(grid_of(engine, ids)[None].to(engine.model.device))
        is_audio = torch.zeros(x.shape[:2], dtype=torch.bool)
        routed = engine._routed(is_audio)  # as the engine routes its own text
        hidden = engine.model.backbone(x, cache=self._history.cache, **routed).hidden[0]
        logits = engine.model.backbone.lm_head(hidden[-1:] if last_only else hidden)
        return logits.float().log_softmax(-1).cpu()

    def _score(self, ids: Sequence[int], log_probs: Float[Tensor, "T V"]) -> None:
        rows = log_probs[:-1]
        if self._before is None:
            self.prompt.append(Scored(ids[0]))
            ids = ids[1:]
        else:
            rows = torch.cat([self._before, rows])
        self.prompt += [self._scored(token, row) for token, row in zip(ids, rows, strict=True)]

    def _add(self, log_probs: Float[Tensor, "V"]) -> None:
        """Choose the next id, or end."""
        options = self._options
        if options.max_tokens:
            token = int(sample_token(log_probs, options.sampling, self._generator))
            self.added.append(self._scored(token, log_probs))
            self._coming = [token]
            if token == self._engine.layout.eos_id:
                self.finish_reason = "stop"
            else:
                self.text += self._words.push(token)
        is_over = self.finish_reason is not None or len(self.added) == options.max_tokens
        self.text += self._words.finish() if is_over else ""
        ends = [at for stop in options.stops if (at := self.text.find(stop)) >= 0]
        if ends:
            self.text, self.finish_reason = self.text[: min(ends)], "stop"
        elif is_over:
            self.finish_reason = self.finish_reason or "length"

    def _scored(self, token: int, log_probs: Float[Tensor, "V"]) -> Scored:
        count = min(self._options.num_top, len(log_probs))
        top = log_probs.topk(count)
        likeliest = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Scored(token, float(log_probs[token]), tuple(likeliest))
