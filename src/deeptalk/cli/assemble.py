"""``deeptalk assemble``: a language model of one's own gets an ear and a voice."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json


class FusionName(StrEnum):
    """How eight streams become one embedding."""

    MEAN8 = "mean8"
    MEAN2 = "mean2"
    SUM = "sum"


def assemble(
    backbone: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A mixture-of-experts language model: a folder, or an id of the hub.",
            show_default=False,
        ),
    ],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="DIR",
            help="Who hears: a stock Whisper (folder or id of the hub), a model's folder, or 'pocket'.",
            show_default=False,
        ),
    ],
    codec: Annotated[
        str,
        typer.Option(
            "--codec",
            metavar="DIR",
            help="What speaks: the folder of a codec, or 'pocket'.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder for the model.", show_default=False)
    ],
    voice: Annotated[
        list[str] | None,
        typer.Option(
            "--voice", metavar="NAME", help="A voice of its answers; repeatable. M29 and F10 unless given."
        ),
    ] = None,
    fusion: Annotated[
        FusionName, typer.Option(help="How eight streams become one; the paper's is mean8.")
    ] = FusionName.MEAN8,
    stride: Annotated[
        int, typer.Option("--stride", metavar="N", help="Encoder frames in a position: 1, 2, 4 or 8.")
    ] = 4,
    hidden: Annotated[
        int, typer.Option("--hidden", metavar="N", help="Width inside the adapter.", min=1)
    ] = 7_168,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of what is random at first.")] = 0,
    json: Json = False,
) -> None:
    """Put a language model, an encoder and a codec together.

    The result is what stage 1 starts from: it can neither hear nor speak before it is trained.
    """
    from dataclasses import asdict

    from deeptalk.backbone.stock import quiet
    from deeptalk.cli.output import print_made
    from deeptalk.codec import load_codec
    from deeptalk.model.assembly import assemble as put_together
    from deeptalk.model.assembly import open_ear
    from deeptalk.model.fresh import check_free
    from deeptalk.model.weights import PACKAGED, model_folder

    check_free(out)
    with quiet():
        written = put_together(
            backbone,
            out,
            ear=open_ear(encoder),
            codec=load_codec(model_folder(codec) / "codec" if codec in PACKAGED else Path(codec)),
            speakers=tuple(dict.fromkeys(voice or ("M29", "F10"))),
            fusion=fusion.value,
            stride=stride,
            hidden=hidden,
            seed=seed,
        )
    print_made(asdict(written), name="folder", is_json=json)
