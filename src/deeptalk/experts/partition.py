"""Divide the experts of every layer between audio and text (algorithm 1 of the paper, step 1)."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import torch

from deeptalk.errors import ConfigError, DataError, reason
from deeptalk.experts.load import ExpertLoad, Normalisation, Positions
from deeptalk.files import write_text
from deeptalk.shapes import Bool, Float, Tensor

_logger = logging.getLogger(__name__)

STABLE_OVERLAP = 5 / 6
"""Even and odd samples should agree on this part of the audio experts."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExpertPartition:
    """Which experts of each layer serve audio; the others serve text."""

    is_audio: Bool[Tensor, "L E"]
    experts_per_token: int

    def __post_init__(self) -> None:
        if self.is_audio.dim() != 2 or self.is_audio.dtype != torch.bool:
            raise ConfigError(
                "a partition is a bool table [layers, experts], "
                f"got {self.is_audio.dtype} of shape {tuple(self.is_audio.shape)}."
            )
        for name, members in (("audio", self.is_audio), ("text", ~self.is_audio)):
            fewest = int(members.sum(dim=-1).min())
            if fewest < self.experts_per_token:
                raise ConfigError(
                    f"every layer needs at least {self.experts_per_token} {name} experts, as many as a token "
                    f"uses; some layer has {fewest}."
                )

    @property
    def audio_experts(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the audio experts of each layer."""
        return tuple(tuple(layer.nonzero().flatten().tolist()) for layer in self.is_audio)

    @property
    def hash(self) -> str:
        """Twelve hex digits that change with any expert's side."""
        return hashlib.sha256(json.dumps(self.audio_experts).encode()).hexdigest()[:12]

    def overlap(self, other: "ExpertPartition") -> float:
        """The mean part of this partition's audio experts that the other one has too.

        Raises:
            ConfigError: the other one is of another backbone.
        """
        if other.is_audio.shape != self.is_audio.shape:
            raise ConfigError(
                f"partitions of {tuple(self.is_audio.shape)} and {tuple(other.is_audio.shape)} layers and "
                "experts can't be compared; they are of different backbones."
            )
        shared = (self.is_audio & other.is_audio).sum(dim=-1) / self.is_audio.sum(dim=-1)
        return float(shared.mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One of several rounds of choosing and training, as it is saved: a partition's hash and its overlap.

    The overlap is the part of the audio experts that the round before had too; None in the first.
    """

    hash: str
    overlap: float | None


def audio_score(load: Float[Tensor, "2 L E"]) -> Float[Tensor, "L E"]:
    """High where audio tokens go and text tokens don't: E^A (1 - E^T)."""
    audio, text = load
    return audio * (1 - text)


def partition_by_load(
    load: ExpertLoad,
    *,
    num_audio_experts: int,
    normalisation: Normalisation = "rate",
    positions: Positions = "all",
) -> ExpertPartition:
    """Give audio the experts of the highest score in each layer, of equal ones those with the lower number.

    Text takes all the others. Warns where even and odd samples disagree on the choice.
    """
    partition = _by_score(load, num_audio_experts, normalisation, positions)
    if load.even is not None:
        agreement = halves_overlap(load, num_audio_experts, normalisation, positions)
        if agreement is None or agreement < STABLE_OVERLAP:
            percent = "none" if agreement is None else f"{100 * agreement:.0f} %"
            _logger.warning("even and odd samples agree on %s of the audio experts; profile more.", percent)
    return partition


def random_partition(
    seed: int, *, num_layers: int, num_experts: int, num_audio_experts: int, experts_per_token: int
) -> ExpertPartition:
    """Audio experts drawn by lot in each layer, the ablation of table 8."""
    _check_number(num_audio_experts, num_experts, experts_per_token)
    generator = torch.Generator().manual_seed(seed)
    lots = torch.rand(num_layers, num_experts, generator=generator)
    return _from_score(lots, num_audio_experts, experts_per_token)


def partition_at_random(seed: int, load: ExpertLoad, *, num_audio_experts: int) -> ExpertPartition:
    """`random_partition` of the backbone that a load was measured on."""
    return random_partition(
        seed,
        num_layers=load.count.shape[1],
        num_experts=load.count.shape[-1],
        num_audio_experts=num_audio_experts,
        experts_per_token=_experts_per_token(load),
    )


def halves_overlap(
    load: ExpertLoad, num_audio_experts: int, normalisation: Normalisation, positions: Positions
) -> float | None:
    """How far the partitions of even and of odd samples agree, from 0 to 1; None where a half is empty."""
    halves = load.halves()
    if not all(_is_measured(half, positions) for half in halves):
        return None
    even, odd = (_by_score(half, num_audio_experts, normalisation, positions) for half in halves)
    return even.overlap(odd)


def text_load_of_audio(
    load: ExpertLoad, partition: ExpertPartition, positions: Positions = "all"
) -> Float[Tensor, "L"]:
    """The part of text's choices that goes to audio experts: what the text side gives up."""
    text = load.normalised("share", positions)[1]
    return text.masked_fill(~partition.is_audio, 0.0).sum(dim=-1)


def describe(
    load: ExpertLoad,
    partition: ExpertPartition,
    positions: Positions = "all",
    normalisation: Normalisation = "rate",
) -> dict[str, Any]:
    """What to know about a partition: text's loss, and how other choices of measure would have decided.

    ``input_audio_experts`` is the choice by input positions alone: after stage 1 spoken answers are still
    untrained, and their load says less.
    """
    number = int(partition.is_audio[0].sum())
    others = {
        f"{kind}/{place}": _by_score(load, number, kind, place)
        for place in get_args(Positions)
        for kind in get_args(Normalisation)
        if _is_measured(load, place)
    }
    return {
        "text_load_of_audio_experts": _rounded(text_load_of_audio(load, partition, positions)),
        "gate_sum": _rounded(load.gate_sum),
        "input_audio_experts": _by_score(load, number, normalisation, "input").audio_experts
        if _is_measured(load, "input")
        else None,
        "overlap": {name: round(partition.overlap(other), 4) for name, other in others.items()},
        "overlap_of_normalisations": {
            f"{one}-{two}": round(others[f"{one}/{positions}"].overlap(others[f"{two}/{positions}"]), 4)
            for one, two in combinations(get_args(Normalisation), 2)
        },
        "overlap_of_halves": None
        if load.even is None
        else {kind: halves_overlap(load, number, kind, positions) for kind in get_args(Normalisation)},
    }


def write_partition(
    path: Path,
    partition: ExpertPartition,
    *,
    options: dict[str, Any],
    provenance: dict[str, Any],
    load: ExpertLoad | None = None,
    before: Sequence[Round] = (),
    overlap: float | None = None,
) -> None:
    """Save a partition as readable JSON, with all counts and what they say where a load is given.

    ``options`` are the settings that made it (for a random one, its seed); ``provenance`` names data and
    model with their hashes; ``before`` are earlier rounds, ``overlap`` that with the last of them.
    """
    saved = {
        "format_version": 1,
        "audio_experts": [list(layer) for layer in partition.audio_experts],
        "num_experts": partition.is_audio.shape[1],
        "experts_per_token": partition.experts_per_token,
        "hash": partition.hash,
        "options": options,
        "provenance": provenance,
        "rounds": [asdict(one) for one in (*before, Round(hash=partition.hash, overlap=overlap))],
    }
    if load is not None:
        saved["report"] = describe(
            load, partition, options.get("positions", "all"), options.get("normalisation", "rate")
        )
        saved["load"] = load.to_dict()
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in saved.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_rounds(path: Path) -> tuple[Round, ...]:
    """The rounds that led to a partition of `write_partition`, its own last.

    Raises:
        DataError: the file isn't one, or was changed.
    """
    partition = read_partition(path)
    try:
        rounds = json.loads(path.read_text()).get("rounds") or [{"hash": partition.hash, "overlap": None}]
        return tuple(Round(**one) for one in rounds)
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path} has damaged rounds ({error}); make it with `deeptalk partition`.") from error


def read_partition(path: Path) -> ExpertPartition:
    """Open a file of `write_partition`; raises `DataError` if it isn't one or was changed."""
    try:
        saved = json.loads(path.read_text())
        table = torch.zeros(len(saved["audio_experts"]), saved["num_experts"], dtype=torch.bool)
        for layer, experts in enumerate(saved["audio_experts"]):
            table[layer, experts] = True
        partition = ExpertPartition(is_audio=table, experts_per_token=saved["experts_per_token"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise DataError(
            f"{path} holds no partition ({reason(error)}); make it with `deeptalk partition`."
        ) from error
    if saved.get("format_version") != 1:
        raise DataError(f"{path} has format {saved.get('format_version')}; this version reads format 1.")
    if partition.hash != saved["hash"]:
        raise DataError(f"{path} was changed after it was made; make it again with `deeptalk partition`.")
    return partition


def _by_score(
    load: ExpertLoad, num_audio_experts: int, normalisation: Normalisation, positions: Positions
) -> ExpertPartition:
    experts_per_token = _experts_per_token(load)
    _check_number(num_audio_experts, load.count.shape[-1], experts_per_token)
    score = audio_score(load.normalised(normalisation, positions))
    return _from_score(score, num_audio_experts, experts_per_token)


def _experts_per_token(load: ExpertLoad) -> int:
    return round(float(load.count.sum() / load.num_tokens.sum()))


def _from_score(score: Tensor, num_audio_experts: int, experts_per_token: int) -> ExpertPartition:
    exact = score.double().mul(1e12).round()  # scores that differ by rounding alone are equal
    best = exact.sort(dim=-1, descending=True, stable=True).indices[:, :num_audio_experts]
    is_audio = torch.zeros_like(score, dtype=torch.bool).scatter(-1, best, True)
    return ExpertPartition(is_audio=is_audio, experts_per_token=experts_per_token)


def _check_number(num_audio_experts: int, num_experts: int, experts_per_token: int) -> None:
    most = num_experts - experts_per_token
    if not experts_per_token <= num_audio_experts <= most:
        raise ConfigError(
            f"num_audio_experts must be from {experts_per_token} (what a token uses) to {most}, "
            f"got {num_audio_experts}."
        )


def _is_measured(load: ExpertLoad, positions: Positions) -> bool:
    try:
        load.normalised("rate", positions)
    except DataError:
        return False
    return True


def _rounded(tensor: Tensor) -> Any:
    return tensor.double().mul(1e4).round().div(1e4).tolist()
