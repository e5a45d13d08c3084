"""The options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

Recordings = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE", help="WAV, FLAC, MP3 or OGG, 8 to 192 kHz, mono or stereo.", show_default=False
    ),
]
Model = Annotated[
    str, typer.Option("--model", metavar="DIR", help="Folder of a model, or 'pocket', which is built in.")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, or cuda:0.")]
Voice = Annotated[
    str | None, typer.Option("--voice", metavar="NAME", help="Voice of the answer; one of the model's own.")
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature",
        metavar="T",
        help="How freely the voice's codes are drawn; at 0 the likeliest is taken. The text never varies.",
    ),
]
TopK = Annotated[
    int,
    typer.Option(
        "--top-k",
        metavar="K",
        help="Codes are drawn from the K likeliest, from all at 0; needs --temperature.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        help="The same seed draws the same codes; without --temperature nothing is drawn.",
        min=0,
        max=2**63 - 1,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line instead of text for people.")]
Root = Annotated[Path, typer.Option("--root", metavar="DIR", help="Folder with a folder for each recipe.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Folder of the data; ROOT/data unless given.", show_default=False
    ),
]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compile", help="Fuse the backbone's layers: a third faster after the first minute; needs g++."
    ),
]
Shared = Annotated[
    bool,
    typer.Option("--share", help="Processes share a step's micro-batches: the same training in less time."),
]
Dense = Annotated[
    bool,
    typer.Option("--dense", help="Stage 2.1 without the experts it masks: the same training in less memory."),
]
