"""``deeptalk doctor``: whether machine, model and data are in order."""

from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json, Model


def doctor(
    model: Model = "pocket",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A folder of manifests to look at, too.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell whether the machine, a model and data are in order.

    Exits with 2 if something is wrong; what only some verbs need may be absent.
    """
    from dataclasses import asdict
    from itertools import chain

    from deeptalk.cli.checks import check_data, check_machine, check_model
    from deeptalk.cli.output import console, print_json

    is_wrong, screen = False, console()
    marks = {"ok": ("ok", "green"), "absent": ("-", "dim"), "wrong": ("!!", "red")}
    for finding in chain(check_machine(), check_model(model), check_data(data) if data else ()):
        is_wrong = is_wrong or finding.state == "wrong"
        if json:
            print_json(asdict(finding))
        else:
            mark, style = marks[finding.state]
            screen.print(f"{mark:>2}  {finding.name:<16}{finding.detail}", style=style)
    if is_wrong:
        raise typer.Exit(2)
