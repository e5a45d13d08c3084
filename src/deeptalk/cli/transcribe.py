"""``deeptalk transcribe``: what was said."""

import typer

from deeptalk.cli.arguments import Json, Model, Recordings
from deeptalk.errors import AudioError

LONGEST_SECONDS = 30.0


def transcribe(files: Recordings = None, model: Model = "pocket", json: Json = False) -> None:
    """Write down what is said in each FILE.

    A FILE over 30 s is split at its pauses. What can't be used is named on standard error with the reason;
    the others are still transcribed, and the exit status is 2.
    """
    if not files:
        raise typer.BadParameter("nothing to transcribe: give a FILE.")
    from deeptalk.audio import load_waveform, split_at_pauses
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
        longest = min(LONGEST_SECONDS, longest_clip_seconds(opened.model))
        parts = [listener.transcribe(part) for part in split_at_pauses(samples, longest_seconds=longest)]
        text = " ".join(part for part in parts if part)
        if json:
            print_json({"input": str(path), "text": text})
        else:
            console().print(f"{path}: {text}" if len(files) > 1 else text)
    if has_failed:
        raise typer.Exit(2)
