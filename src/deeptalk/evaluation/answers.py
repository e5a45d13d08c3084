"""Answers of a model to many questions at once: the same engine as in a conversation, in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from deeptalk.audio import log_mel
from deeptalk.decoding import DecodingEngine
from deeptalk.decoding.answer import Limits
from deeptalk.decoding.state import DecodingOptions
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams import Prompt, Turn, encode_dialogue, encode_prompt

BATCH_SIZE, LIMITS = 16, Limits(max_frames=120, max_text_tokens=60)
"""How many questions are asked at a time, and how long an answer may be, unless it is said."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Asked:
    """One question: text, or speech at 16 kHz, after earlier turns that are given as text or speech."""

    turns: tuple[Turn, ...]
    speech: tuple[Float[Tensor, "U D"], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answered:
    """What came back; ``codes`` is empty for an answer in text alone."""

    text: str
    codes: Int[Tensor, "L Q"]
    finish_reason: str


class Respondent:
    """Asks one model in batches of like length; greedy unless ``options`` say otherwise."""

    def __init__(
        self,
        engine: DecodingEngine,
        *,
        batch_size: int = BATCH_SIZE,
        limits: Limits | None = None,
        options: DecodingOptions | None = None,
    ) -> None:
        if engine.model.tokenizer is None:
            raise ConfigError("the model has no tokenizer; load it from its folder.")
        self.engine, self.batch_size = engine, batch_size
        self.options = options or DecodingOptions(limits=limits or LIMITS)

    @torch.inference_mode()
    def hear(self, samples: Float[Tensor, "S"]) -> Float[Tensor, "U D"]:
        """Adapter frames of a clip at 16 kHz."""
        model = self.engine.model
        mel = log_mel(samples[None], spec=model.mel).to(model.device)
        return model.encode_speech(mel, torch.tensor([mel.shape[-1]], device=model.device))[0]

    def spoken(self, *samples: Float[Tensor, "S"]) -> Asked:
        """A single spoken question."""
        frames = tuple(self.hear(part) for part in samples)
        turns = tuple(Turn(role="user", num_speech_frames=len(part)) for part in frames)
        return Asked(turns=turns, speech=frames)

    def written(self, text: str) -> Asked:
        """A single written question."""
        return Asked(turns=(Turn(role="user", text=text),))

    def answer(
        self,
        asked: Sequence[Asked],
        *,
        mode: str,
        seeds: Sequence[int] | None = None,
        said: Sequence[str] | None = None,
    ) -> list[Answered]:
        """The answers, in the order of the questions; ``seeds`` matter where something is drawn.

        Texts that are ``said`` are the answers' own: the model only speaks them.
        """
        lead = self.engine.layout.template.lead
        told = None if said is None else [self._tokenizer.encode(lead + text) for text in said]
        prompts = [self._prompt(question, mode) for question in asked]
        answers: list[Answered | None] = [None] * len(asked)
        for group in self._batches(prompts):
            speech = [torch.cat(asked[i].speech) if asked[i].speech else None for i in group]
            found = self.engine.generate(
                [prompts[i] for i in group],
                speech=speech,
                options=self.options,
                seeds=None if seeds is None else [seeds[i] for i in group],
                said=None if told is None else [told[i] for i in group],
            )
            for i, one in zip(group, found, strict=True):
                text = self._tokenizer.decode(list(one.text_ids)).strip()
                answers[i] = Answered(text=text, codes=one.codes, finish_reason=one.finish_reason)
        return [answer for answer in answers if answer is not None]

    @torch.inference_mode()
    def choose(self, asked: Asked, texts: Sequence[str], *, mode: str) -> int:
        """The index of the likeliest of some answers (sum of log-probabilities, EOS included)."""
        model, scores = self.engine.model, []
        for text in texts:
            turns = [*asked.turns, Turn(role="assistant", text=text)]
            example = encode_dialogue(turns, tokenizer=self._tokenizer, layout=model.layout, mode=mode)
            speech = torch.cat(asked.speech)[None] if asked.speech else None
            at = example.speech_at[None] if asked.speech else None
            hidden = model.backbone(model.embed(example.grid[None], speech=speech, speech_at=at)).hidden[0]
            labels = example.labels[0]
            kept = labels >= 0
            log_probs = model.backbone.lm_head(hidden[kept]).log_softmax(-1)
            scores.append(float(log_probs.gather(1, labels[kept][:, None]).sum()))
        return max(range(len(texts)), key=scores.__getitem__)

    def _prompt(self, asked: Asked, mode: str) -> Prompt:
        return encode_prompt(
            list(asked.turns), tokenizer=self._tokenizer, layout=self.engine.layout, mode=mode
        )

    def _batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: prompts[i].grid.shape[1])
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    @property
    def _tokenizer(self):
        assert self.engine.model.tokenizer is not None
        return self.engine.model.tokenizer
