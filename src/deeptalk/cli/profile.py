"""``deeptalk profile``: which experts the tokens of spoken and of written dialogues choose."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Device, Json, Model
from deeptalk.errors import ConfigError

if TYPE_CHECKING:
    from deeptalk.experts import ExpertLoad
    from deeptalk.training.recipe import Source

SourceOption = list[str]


def profile(
    out: Annotated[
        Path, typer.Option("--out", metavar="F.json", help="The file for all counts.", show_default=False)
    ],
    audio: Annotated[
        SourceOption,
        typer.Option("--audio", metavar="MANIFEST:TASK", help="Spoken dialogues (D^A); repeatable."),
    ] = ["speech_train:speech_to_speech"],  # noqa: B006
    text: Annotated[
        SourceOption,
        typer.Option("--text", metavar="MANIFEST:TASK", help="Written dialogues (D^T); repeatable."),
    ] = ["speech_train:text_to_speech"],  # noqa: B006
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the manifests.")] = Path(
        "build/pocket/data"
    ),
    batches: Annotated[int, typer.Option("--batches", metavar="N", help="Batches of each.", min=1)] = 64,
    positions: Annotated[
        int, typer.Option("--positions", metavar="N", help="Positions of a batch.", min=1)
    ] = 2_048,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Which samples are drawn.")] = 0,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="F.png", help="Draw the loads: bars of three layers, maps of all."),
    ] = None,
    model: Model = "pocket",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Count how often each expert serves speech and text.

    Step 1 of the paper's algorithm 1; all counts are kept, and shown layer by layer.
    """
    from itertools import islice

    import torch

    from deeptalk.cli.batches import open_batches
    from deeptalk.cli.figure import check_figure, draw_load
    from deeptalk.cli.opening import open_model
    from deeptalk.cli.output import print_json
    from deeptalk.evaluation.benchmarks.workers import check_device
    from deeptalk.experts import profile_load, write_load
    from deeptalk.experts.provenance import measured_on

    if figure is not None:
        check_figure(figure)
    opened = open_model(model, device=check_device(device)).model
    sources = [[_source(part) for part in parts] for parts in (audio, text)]
    streams = [
        open_batches(opened, given, data=data, num_positions=positions, seed=seed) for given in sources
    ]
    is_rounded = opened.text_table.dtype == torch.bfloat16
    load = profile_load(opened, *(islice(stream, batches) for stream in streams), mixed=is_rounded)
    note = {"model": model, "audio": audio, "text": text, "batches": batches, "seed": seed}
    note |= measured_on(opened, data=data, manifests=(s.manifest for given in sources for s in given))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_load(out, load, provenance=note)
    if figure is not None:
        draw_load(load, figure)
    if json:
        print_json({"load": str(out), "rate": load.normalised("rate").tolist(), **note})
    else:
        _print_layers(load)


def _source(text: str) -> "Source":
    from deeptalk.training.recipe import Source

    manifest, colon, task = text.partition(":")
    if not colon or not manifest or not task:
        raise ConfigError(
            f"{text!r} is not of the form MANIFEST:TASK, for example speech_train:speech_to_speech."
        )
    return Source(manifest=manifest, task=task)


def _print_layers(load: "ExpertLoad") -> None:
    """For every layer the experts that speech prefers most, with the part of tokens that choose them."""
    from rich.table import Table

    from deeptalk.cli.output import console
    from deeptalk.experts.partition import audio_score

    rates = load.normalised("rate")
    score = audio_score(rates)
    for layer in range(rates.shape[1]):
        table = Table(title=f"mixture-of-experts layer {layer}", title_justify="left", box=None)
        for name in ("expert", "audio", "text", "score"):
            table.add_column(name, justify="right")
        for expert in score[layer].argsort(descending=True).tolist():
            figures = (rates[0, layer, expert], rates[1, layer, expert], score[layer, expert])
            table.add_row(str(expert), *(f"{float(value):.3f}" for value in figures))
        console().print(table)
