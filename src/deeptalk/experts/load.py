"""How often each expert is chosen by the tokens of spoken and of written dialogues (algorithm 1, step 1)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

import torch

from deeptalk.backbone import RouterOutput
from deeptalk.errors import ConfigError, DataError, reason
from deeptalk.files import write_text
from deeptalk.shapes import Bool, Float, Int, Tensor
from deeptalk.streams.modality import Kind

Normalisation = Literal["rate", "share", "max", "mass"]
Positions = Literal["all", "input", "answer"]

DATA_SETS = ("audio", "text")
_KINDS_OF: dict[str, tuple[Kind, ...]] = {
    "all": tuple(Kind),
    "input": (Kind.TEXT, Kind.SPEECH),
    "answer": (Kind.ANSWER,),
}


class RoutedOutput(Protocol):
    """What a profiled model returns: at least the routers' decisions."""

    @property
    def router(self) -> tuple[RouterOutput, ...] | None:
        """One decision per mixture-of-experts layer over B·T tokens."""
        ...


class DialogueBatch(Protocol):
    """What a profiled batch tells about its positions."""

    @property
    def kind(self) -> Int[Tensor, "B T"]:
        """What each position holds."""
        ...

    @property
    def mask(self) -> Bool[Tensor, "B T"]:
        """False on padding."""
        ...


class ProfiledModel(Protocol):
    """A model whose routers can be watched."""

    training: bool

    def __call__(self, batch: Any, *, collect: bool) -> RoutedOutput:
        """A teacher-forced forward without router mask."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExpertLoad:
    """How often the tokens of each data set (audio, text) and kind chose each expert, and with which weight.

    Axes: data set, layer, kind (template, text input, speech, answer), expert. ``even`` is the part of it
    that the samples with even numbers made, for judging how stable the figures are.
    """

    count: Int[Tensor, "2 L 4 E"]
    mass: Float[Tensor, "2 L 4 E"]
    num_tokens: Int[Tensor, "2 L 4"]
    even: Self | None = None

    def halves(self) -> tuple["ExpertLoad", "ExpertLoad"]:
        """The load of the samples with even and with odd numbers."""
        if self.even is None:
            raise DataError("this load has no halves; profile again with profile_load.")
        odd = ExpertLoad(
            count=self.count - self.even.count,
            mass=self.mass - self.even.mass,
            num_tokens=self.num_tokens - self.even.num_tokens,
        )
        return self.even, odd

    def normalised(
        self, normalisation: Normalisation = "rate", positions: Positions = "all"
    ) -> Float[Tensor, "2 L E"]:
        """The load of every expert in one figure.

        ``rate`` is choices per token (sums to the experts per token), ``share`` the part of all choices (sums
        to 1), ``max`` the rate over the largest rate of the layer, ``mass`` the mean gate weight.
        """
        _check_choice("normalisation", normalisation, get_args(Normalisation))
        _check_choice("positions", positions, get_args(Positions))
        kinds = [int(kind) for kind in _KINDS_OF[positions]]
        count = self.count[:, :, kinds].sum(dim=2).double()
        num_tokens = self.num_tokens[:, :, kinds].sum(dim=2, keepdim=False).unsqueeze(-1).double()
        if bool((num_tokens == 0).any()):
            raise DataError(f"a data set has no token at the positions {positions!r}; profile more samples.")
        if normalisation == "share":
            return count / count.sum(dim=-1, keepdim=True)
        if normalisation == "mass":
            return self.mass[:, :, kinds].sum(dim=2) / num_tokens
        rate = count / num_tokens
        return rate / rate.amax(dim=-1, keepdim=True) if normalisation == "max" else rate

    @property
    def gate_sum(self) -> Float[Tensor, "2 L"]:
        """The mean sum of a token's expert weights, which masking changes."""
        return self.normalised("mass").sum(dim=-1)

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain lists with their axes named."""
        figures: dict[str, Any] = {
            "data_sets": list(DATA_SETS),
            "kinds": [kind.name.lower() for kind in Kind],
        }
        figures["count"] = self.count.tolist()
        figures["mass"] = self.mass.double().mul(1e6).round().div(1e6).tolist()
        figures["num_tokens"] = self.num_tokens.tolist()
        figures["even"] = None if self.even is None else self.even.to_dict()
        return figures

    @classmethod
    def from_dict(cls, figures: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        try:
            return cls(
                count=torch.tensor(figures["count"], dtype=torch.long),
                mass=torch.tensor(figures["mass"], dtype=torch.float64),
                num_tokens=torch.tensor(figures["num_tokens"], dtype=torch.long),
                even=None if figures["even"] is None else cls.from_dict(figures["even"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the load is damaged: {reason(error)}. Profile again.") from error


def profile_load(
    model: ProfiledModel,
    audio_batches: Iterable[DialogueBatch],
    text_batches: Iterable[DialogueBatch],
    *,
    mixed: bool = False,
) -> ExpertLoad:
    """Run both data sets through the model in evaluation mode, and count.

    Batches stand on the model's device. Samples are numbered in order for the even and odd halves. ``mixed``
    computes in mixed precision (bf16), as weights in bf16 need; batches are made outside of it.
    """
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            sets = [_count_set(model, batches, mixed=mixed) for batches in (audio_batches, text_batches)]
    finally:
        model.train(was_training)
    count, mass, num_tokens = (torch.stack(tensors, dim=1) for tensors in zip(*sets, strict=True))
    even = ExpertLoad(count=count[0], mass=mass[0], num_tokens=num_tokens[0])
    return ExpertLoad(count=count.sum(0), mass=mass.sum(0), num_tokens=num_tokens.sum(0), even=even)


def write_load(path: Path, load: ExpertLoad, *, provenance: dict[str, Any]) -> None:
    """Save a load as JSON; ``provenance`` names data, model and options with their hashes."""
    text = json.dumps({"format_version": 1, "provenance": provenance, "load": load.to_dict()})
    write_text(path, text + "\n")


def read_load(path: Path) -> ExpertLoad:
    """Open a file of `write_load`; raises `DataError` if it isn't one."""
    try:
        saved = json.loads(path.read_text())
        figures = saved["load"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no expert load ({reason(error)}); make it with `deeptalk profile`."
        ) from error
    if saved.get("format_version") != 1:
        raise DataError(f"{path} has format {saved.get('format_version')}; this version reads format 1.")
    return ExpertLoad.from_dict(figures)


