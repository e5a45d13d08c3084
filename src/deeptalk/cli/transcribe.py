"""``deeptalk transcribe``: what was said."""

from collections.abc import Iterator
from math import isnan
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json, Model, Recordings
from deeptalk.errors import AudioError

if TYPE_CHECKING:
    from deeptalk.shapes import Float, Tensor

LONGEST_SECONDS = 30.0
POCKET, POCKET_CLIP_SECONDS, POCKET_PART_SECONDS = "pocket", 6.0, 4.0
"""The built-in model learnt from single sentences, 99 % of them under 6 s: it gets no more at a time."""


def transcribe(
    files: Recordings = None,
    longest: Annotated[
        float | None,
        typer.Option(
            "--longest",
            metavar="SECONDS",
            help="A FILE that is longer is split at its pauses; 30 unless given. The built-in model, which "
            "learnt from single sentences, gets parts of 4 s of a FILE over 6 s.",
            min=1.0,
            show_default=False,
        ),
    ] = None,
    model: Model = POCKET,
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
    from deeptalk.audio import load_waveform
    from deeptalk.cli.opening import longest_clip_seconds, open_model
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
        seconds, most = len(samples) / opened.model.mel.sample_rate, longest or LONGEST_SECONDS
        if longest is None and model == POCKET and seconds > POCKET_CLIP_SECONDS:
            most = POCKET_PART_SECONDS
        most = min(most, longest_clip_seconds(opened.model))
        said = [listener.transcribe(part) for part in _audible_parts(samples, longest_seconds=most)]
        text = " ".join(part for part in said if part)
        if json:
            print_json({"input": str(path), "text": text})
        else:
            console().print(f"{path}: {text}" if len(files) > 1 else text)
    if has_failed:
        raise typer.Exit(2)


def _audible_parts(
    samples: "Float[Tensor, 'S']", *, longest_seconds: float
) -> "Iterator[Float[Tensor, '_']]":
    """Parts of a recording in which there is something to hear."""
    from deeptalk.audio import check_waveform, split_at_pauses

    for part in split_at_pauses(samples, longest_seconds=longest_seconds):
        try:
            check_waveform(part, name="part")
        except AudioError:  # silent, or the tenth of a second that was left
            continue
        yield part
