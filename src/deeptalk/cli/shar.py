"""``deeptalk shar``: a manifest with its sound and codes as files that other machines read fast."""

from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json
from deeptalk.cli.sharding import NumWorkers, Ray, chosen_workers, shard_bar


def shar(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="F.jsonl", help="Recordings, dialogues or texts.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder for it.", show_default=False)
    ],
    workers: NumWorkers = 1,
    ray: Ray = None,
    shard: Annotated[int, typer.Option("--shard", metavar="N", help="Records in a shard.", min=1)] = 1_000,
    json: Json = False,
) -> None:
    """Write a manifest with all its sound and codes as Shar of lhotse: tar files, read from front to end.

    DIR/shar is what lhotse opens, and what `deeptalk prepare shar DIR` reads again. Interrupted, it goes on
    where it was; what a lost process had not finished is made again.
    """
    from dataclasses import asdict

    from deeptalk.cli.output import print_made
    from deeptalk.data.shar import write_shar

    with shard_bar() as show:
        written = write_shar(
            manifest,
            out,
            workers=chosen_workers(workers, ray),
            records_per_shard=shard,
            progress=show,
        )
    print_made(asdict(written), name="folder", is_json=json)
