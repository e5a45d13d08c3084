"""``deeptalk partition``: which experts serve audio."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json


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
    json: Json = False,
) -> None:
    """Divide the experts between audio and text.

    Audio gets those that speech uses and text doesn't (algorithm 1), text gets all the others.
    """
    from deeptalk.cli.output import console, print_json
    from deeptalk.experts import partition_by_load, read_load, write_partition
    from deeptalk.experts.partition import describe

    measured = read_load(load)
    chosen = partition_by_load(
        measured, num_audio_experts=experts, normalisation=normalisation.value, positions=positions.value
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "num_audio_experts": experts,
        "normalisation": normalisation.value,
        "positions": positions.value,
    }
    write_partition(out, chosen, options=options, provenance={"load": str(load)}, load=measured)
    report = describe(measured, chosen, positions.value)
    if json:
        print_json(
            {"partition": str(out), "hash": chosen.hash, "audio_experts": chosen.audio_experts, **report}
        )
        return
    screen = console()
    for layer, (members, loss) in enumerate(
        zip(chosen.audio_experts, report["text_load_of_audio_experts"], strict=True)
    ):
        screen.print(
            f"layer {layer:>2}  audio experts {' '.join(map(str, members))}  ({100 * loss:.1f} % of text)"
        )
    screen.print(f"{out} · {chosen.hash}")
