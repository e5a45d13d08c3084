"""``deeptalk encode``: codes of recorded answers."""

from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json
from deeptalk.cli.sharding import NumWorkers, Ray, chosen_workers, shard_bar


def encode(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="F.jsonl", help="Dialogues with recorded answers.", show_default=False),
    ],
    codec: Annotated[
        str,
        typer.Option(
            "--codec",
            metavar="DIR",
            help="The folder of a codec, or 'pocket'; the model's own.",
            show_default=False,
        ),
    ],
    workers: NumWorkers = 1,
    ray: Ray = None,
    shard: Annotated[
        int, typer.Option("--shard", metavar="N", help="Answers in a file of codes.", min=1)
    ] = 1_000,
    json: Json = False,
) -> None:
    """Give recorded answers their codes, which models learn to say.

    The codes lie in codes/ beside the manifest, which names them afterwards. Interrupted, it goes on where
    it was; what a lost process had not finished is made again.
    """
    from dataclasses import asdict

    from deeptalk.cli.output import print_made
    from deeptalk.data.answer_codes import encode_manifest
    from deeptalk.model.weights import PACKAGED, model_folder

    folder = model_folder(codec) / "codec" if codec in PACKAGED else Path(codec)
    with shard_bar() as show:
        encoded = encode_manifest(
            manifest,
            folder,
            workers=chosen_workers(workers, ray),
            answers_per_shard=shard,
            progress=show,
        )
    print_made(asdict(encoded), name="manifest", is_json=json)