def read_provenance(path: Path) -> dict[str, Any]:
    """What a file of `write_load` says of its model and data; raises `DataError` if it isn't one."""
    read_load(path)
    return dict(json.loads(path.read_text()).get("provenance") or {})


def _count_set(
    model: ProfiledModel, batches: Iterable[DialogueBatch], *, mixed: bool
) -> tuple[Int[Tensor, "2 L 4 E"], Float[Tensor, "2 L 4 E"], Int[Tensor, "2 L 4"]]:
    """Counts, gate mass and tokens by half (even, odd), layer and kind."""
    total, num_samples = None, 0
    for batch in batches:
        with torch.autocast(batch.kind.device.type, torch.bfloat16, enabled=mixed):
            router = model(batch, collect=True).router
        if not router:
            raise ConfigError("the model gave no router decisions; profile a model with experts.")
        is_odd = (torch.arange(len(batch.kind), device=batch.kind.device) + num_samples) % 2
        num_samples += len(batch.kind)
        place = (is_odd.unsqueeze(-1) * len(Kind) + batch.kind)[batch.mask]
        layers = [_count_layer(output, place, batch.mask.reshape(-1)) for output in router]
        count, mass, num_tokens = (torch.stack(tensors, dim=1) for tensors in zip(*layers, strict=True))
        total = (
            (count, mass, num_tokens)
            if total is None
            else (total[0] + count, total[1] + mass, total[2] + num_tokens)
        )
    if total is None:
        raise DataError("a data set to profile is empty.")
    return total


def _count_layer(output: RouterOutput, place: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    num_experts, num_places = output.logits.shape[-1], 2 * len(Kind)
    chosen = (place.unsqueeze(-1) * num_experts + output.experts[is_real]).reshape(-1)
    weights = output.weights[is_real].reshape(-1).double()
    count = torch.bincount(chosen, minlength=num_places * num_experts)
    mass = torch.bincount(chosen, weights=weights, minlength=num_places * num_experts)
    num_tokens = torch.bincount(place, minlength=num_places)
    shape = (2, len(Kind), num_experts)
    return count.view(shape).cpu(), mass.view(shape).cpu(), num_tokens.view(shape[:2]).cpu()


def _check_choice(name: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {given!r}.")
