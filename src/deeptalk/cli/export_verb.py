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
    TORCH = "torch"
    ONNX = "onnx"


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a model, or 'pocket'.", show_default=False)
    ],
    to: Annotated[
        Form,
        typer.Option(
            "--to",
            help="The text side as a stock checkpoint; or encoder and codec as graphs.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder for it.", show_default=False)
    ],
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            "--max-shard-size",
            metavar="SIZE",
            help="Most bytes of a file of the text side: 500MB; 5GB.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a model for other programs.

    --to transformers is the text side alone: a stock mixture-of-experts checkpoint with tokenizer and chat
    template, which knows nothing of speech. --to torch and --to onnx are the encoder and the codec, as graphs
    that run without DeepTalk.
    """
    if to is not Form.TRANSFORMERS:
        if max_shard_size is not None:
            raise ConfigError("--max-shard-size is for --to transformers; a graph is one file.")
        _graphs(model, out, to, json=json)
        return
    from dataclasses import asdict

    from deeptalk.cli.output import print_counts, print_json
    from deeptalk.model.text_side import export_text_side

    size = max_shard_size or "5GB"
    if not re.fullmatch(r"[1-9]\d*(KB|MB|GB)", size):
        raise ConfigError(f"--max-shard-size must be like 500MB or 5GB, got {size!r}.")
    written = asdict(export_text_side(model, out, max_shard_size=size))
    if json:
        print_json({"to": to.value, **written})
    else:
        print_counts(written.pop("folder"), written, is_json=False)


def _graphs(model: str, out: Path, to: Form, *, json: bool) -> None:
    from dataclasses import asdict

    from deeptalk.cli.output import console, print_json
    from deeptalk.model.graphs import export_graphs

    graphs = export_graphs(model, out, form="onnx" if to is Form.ONNX else "torch")
    if json:
        print_json({"to": to.value, "folder": str(out), "graphs": [asdict(graph) for graph in graphs]})
        return
    for graph in graphs:
        told = "not compared" if graph.difference is None else f"{graph.difference:.1g} from the model"
        console().print(f"{out / graph.file}: {list(graph.input)} -> {list(graph.output)}, {told}")
