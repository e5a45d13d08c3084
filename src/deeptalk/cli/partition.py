"""``deeptalk partition``: which experts serve audio."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Json

if TYPE_CHECKING:
    from deeptalk.experts import ExpertPartition


class Normalisation(StrEnum):
    """How counts become loads."""

    RATE = "rate"
    SHARE = "share"
    MAX = "max"
    MASS = "mass"


class Positions(StrEnum):
    """Which positions count."""

    ALL = "all"
    INPUT = "input"
    ANSWER = "answer"


def partition(
    load: Annotated[
        Path, typer.Argument(metavar="LOAD", help="A file of `deeptalk profile`.", show_default=False)
    ],
    experts: Annotated[
        int, typer.Option("--experts", metavar="N", help="Audio experts in each layer.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="F.json", help="The file for the partition.", show_default=False)
    ],
    normalisation: Annotated[
        Normalisation, typer.Option(help="How counts become loads.")
    ] = Normalisation.RATE,
    positions: Annotated[Positions, typer.Option(help="Which positions count.")] = Positions.ALL,
    at_random: Annotated[
        int | None,
        typer.Option("--at-random", metavar="SEED", help="Draw the audio experts by lot instead."),
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option("--previous", metavar="F.json", help="The partition of the round before this one."),
    ] = None,
    stop_overlap: Annotated[
        float,
        typer.Option("--stop-overlap", metavar="PART", help="Rounds that agree on so much are the last."),
    ] = 0.95,
    json: Json = False,
) -> None:
    """Divide the experts between audio and text.

    Audio gets those that speech uses and text doesn't (algorithm 1), text gets all the others. --previous
    says how far the choice has moved since the round of training before.
    """
    from deeptalk.cli.output import console, print_json
    from deeptalk.experts import partition_by_load, read_load, read_partition, write_partition
    from deeptalk.experts.load import read_provenance
    from deeptalk.experts.partition import describe, partition_at_random, read_rounds
    from deeptalk.experts.rounds import check_overlap

    check_overlap(stop_overlap)
    measured = read_load(load)
    if at_random is None:
        chosen = partition_by_load(
            measured,
            num_audio_experts=experts,
            normalisation=normalisation.value,
            positions=positions.value,
        )
    else:
        chosen = partition_at_random(at_random, measured, num_audio_experts=experts)
    before = () if previous is None else read_rounds(previous)
    overlap = None if previous is None else chosen.overlap(read_partition(previous))
    options = {
        "num_audio_experts": experts,
        "normalisation": normalisation.value,
        "positions": positions.value,
        "seed": at_random,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_partition(
        out,
        chosen,
        options=options,
        provenance={"load": str(load), **read_provenance(load)},
        load=measured,
        before=before,
        overlap=overlap,
    )
    report = describe(measured, chosen, positions.value, normalisation.value)
    progress = {
        "round": len(before) + 1,
        "overlap_with_previous": overlap,
        "is_settled": overlap is not None and overlap >= stop_overlap,
    }
    if json:
        named = {"partition": str(out), "hash": chosen.hash, "audio_experts": chosen.audio_experts}
        print_json({**named, **report, **progress})
    else:
        _print_report(chosen, report, progress)
        console().print(f"{out} · {chosen.hash}")


def _print_report(chosen: "ExpertPartition", report: dict[str, Any], progress: dict[str, Any]) -> None:
    """The audio experts of every layer, and how sure and how costly the choice is."""
    from deeptalk.cli.output import console

    screen = console()
    by_input = report["input_audio_experts"] or [None] * len(chosen.audio_experts)
    rows = zip(chosen.audio_experts, report["text_load_of_audio_experts"], by_input, strict=True)
    for layer, (members, loss, others) in enumerate(rows):
        also = "" if others is None else f"  by input alone {_numbers(others)}"
        screen.print(
            f"layer {layer:>2}  audio experts {_numbers(members)}  ({100 * loss:.1f} % of text){also}"
        )
    agreed = report["overlap_of_halves"] or {}
    for name, figures in (
        ("even and odd samples agree on", agreed),
        ("normalisations agree on", report["overlap_of_normalisations"]),
    ):
        told = (f"{key} {100 * part:.0f} %" for key, part in figures.items() if part is not None)
        screen.print(f"{name}: {', '.join(told) or 'nothing to compare'}")
    if progress["overlap_with_previous"] is not None:
        end = "the choice has come to rest" if progress["is_settled"] else "another round may move it"
        part = 100 * progress["overlap_with_previous"]
        screen.print(f"round {progress['round']}: {part:.0f} % as in the round before; {end}")


def _numbers(experts: tuple[int, ...]) -> str:
    return " ".join(map(str, experts))
