"""``deeptalk say``: text read aloud."""

from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json, Model, Seed, Temperature, TopK, Voice


def say(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is read aloud.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", metavar="F.wav", help="The file that is written.", show_default=False)
    ],
    voice: Voice = None,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    model: Model = "pocket",
    json: Json = False,
) -> None:
    """Read TEXT aloud into a sound file."""
    if not text.strip():
        raise typer.BadParameter("TEXT is empty: there is nothing to read.")
    from deeptalk.audio import sound_format
    from deeptalk.cli.opening import drawing, open_model
    from deeptalk.cli.spoken import speak, tell

    sound_format(out)  # refused before the work
    options = drawing(temperature=temperature, top_k=top_k)
    reader = open_model(model).conversation(voice=voice, seed=seed, options=options)
    audio = speak(reader.read_aloud(text), path=out, sample_rate=reader.sample_rate, is_json=json)
    tell(text, audio, reader.last_reply, is_json=json)
