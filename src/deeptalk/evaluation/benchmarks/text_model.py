"""A dialogue model as a plain text model: how likely a continuation is, and how a text goes on.

Prompts are raw text on row T, as the authors ran the text benchmarks of table 3, or a dialogue in the model's
template (`chat_text`): no speech, the codec streams on PAD_A. Log-probabilities are over the rows of the text
head, in float32.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from deeptalk.backbone import RouterMask, open_backbone
from deeptalk.decoding import DecodingEngine, DecodingOptions, Limits, LoadedModel, Sampling
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.chat_text import END, is_chat, split_chat
from deeptalk.experts import ExpertPartition, Routing, router_mask
from deeptalk.experts.mask import TEXT_GROUP
from deeptalk.model import DeepTalk
from deeptalk.shapes import Int, Tensor
from deeptalk.streams import TEXT, Kind, Prompt, Row
from deeptalk.streams.layout import Template
from deeptalk.streams.prompt import NO_SPEECH
from deeptalk.streams.text import TextTokenizer

_PROBE = "The 3 quick brown foxes don't jump over 21 lazy dogs, do they? 北京"
"""A text that tokenizers of different models cut differently."""

DEFAULT_POSITIONS = 2048
"""How long a text may be where the backbone's config does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """How a text is to go on: greedily at temperature 0, until one of ``until`` or at most so many tokens."""

    until: tuple[str, ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0


def text_backbone(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The model with another backbone, whose experts are not divided; in text it is that backbone.

    Its speech parts are zero, but for the encoder, so that a backbone has the same `model_hash` every time.

    Raises:
        DataError: the folder has a tokenizer that is not the model's: it is the backbone of another one.
    """
    _check_tokenizer(loaded, folder)
    ours, free = loaded.model, {"text": "all", "audio": "all"}
    bare = {"audio_experts": None, "extra_experts": None, "sentence_seconds": None}
    config = replace(ours.config, fusion="sum", routing=free, **bare)
    other = DeepTalk(config, encoder=ours.encoder, backbone=open_backbone(folder), tokenizer=ours.tokenizer)
    for name, weight in other.state_dict().items():
        if not name.startswith(("encoder.", "backbone.")):
            weight.zero_()
    return LoadedModel(engine=DecodingEngine(other), codec=loaded.codec)


def _check_tokenizer(loaded: LoadedModel, folder: Path) -> None:
    path, ours = folder / "tokenizer.json", loaded.model.tokenizer
    if path.is_file() and ours is not None and TextTokenizer(path).encode(_PROBE) != ours.encode(_PROBE):
        raise DataError(
            f"{folder}: its tokenizer is not the model's, so it is the backbone of another model; name the "
            "one that this model was made of."
        )


class TextModel:
    """Asks one model in batches of like length; answers come in the order of the requests.

    A text begins with BOS where the model's template does, else an empty context is EOS. What is longer than
    ``max_positions`` loses its beginning. ``progress`` is told how many texts of how many are done.
    """

    def __init__(
        self,
        engine: DecodingEngine,
        *,
        batch_size: int = 8,
        max_positions: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        model = engine.model
        if model.tokenizer is None:
            raise ConfigError("the model has no tokenizer; load it from its folder.")
        settings = model.backbone.model.config
        longest = max_positions
        if longest is None:
            longest = getattr(settings, "max_position_embeddings", None) or DEFAULT_POSITIONS
        if batch_size < 1 or longest < 2:
            raise ConfigError(
                f"batch_size must be >= 1 and max_positions >= 2, got {batch_size} and {longest}."
            )
        self.engine, self.batch_size, self.max_positions = engine, batch_size, longest
        self._progress = progress
        self._model, self._tokenizer, self._layout = model, model.tokenizer, engine.layout
        self._router_mask = _own_router_mask(model)

    @property
    def template(self) -> Template:
        """The words around the turns of a chat."""
        return self._layout.template

    def token_ids(self, text: str) -> list[int]:
        """The ids of a text or a chat, behind BOS where the model's template has it."""
        return self._begun(self._ids(text))

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The ids of a context, and those that the continuation adds to it.

        They are cut from the ids of the whole text; spaces that end the context belong to the continuation.
        An answer in a chat begins as in dialogue, with the template's ``lead``.
        """
        if _is_asked(context):
            lead = self._layout.template.lead
            answer = continuation if continuation.startswith(lead) else lead + continuation
            return self._begun(self._ids(context)), self._tokenizer.encode(answer)
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        known = self._ids(context)
        return self._begun(known), self._ids(context + continuation)[len(known) :]

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Of each context and continuation: how likely the latter is, and whether it is the greedy one.

        The likelihood is a natural logarithm, summed over tokens.

        Raises:
            DataError: a continuation alone is longer than ``max_positions``.
        """
        return self.score_ids([self.encode_pair(context, continuation) for context, continuation in pairs])

    def rolling_log_likelihoods(self, texts: Sequence[str]) -> list[float]:
        """The log-probability of whole texts.

        A long text is read in windows that score each token once, the last one with as much context as fits.
        """
        windows: list[tuple[list[int], list[int]]] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            ids = self._tokenizer.encode(text)
            whole = [*self._begun([]), *ids]
            for begin in range(0, len(ids), self.max_positions):
                end = min(begin + self.max_positions, len(ids))
                context = whole[max(0, end - self.max_positions) : begin + 1]
                windows.append((context, ids[begin:end]))
                owners.append(number)
        totals = [0.0] * len(texts)
        for owner, (score, _) in zip(owners, self.score_ids(windows), strict=True):
            totals[owner] += score
        return totals

    @torch.inference_mode()
    def continue_texts(self, contexts: Sequence[str], how: Continuation, *, seed: int = 0) -> list[str]:
        """What the model writes behind each context, without the text that ended it.

        Raises:
            ConfigError: ``max_tokens`` leaves no room for a context.
        """
        room = self.max_positions - how.max_tokens
        if room < 1:
            raise ConfigError(
                f"max_tokens must be below max_positions, {self.max_positions}, got {how.max_tokens}."
            )
        asked = [self.token_ids(text)[-room:] for text in contexts]
        texts = [""] * len(contexts)
        options = DecodingOptions(
            text=Sampling(temperature=how.temperature), limits=Limits(max_text_tokens=how.max_tokens)
        )
        for group in self._groups([len(ids) for ids in asked]):
            prompts = [self._prompt(asked[i]) for i in group]
            state = self.engine.prefill(prompts, options=options, seeds=[seed + i for i in group])
            said = [""] * len(group)
            while not state.is_finished and not all(_has_end(text, how.until) for text in said):
                self.engine.step(state)
                said = [self._tokenizer.decode(answer.text_ids) for answer in state.answers]
            for i, text in zip(group, said, strict=True):
                texts[i] = _before(self._answered(contexts[i], text), how.until)
        return texts

    def _ids(self, text: str) -> list[int]:
        """The ids of a text, or of each piece of a chat."""
        if not is_chat(text):
            return self._tokenizer.encode(text)
        pieces, answer = split_chat(text)
        ids: list[int] = []
        for piece in (*pieces, answer):
            ids += [self._layout.eos_id] if piece == END else self._tokenizer.encode(piece)
        return ids

    def _answered(self, context: str, said: str) -> str:
        """What was said behind a context; the space before a chat's answer is no part of it."""
        return said.removeprefix(self._layout.template.lead) if _is_asked(context) else said

    def _begun(self, ids: list[int]) -> list[int]:
        """The ids after BOS, or EOS where there would be nothing."""
        first = [self._layout.bos_id] if self._layout.template.bos else []
        return [*first, *ids] or [self._layout.eos_id]

    @torch.inference_mode()
    def score_ids(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """As ``log_likelihoods``, of the ids of contexts, one at least, and of what is added to them."""
        longest = max((len(added) for _, added in pairs), default=0)
        if longest > self.max_positions:
            raise DataError(f"a continuation of {longest} tokens is longer than {self.max_positions}.")
        scores = [(0.0, True)] * len(pairs)
        for group in self._groups([len(context) + len(added) for context, added in pairs]):
            group = [i for i in group if pairs[i][1]]  # nothing to add is certain
            if not group:
                continue
            whole = [torch.tensor([*pairs[i][0], *pairs[i][1]]) for i in group]
            inputs = [ids[-self.max_positions - 1 : -1] for ids in whole]
            hidden = self._hidden(inputs)
            for row, (i, ids) in enumerate(zip(group, inputs, strict=True)):
                added = torch.tensor(pairs[i][1], device=hidden.device)
                states = hidden[row, len(ids) - len(added) : len(ids)]
                log_probs = self._model.backbone.lm_head(states).float().log_softmax(-1)
                is_greedy = bool((log_probs.argmax(-1) == added).all())
                scores[i] = float(log_probs.gather(1, added[:, None]).sum()), is_greedy
        return scores

    def _hidden(self, rows: Sequence[Int[Tensor, "T"]]) -> Tensor:
        """States ``[B, T, D]`` of texts that are padded on the right."""
        ids = pad_sequence(list(rows), batch_first=True).to(self._model.device)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        grid = torch.full((len(rows), self._layout.num_streams, ids.shape[1]), self._layout.pad_audio)
        grid = grid.to(ids.device)
        grid[:, TEXT] = ids
        groups = None if self._router_mask is None else torch.full_like(ids, TEXT_GROUP)
        output = self._model.backbone(
            self._model.embed(grid), mask=mask, groups=groups, router_mask=self._router_mask
        )
        return output.hidden

    def _prompt(self, ids: Sequence[int]) -> Prompt:
        grid = torch.full((self._layout.num_streams, len(ids)), self._layout.pad_audio)
        grid[TEXT] = torch.tensor(ids)
        kind = torch.full((len(ids),), int(Kind.TEXT))
        return Prompt(grid=grid, kind=kind, speech_at=torch.full_like(kind, NO_SPEECH), row=Row.TEXT)

    def _groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Batches of like length, the longest first; a prompt of one token has no past and goes alone."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        alone = [i for i in order if lengths[i] == 1]
        order = order[: len(order) - len(alone)]
        groups = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        num_done = 0
        for group in [*groups, *([i] for i in alone)]:
            yield group
            num_done += len(group)
            self._progress(num_done, len(lengths))


def _own_router_mask(model: DeepTalk) -> RouterMask | None:
    """The mask of the model's own routing, as in decoding; None where every token may use every expert."""
    routing = Routing(**model.config.routing)  # pyright: ignore[reportArgumentType]  # checked by the class
    if routing.is_free:
        return None
    per_token = model.backbone.layers.experts_per_token
    return router_mask(ExpertPartition(is_audio=model.is_audio(), experts_per_token=per_token), routing)


def _is_asked(context: str) -> bool:
    """Whether a context is a chat in which nothing of the answer stands yet."""
    return is_chat(context) and not split_chat(context)[1]


def _has_end(text: str, until: Sequence[str]) -> bool:
    return any(end in text for end in until)


def _before(text: str, until: Sequence[str]) -> str:
    return text[: min((text.index(end) for end in until if end in text), default=len(text))]
