"""A stage of training as one literal value: what trains, from what, on what, and how."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from deeptalk.data.dataset import Source
from deeptalk.errors import ConfigError
from deeptalk.experts import Routing
from deeptalk.experts.load import Normalisation, Positions
from deeptalk.training.objective import Objective, added, is_added
from deeptalk.training.optim import AdamW
from deeptalk.training.schedule import Cosine


@dataclass(frozen=True, kw_only=True, slots=True)
class ByLoad:
    """The experts that speech uses and text does not serve audio (algorithm 1, step 1).

    The load is measured on `num_batches` batches of each data set, `audio` (D^A) and `text` (D^T).
    """

    num_audio_experts: int
    audio: tuple[Source, ...]
    text: tuple[Source, ...]
    num_batches: int = 64
    normalisation: Normalisation = "rate"
    positions: Positions = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class AtRandom:
    """Audio experts drawn by lot, the ablation of table 8."""

    num_audio_experts: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Copies:
    """Copies of the experts that `of` chooses serve audio, and nothing of the backbone ever moves.

    Under `overlay` a copy stands in for its original, under `union` it competes with it (method.md,
    section 14).
    """

    of: ByLoad | AtRandom
    speech_routing: Literal["overlay", "union"] = "overlay"


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """Copies of the experts `sources` of every layer are open to all tokens (MoExtend, method.md, 13)."""

    sources: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One stage of training.

    Attributes:
        name: names the recipe and the folder of its result.
        paper: the section that the stage follows.
        model: the configuration of what is made from nothing; None where the stage goes on with a model.
        starts_from: the recipes whose results this one continues or assembles.
        partition: how the experts are divided before this stage; None keeps what an earlier stage has done.
        routing: which experts each group of tokens may use.
        trains: the white list, shell patterns over parameter names.
        batch_size: positions per micro-batch (mel frames, tokens or samples, as the objective counts them).
        accumulate: micro-batches per step and process.
        num_steps: optimiser steps; None where `epochs` decides.
        evaluation: held-out sources; `eval_batches` batches of them are measured every `eval_every` steps.
        encoded_passes: the frozen encoder's output is made once for each clip in so many rooms and kept with
            the data; 0 runs the encoder in every step.
        max_positions: longer samples are dropped and counted.
        average: decay of the moving average of the weights that is the result; None takes the last weights.
        start_share: how much of the weights that the stage began with is blended into its result at the end,
            so that it keeps what they could (WiSE-FT, arXiv 2109.01903); only with `average`.
        precision: what products are computed in; sums and losses are fp32 either way.
        weights: what weights are held in. "bf16" takes half the memory for those that are frozen; those that
            train follow fp32 copies which the optimiser keeps.
        recompute: what the backward pass computes again instead of keeping it: nothing, the blocks of
            experts, or whole layers.
        max_bad_steps: so many steps in a row with a loss or gradient that is not finite end the run.
        max_bad_fraction: a larger share of samples that can't be used ends the run; None bears any.
    """

    name: str
    paper: str
    objective: Objective
    optim: AdamW
    trains: tuple[str, ...]
    mixture: tuple[Source, ...]
    batch_size: int
    model: Any = None
    starts_from: tuple[str, ...] = ()
    partition: ByLoad | AtRandom | Copies | Appended | None = None
    routing: Routing | None = None
    schedule: Cosine = field(default_factory=Cosine)
    accumulate: int = 1
    num_steps: int | None = None
    epochs: int | None = None
    encoded_passes: int = 0
    max_positions: int = 1_200
    evaluation: tuple[Source, ...] = ()
    eval_batches: int = 8
    eval_every: int = 500
    save_every: int = 500
    average: float | None = None
    start_share: float = added(0.0)
    precision: Literal["fp32", "bf16"] = "fp32"
    weights: Literal["fp32", "bf16"] = added("fp32")
    recompute: Literal["none", "experts", "layers"] = added("none")
    max_bad_steps: int = 20
    max_bad_fraction: float | None = added(None)
    seed: int = 42

    def __post_init__(self) -> None:
        if (self.num_steps is None) == (self.epochs is None):
            raise ConfigError(f"recipe {self.name!r} must give either num_steps or epochs.")
        for name in (
            "batch_size",
            "accumulate",
            "eval_every",
            "save_every",
            "max_bad_steps",
            "max_positions",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.weights != "fp32" and self.encoded_passes:
            raise ConfigError(
                "encoded_passes keeps what an encoder in fp32 gives; with weights=bf16 set it to 0."
            )
        if not 0 <= self.start_share < 1 or (self.start_share and self.average is None):
            raise ConfigError(
                f"start_share is a share from 0 to less than 1, above 0 only with an average; got "
                f"{self.start_share} with average={self.average}."
            )
        if self.max_bad_fraction is not None and not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction is a share from 0 to 1, got {self.max_bad_fraction}.")

    def tiny(self) -> "Recipe":
        """The same stage with a random model of tiny size and two short steps, for tests."""
        model = self.model.tiny() if hasattr(self.model, "tiny") else self.model
        objective: Objective = getattr(self.objective, "tiny", lambda: self.objective)()
        return dataclasses.replace(
            self,
            model=model,
            objective=objective,
            num_steps=2,
            epochs=None,
            batch_size=256,
            accumulate=1,
            eval_every=2,
            save_every=1,
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, with the kind of every part named."""
        return _plain(self)

    @property
    def dtype(self) -> torch.dtype:
        """What weights are held and saved in."""
        return torch.bfloat16 if self.weights == "bf16" else torch.float32

    @property
    def hash(self) -> str:
        """Twelve hex digits that change with anything that changes the weights."""
        values = _effective(self.to_dict())
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    def makes_the_same_as(self, stored: Mapping[str, Any], *, but: tuple[str, ...] = ()) -> bool:
        """Whether values of `to_dict`, maybe older than some field with a default, give the same weights.

        What `but` names may differ.
        """
        return _effective(_filled(stored, self), but) == _effective(self.to_dict(), but)


def _effective(values: Mapping[str, Any], but: tuple[str, ...] = ()) -> dict[str, Any]:
    """What changes the weights."""
    harmless = ("eval_every", "eval_batches", "save_every", "paper", "evaluation", "max_bad_fraction", *but)
    return {name: value for name, value in values.items() if name not in harmless}


def _filled(stored: Any, like: Any) -> Any:
    """Plain values with the defaults of the settings that the classes of `like` have gained since."""
    if isinstance(like, (tuple, list)) and isinstance(stored, list) and len(stored) == len(like):
        return [_filled(*pair) for pair in zip(stored, like, strict=True)]
    if not dataclasses.is_dataclass(like) or not isinstance(stored, Mapping):
        return stored
    filled = dict(stored)
    for setting in _settings(like):
        if setting.name in stored:
            filled[setting.name] = _filled(stored[setting.name], getattr(like, setting.name))
        elif is_added(setting):
            continue  # as in `_plain`
        elif setting.default is not dataclasses.MISSING:
            filled[setting.name] = _plain(setting.default)
        elif setting.default_factory is not dataclasses.MISSING:
            filled[setting.name] = _plain(setting.default_factory())
    return filled


def _settings(value: Any) -> list[dataclasses.Field[Any]]:
    return [setting for setting in dataclasses.fields(value) if setting.metadata.get("setting", True)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            setting.name: _plain(getattr(value, setting.name))
            for setting in _settings(value)
            if not (is_added(setting) and getattr(value, setting.name) == setting.default)
        }
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return _plain(to_dict())
    return str(value)
