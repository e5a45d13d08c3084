"""``deeptalk synthesise``: texts become speech."""

from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json
from deeptalk.cli.sharding import NumWorkers, Ray, chosen_workers, shard_bar

_VOICE = "flite:NAME, espeak-ng:NAME+VARIANT or NAME=PROGRAM ARGUMENTS; repeatable."


def synthesise(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="F.jsonl", help="Sentences, texts or dialogues.", show_default=False),
    ],
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="VOICE", help=f"Who asks: {_VOICE}", show_default=False),
    ] = None,
    assistant: Annotated[
        list[str] | None,
        typer.Option("--assistant", metavar="VOICE", help=f"Who answers: {_VOICE}", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="F.jsonl", help="The new manifest; F-spoken.jsonl.", show_default=False
        ),
    ] = None,
    workers: NumWorkers = 1,
    ray: Ray = None,
    shard: Annotated[
        int, typer.Option("--shard", metavar="N", help="Texts in a file of sound.", min=1)
    ] = 500,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of who says what.")] = 0,
    json: Json = False,
) -> None:
    """Have questions or answers said, which models learn to hear and to say.

    The sound lies in speech/ beside the new manifest. Interrupted, it goes on where it was; what a lost
    process had not finished is made again. Answers get their codes afterwards, by `deeptalk encode`.
    """
    from dataclasses import asdict

    from deeptalk.cli.output import print_made
    from deeptalk.data.speaking import read_speaker, speak_manifest

    with shard_bar() as show:
        spoken = speak_manifest(
            manifest,
            out or manifest.with_name(f"{manifest.stem}-spoken.jsonl"),
            speakers={
                "user": [read_speaker(voice) for voice in user or ()],
                "assistant": [read_speaker(voice) for voice in assistant or ()],
            },
            seed=seed,
            workers=chosen_workers(workers, ray),
            texts_per_shard=shard,
            progress=show,
        )
    print_made(asdict(spoken), name="manifest", is_json=json)
