"""Batch-parallel decoding (method.md, section 12).

A dialogue has two rows on one prompt: the text row answers in text alone, the speech row in text and speech,
and its text is the text row's. Axes: B dialogues, R rows, K streams (text first), T positions, Q codebooks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from deeptalk.backbone import RouterMask, copy_rows, new_cache
from deeptalk.backbone.cache import joined, part
from deeptalk.decoding.answer import Answer, FinishReason, Frame
from deeptalk.decoding.sampling import penalise, sample_token
from deeptalk.decoding.state import DecodingOptions, DialogueState, History
from deeptalk.errors import ConfigError
from deeptalk.experts.mask import AUDIO_GROUP, TEXT_GROUP, Routing, router_mask
from deeptalk.experts.partition import ExpertPartition
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.shapes import Bool, Float, Int, Tensor
from deeptalk.streams import TEXT, Prompt, Row
from deeptalk.streams.prompt import NO_SPEECH


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Generated:
    """A whole answer: text ids without EOS, codes of ``L`` frames, and why it ended."""

    text_ids: tuple[int, ...]
    codes: Int[Tensor, "L Q"]
    finish_reason: FinishReason


class DecodingEngine:
    """Answers prompts with one model; its codec heads are stacked once, so make a new one for new weights."""

    def __init__(self, model: DeepTalk) -> None:
        self.model = model.eval()
        self.layout = model.layout
        self._codec_heads = model.heads.stacked().detach()
        self._router_mask = _router_mask_of(model)

    def new_history(self) -> History:
        """A dialogue in which nothing has been said."""
        return History(cache=new_cache(self.model.backbone))

    @torch.inference_mode()
    def extend(
        self,
        history: History,
        grid: Int[Tensor, "K T"],
        *,
        speech: Float[Tensor, "U D"] | None = None,
        speech_at: Int[Tensor, "T"] | None = None,
    ) -> None:
        """Put further columns behind a dialogue, in place; ``speech_at`` counts the frames of ``speech``."""
        num_pending = len(history.pending)
        if num_pending:
            grid = torch.cat([torch.tensor(history.pending).T, grid], dim=1)
            history.pending = []
            if speech_at is not None:
                speech_at = F.pad(speech_at, (num_pending, 0), value=NO_SPEECH)
        if grid.shape[1]:
            x, is_audio = self._embed(grid, speech, speech_at), self._is_speech(grid)[None]
            self.model.backbone(x, cache=history.cache, **self._routed(is_audio))

    @torch.inference_mode()
    def start(
        self,
        history: History,
        mode_column: Int[Tensor, "K"],
        *,
        row: Row,
        options: DecodingOptions | None = None,
        seed: int = 0,
    ) -> DialogueState:
        """Answer a dialogue of which all but p0 is in the history; the history itself is used up."""
        assert not history.pending
        return self._fork(history.cache, [mode_column], [row], options=options, seeds=[seed])

    @torch.inference_mode()
    def prefill(
        self,
        prompts: Sequence[Prompt],
        *,
        speech: Sequence[Float[Tensor, "U D"] | None] | None = None,
        options: DecodingOptions | None = None,
        seeds: Sequence[int] | None = None,
        history: History | None = None,
    ) -> DialogueState:
        """Run the prompts up to p0, once for both rows.

        ``speech[b]`` are the adapter frames of all clips of prompt b. ``history``, for a single continuation,
        is left as it is.
        """
        speech = speech or [None] * len(prompts)
        seeds = seeds if seeds is not None else [0] * len(prompts)
        if not prompts or len(speech) != len(prompts) or len(seeds) != len(prompts):
            raise ConfigError(
                f"Speech and a seed are needed for each prompt: {len(prompts)}, {len(speech)}, {len(seeds)}."
            )
        columns, rows = [prompt.grid[:, -1] for prompt in prompts], [prompt.row for prompt in prompts]
        if len(prompts) == 1:
            past = self.new_history() if history is None else history.fork()
            self.extend(past, prompts[0].grid[:, :-1], speech=speech[0], speech_at=prompts[0].speech_at[:-1])
            return self._fork(past.cache, columns, rows, options=options, seeds=seeds)
        if history is not None:
            raise ConfigError("A history continues one dialogue; give one prompt with it.")
        mask = self._left_padded(torch.ones(prompt.grid.shape[1] - 1, dtype=torch.bool) for prompt in prompts)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        embedded = [
            self._embed(prompt.grid[:, :-1], frames, prompt.speech_at[:-1])[0]
            for prompt, frames in zip(prompts, speech, strict=True)
        ]
        is_audio = self._left_padded(self._is_speech(prompt.grid[:, :-1]) for prompt in prompts)
        cache = new_cache(self.model.backbone)
        self.model.backbone(
            self._left_padded(embedded),
            mask=mask,
            position_ids=positions,
            cache=cache,
            **self._routed(is_audio),
        )
        state = self._fork(cache, columns, rows, options=options, seeds=seeds)
        index = torch.tensor(state.text_rows + state.speech_rows, device=mask.device)
        state.mask, state.positions = mask[index], mask.sum(1)[index]
        return state

    @torch.inference_mode()
    def step(self, state: DialogueState) -> list[Frame | None]:
        """Feed every row its last column and write every answer's next item; None for one that has ended."""
        return self._write(state, self._forward(state))

    @torch.inference_mode()
    def step_together(self, states: Sequence[DialogueState]) -> list[Frame]:
        """One step of several single dialogues in one forward; each goes on as it would alone.

        Dialogues may join and leave between any two steps, for every state keeps what is its own.
        """
        if any(len(state.answers) != 1 or state.is_finished for state in states):
            raise ConfigError("Only single dialogues that have not ended are stepped together.")
        hidden = [self._forward(states[0])] if len(states) == 1 else self._forward_together(states)
        frames = [self._write(state, rows)[0] for state, rows in zip(states, hidden, strict=True)]
        return [frame for frame in frames if frame is not None]

    def _write(self, state: DialogueState, hidden: Float[Tensor, "R D"]) -> list[Frame | None]:
        """Choose every answer's next item from the states that predict it, and retire what has ended."""
        num_text = len(state.text_rows)
        is_over = [state.answers[b].is_text_done for b in state.text_rows]
        texts: dict[int, int] = {}
        if not all(is_over):
            texts = self._pick_text(state, self.model.backbone.lm_head(hidden[:num_text]), is_over)
        codes: dict[int, list[int]] = {}
        if state.speech_rows:
            logits = self.model.heads.codec_logits(hidden[num_text:], self._codec_heads)
            codes = self._pick_codes(state, logits)
        self._retire_text(state, is_over)
        frames = [
            None if answer.is_finished else answer.advance(texts.get(b), codes.get(b))
            for b, answer in enumerate(state.answers)
        ]
        self._retire_speech(state)
        return frames

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        speech: Sequence[Float[Tensor, "U D"] | None] | None = None,
        options: DecodingOptions | None = None,
        seeds: Sequence[int] | None = None,
        said: Sequence[Sequence[int]] | None = None,
    ) -> list[Generated]:
        """The whole answers to prompts, decoded side by side; each equals what it would be alone.

        ``said`` gives the text ids of every answer, which the model then only speaks.
        """
        state = self.prefill(prompts, speech=speech, options=options, seeds=seeds)
        state.said = said
        while not state.is_finished:
            self.step(state)
        width = self.layout.num_codebooks
        return [
            Generated(
                text_ids=tuple(answer.text_ids),
                codes=torch.tensor(answer.frames, dtype=torch.long).reshape(-1, width),
                finish_reason=answer.finish_reason,
            )
            for answer in state.answers
        ]

    def stop(self, state: DialogueState) -> History:
        """The dialogue with what a single answer has said so far; an unfinished text is closed by EOS."""
        if len(state.answers) != 1:
            raise ConfigError(f"Only a single dialogue has a history, this state has {len(state.answers)}.")
        if state.history is not None:
            return state.history
        answer = state.answers[0]
        pending = [answer.text_column]
        if answer.text_column[TEXT] != self.layout.eos_id:
            pending.append([self.layout.eos_id, *self.layout.pad_ids[1:]])
        if state.options.released:
            pending += self._end_of_turn()
        return History(cache=copy_rows(state.cache, torch.tensor([0])), pending=pending)

    def _fork(
        self,
        cache: DynamicCache,
        columns: list[Tensor],
        rows: list[Row],
        *,
        options: DecodingOptions | None,
        seeds: Sequence[int],
    ) -> DialogueState:
        """Two rows for each dialogue that is answered in speech, one for the others."""
        options = options or DecodingOptions()
        options.codec_samplings(self.layout.num_codebooks)
        speaks = [row is Row.SPEECH for row in rows]
        answers = [
            Answer(
                self.layout,
                options.limits,
                mode_column=column.tolist(),
                speaks=is_spoken,
                released=options.released,
            )
            for column, is_spoken in zip(columns, speaks, strict=True)
        ]
        text_rows = list(range(len(answers)))
        speech_rows = [b for b in text_rows if speaks[b]]
        return DialogueState(
            answers=answers,
            options=options,
            generators=[torch.Generator().manual_seed(seed) for seed in seeds],
            cache=copy_rows(cache, torch.tensor(text_rows + speech_rows, device=self.model.device)),
            text_rows=text_rows,
            speech_rows=speech_rows,
        )

    def _forward(self, state: DialogueState) -> Float[Tensor, "R D"]:
        """Feed the last column of every row; the states that predict the next item."""
        columns = _last_columns(state)
        x = self.model.embed(torch.tensor(columns, device=self.model.device)[:, :, None])
        routed = self._routed(torch.arange(len(columns))[:, None] >= len(state.text_rows))
        if state.mask is None or state.positions is None:
            return self.model.backbone(x, cache=state.cache, **routed).hidden[:, -1]
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(columns), 1)], dim=1)
        positions = state.positions[:, None]
        state.positions = state.positions + 1
        output = self.model.backbone(x, cache=state.cache, mask=state.mask, position_ids=positions, **routed)
        return output.hidden[:, -1]

    def _forward_together(self, states: Sequence[DialogueState]) -> list[Float[Tensor, "R D"]]:
        """``_forward`` for the rows of all states at once, their caches padded on the left."""
        device = self.model.device
        columns = [column for state in states for column in _last_columns(state)]
        is_audio = [
            flag
            for state in states
            for flag in [False] * len(state.text_rows) + [True] * len(state.speech_rows)
        ]
        sizes = [len(state.text_rows) + len(state.speech_rows) for state in states]
        lengths = [int(state.cache.get_seq_length()) for state in states]
        positions = torch.tensor(lengths, device=device).repeat_interleave(torch.tensor(sizes, device=device))
        cache, longest = joined([state.cache for state in states]), max(lengths)
        mask = torch.arange(longest + 1, device=device) >= longest - positions[:, None]
        output = self.model.backbone(
            self.model.embed(torch.tensor(columns, device=device)[:, :, None]),
            cache=cache,
            mask=mask,
            position_ids=positions[:, None],
            **self._routed(torch.tensor(is_audio)[:, None]),
        )
        start = 0
        for state, size, length in zip(states, sizes, lengths, strict=True):
            state.cache = part(cache, start, start + size, length + 1)
            start += size
        return list(output.hidden[:, -1].split(sizes))

    def _pick_text(
        self, state: DialogueState, logits: Float[Tensor, "R V"], is_over: list[bool]
    ) -> dict[int, int]:
        sampling = state.options.text
        if state.said is not None:
            ids = [[*state.said[b], self.layout.eos_id] for b in state.text_rows]
            at = [len(state.answers[b].text_ids) for b in state.text_rows]
            return {b: one[min(n, len(one) - 1)] for b, one, n in zip(state.text_rows, ids, at, strict=True)}
        if sampling.is_greedy and not sampling.is_penalised:
            return dict(zip(state.text_rows, logits.argmax(dim=-1).tolist(), strict=True))
        picked = {}
        for b, row, ended in zip(state.text_rows, logits, is_over, strict=True):
            if not ended:
                scores = penalise(row, state.answers[b].text_ids, sampling)
                picked[b] = int(sample_token(scores, sampling, state.generators[b]))
        return picked

    def _pick_codes(self, state: DialogueState, logits: Float[Tensor, "R Q C"]) -> dict[int, list[int]]:
        """Codes alone are legal, and EOA on the codebooks that end the speech once it may end."""
        eoa = self.layout.eoa
        scores = logits[..., : eoa + 1]
        goes_on = [
            [not state.answers[b].may_end(i) for i in range(scores.shape[1])] for b in state.speech_rows
        ]
        scores[..., eoa].masked_fill_(torch.tensor(goes_on, device=scores.device), float("-inf"))
        samplings = state.options.codec_samplings(self.layout.num_codebooks)
        if all(sampling.is_greedy and not sampling.is_penalised for sampling in samplings):
            return dict(zip(state.speech_rows, scores.argmax(dim=-1).tolist(), strict=True))
        picked = {}
        for b, row in zip(state.speech_rows, scores, strict=True):
            answer, generator = state.answers[b], state.generators[b]
            picked[b] = [
                int(sample_token(penalise(row[i], answer.sampled[i], sampling), sampling, generator))
                for i, sampling in enumerate(samplings)
            ]
        return picked

    def _retire_text(self, state: DialogueState, is_over: list[bool]) -> None:
        """Drop the text rows whose EOS has been fed; a single dialogue keeps it as its history."""
        if not any(is_over):
            return
        if len(state.answers) == 1:
            cache = copy_rows(state.cache, torch.tensor([0], device=self.model.device))
            state.history = History(
                cache=cache, pending=self._end_of_turn() if state.options.released else []
            )
        state.keep_rows([not over for over in is_over] + [True] * len(state.speech_rows))

    def _retire_speech(self, state: DialogueState) -> None:
        """Drop the speech rows that have ended, and in a batch the text rows of whole answers."""
        is_single = len(state.answers) == 1
        kept = [is_single or not state.answers[b].is_finished for b in state.text_rows]
        state.keep_rows(kept + [not state.answers[b].is_audio_done for b in state.speech_rows])

    def _end_of_turn(self) -> list[list[int]]:
        """The column of EOT, which the authors' code puts behind EOS."""
        return [[self.layout.text_eot, *self.layout.pad_ids[1:]]]

    def _embed(
        self, grid: Int[Tensor, "K T"], speech: Tensor | None, speech_at: Tensor | None
    ) -> Float[Tensor, "1 T D"]:
        device = self.model.device
        if speech is None or speech_at is None:
            return self.model.embed(grid[None].to(device))
        return self.model.embed(
            grid[None].to(device), speech=speech[None].to(device), speech_at=speech_at[None].to(device)
        )

    def _is_speech(self, grid: Int[Tensor, "K T"]) -> Bool[Tensor, "T"]:
        """The positions that hold speech frames or their brackets."""
        return grid[TEXT] == self.layout.text_aud

    def _routed(self, is_audio: Bool[Tensor, "R T"]) -> dict[str, Any]:
        """What tells the backbone which experts to use, where a model's config limits them."""
        if self._router_mask is None:
            return {}
        groups = torch.where(is_audio, AUDIO_GROUP, TEXT_GROUP).to(self.model.device)
        return {"router_mask": self._router_mask, "groups": groups}

    def _left_padded(self, rows: Iterable[Tensor]) -> Tensor:
        return pad_sequence(list(rows), batch_first=True, padding_side="left").to(self.model.device)


def _last_columns(state: DialogueState) -> list[list[int]]:
    """What is fed next: the last column of every row."""
    text = [state.answers[b].text_column for b in state.text_rows]
    return text + [state.answers[b].speech_column for b in state.speech_rows]


def _router_mask_of(model: DeepTalk) -> RouterMask | None:
    """The router mask that a model's config asks for; None where every token may use every expert."""
    routing = Routing(**model.config.routing)  # pyright: ignore[reportArgumentType]  # checked by the class
    if routing.is_free:
        return None
    per_token = model.backbone.layers.experts_per_token
    partition = ExpertPartition(is_audio=model.is_audio(), experts_per_token=per_token)
    return router_mask(partition, routing)
