"""``deeptalk doctor``: whether machine, model and data are in order."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json, Model


def doctor(
    given: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A folder or an id of the hub: a DeepTalk model, or a language model to make one of.",
            show_default=False,
        ),
    ] = None,
    model: Model = "pocket",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A folder of manifests to look at, too.")
    ] = None,
    families: Annotated[
        bool,
        typer.Option("--families", help="Take a tiny model of every supported family through the method."),
    ] = False,
    gpu_gib: Annotated[
        float | None,
        typer.Option(
            "--gpu-gib",
            metavar="GIB",
            min=0.1,
            help="Memory of a GPU that a language model's stages are to fit; this machine's unless given.",
            show_default=False,
        ),
    ] = None,
    num_gpus: Annotated[
        int | None,
        typer.Option(
            "--num-gpus",
            metavar="N",
            min=1,
            help="So many such GPUs; this machine's, or one.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Tell whether the machine, a model and data are in order.

    Exits with 2 if something is wrong; what only some verbs need may be absent.
    """
    from dataclasses import asdict, replace

    from deeptalk.cli.backbone_checks import Gpus, check_backbone, check_families, is_backbone
    from deeptalk.cli.checks import check_data, check_machine, check_model
    from deeptalk.cli.output import console, print_json

    name = given or model
    if families:
        findings = check_families()
    elif is_backbone(name):
        gpus = Gpus.here() if gpu_gib is None else Gpus(gib=gpu_gib)
        gpus = replace(gpus, number=num_gpus or gpus.number)
        findings = chain(check_machine(), check_backbone(name, gpus))
    else:
        findings = chain(check_machine(), check_model(name))
    is_wrong, screen = False, console()
    marks = {"ok": ("ok", "green"), "absent": ("-", "dim"), "wrong": ("!!", "red")}
    for finding in chain(findings, check_data(data) if data else ()):
        is_wrong = is_wrong or finding.state == "wrong"
        if json:
            print_json(asdict(finding))
        else:
            mark, style = marks[finding.state]
            screen.print(f"{mark:>2}  {finding.name:<29}{finding.detail}", style=style)
    if is_wrong:
        raise typer.Exit(2)
