"""``deeptalk export``: a model, or a part of it, for other programs."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json
from deeptalk.errors import ConfigError


class Form(StrEnum):
    """What is written."""

    TRANSFORMERS = "transformers"


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a model, or 'pocket'.", show_default=False)
    ],
    to: Annotated[
        Form, typer.Option("--to", help="The text side as a stock checkpoint.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder for it.", show_default=False)
    ],
    max_shard_size: Annotated[
        str, typer.Option("--max-shard-size", metavar="SIZE", help="Most bytes of a file: 500MB, 5GB.")
    ] = "5GB",
    json: Json = False,
) -> None:
    """Write a model for other programs.

    --to transformers is the text side alone: a stock mixture-of-experts checkpoint with tokenizer and chat
    template, which knows nothing of speech.
    """
    from dataclasses import asdict

    from deeptalk.cli.output import print_counts, print_json
    from deeptalk.model.text_side import export_text_side

    if not re.fullmatch(r"[1-9]\d*(KB|MB|GB)", max_shard_size):
        raise ConfigError(f"--max-shard-size must be like 500MB or 5GB, got {max_shard_size!r}.")
    written = asdict(export_text_side(model, out, max_shard_size=max_shard_size))
    if json:
        print_json({"to": to.value, **written})
    else:
        print_counts(written.pop("folder"), written, is_json=False)
