"""Several rounds of choosing audio experts and training them, until the choice comes to rest.

The paper's introduction speaks of several rounds, its algorithm 1 and the authors' code show one. Here a
round measures the load, chooses the audio experts, and lets stages 2.1 and 2.2 train on the choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

from deeptalk.errors import ConfigError
from deeptalk.experts.load import ExpertLoad, Normalisation, Positions
from deeptalk.experts.partition import ExpertPartition, partition_by_load

STOP_OVERLAP = 0.95
"""Two rounds that agree on this part of the audio experts end the search."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PartitionRound:
    """The choice of a round, and the part of it that the round before had chosen too; None in the first."""

    partition: ExpertPartition
    overlap: float | None


def partition_in_rounds(
    measure: Callable[[ExpertPartition | None], ExpertLoad],
    *,
    num_audio_experts: int,
    num_rounds: int = 1,
    stop_overlap: float = STOP_OVERLAP,
    normalisation: Normalisation = "rate",
    positions: Positions = "all",
) -> tuple[PartitionRound, ...]:
    """The choices of up to ``num_rounds`` rounds; the last one is the partition to go on with.

    ``measure`` gets None and gives the load after stage 1; later it gets the choice of the round before,
    trains stages 2.1 and 2.2 on it, and gives the load of that model without a router mask. Whether each
    round trains from the weights of stage 1 or goes on with those of the round before is its own affair.

    Raises:
        ConfigError: ``num_rounds`` is below 1, or ``stop_overlap`` isn't above 0 and at most 1.
    """
    if num_rounds < 1:
        raise ConfigError(f"num_rounds must be at least 1, got {num_rounds}.")
    check_overlap(stop_overlap)
    rounds: list[PartitionRound] = []
    previous: ExpertPartition | None = None
    while len(rounds) < num_rounds:
        chosen = partition_by_load(
            measure(previous),
            num_audio_experts=num_audio_experts,
            normalisation=normalisation,
            positions=positions,
        )
        overlap = None if previous is None else chosen.overlap(previous)
        rounds.append(PartitionRound(partition=chosen, overlap=overlap))
        if overlap is not None and overlap >= stop_overlap:
            break
        previous = chosen
    return tuple(rounds)


def check_overlap(stop_overlap: float) -> None:
    """Refuse what is no part of the audio experts; raises `ConfigError`."""
    if not 0 < stop_overlap <= 1:
        raise ConfigError(f"stop_overlap must be above 0 and at most 1, got {stop_overlap}.")
