"""``deeptalk prepare``: the data that a family of recipes trains on."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json


class Corpus(StrEnum):
    """What can be prepared."""

    POCKET = "pocket"


def prepare(
    corpus: Annotated[Corpus, typer.Argument(help="Which data.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the data.")] = Path(
        "build/pocket/data"
    ),
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same texts.")] = 0,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Processes at a time.", min=1)] = 2,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few clips of each kind, for a trial.")] = False,
    json: Json = False,
) -> None:
    """Write the training data and have them spoken by flite and espeak-ng.

    An interrupted run goes on where it was. Only training needs these data; talking and testing don't.
    """
    from deeptalk.cli.output import print_counts
    from deeptalk.cli.progress import bars
    from deeptalk.data.pocket import SpeechSizes, prepare_speech, prepare_text

    if not (out / "durations.json").is_file():
        print_counts("text", prepare_text(out, seed=seed, workers=workers), is_json=json)
    sizes = SpeechSizes().tiny() if tiny else SpeechSizes()
    with bars() as show:
        hours = prepare_speech(out, seed=seed, workers=workers, sizes=sizes, progress=show)
    print_counts("hours of speech", hours, is_json=json)
