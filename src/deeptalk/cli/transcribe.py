"""``deeptalk transcribe``: what was said."""

from math import isnan
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json, Model, Recordings
from deeptalk.errors import AudioError


def transcribe(
    files: Recordings = None,
    longest: Annotated[
        float | None,
        typer.Option(
            "--longest",
            metavar="SECONDS",
            help="A FILE that is longer is split at its pauses. Unless given 30, and of a model that has "
            "learnt from single sentences one of them: of the built-in one 4, for a FILE over 6.",
            min=1.0,
            show_default=False,
        ),
    ] = None,
    model: Model = "pocket",
    json: Json = False,
) -> None:
    """Write down what is said in each FILE.

    A long FILE is split at its pauses, and its silent parts are left out. What can't be used is named on
    standard error with the reason; the others are still transcribed, and the exit status is 2.
    """
    if not files:
        raise typer.BadParameter("nothing to transcribe: give a FILE.")
    if longest is not None and isnan(longest):
        raise typer.BadParameter("--longest is a number of seconds, got nan.")
    from deeptalk.audio import audible_parts, load_waveform
    from deeptalk.cli.opening import open_model
    from deeptalk.cli.output import complain, console, print_json

    opened, has_failed = None, False
    for path in files:
        try:
            samples = load_waveform(path)
        except AudioError as error:
            complain(error)
            has_failed = True
            continue
        opened = opened or open_model(model)
        listener = opened.conversation()
        config = opened.model.config
        most = config.longest_part_seconds(len(samples) / config.mel.sample_rate)
        if longest is not None:
            most = min(longest, config.longest_clip_seconds)
        said = [listener.transcribe(part) for part in audible_parts(samples, longest_seconds=most)]
        text = " ".join(part for part in said if part)
        if json:
            print_json({"input": str(path), "text": text})
        else:
            console().print(f"{path}: {text}" if len(files) > 1 else text)
    if has_failed:
        raise typer.Exit(2)
