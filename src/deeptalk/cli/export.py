"""From the last stage's result to the folder that ships: half precision, the same layout, its history."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deeptalk.codec import load_codec, save_codec
from deeptalk.model import load, save
from deeptalk.model.folder import PROVENANCE, TOKENIZER, read_json
from deeptalk.training.run import RECIPE

STAGES = "stages.json"
"""Beside the weights: recipe, hashes of data and of what came before, for every stage that led to them."""


def export(
    source: Path,
    target: Path,
    *,
    dtype: torch.dtype = torch.float16,
    sentence_seconds: float | None = None,
) -> None:
    """Write the result of a stage (`ROOT/NAME/model`) again with weights stored as ``dtype``.

    ``sentence_seconds`` notes how long the sentences are that it has learnt to hear, one at a time.
    """
    provenance, model = read_json(source / PROVENANCE), load(source)
    if sentence_seconds is not None:
        model.config = replace(model.config, sentence_seconds=sentence_seconds)
    save(model, target, tokenizer_path=source / TOKENIZER, provenance=provenance, dtype=dtype)
    save_codec(load_codec(source / "codec"), target / "codec", dtype=dtype)
    history = {"commit": _commit(), "stages": _stages(source)}
    (target / STAGES).write_text(json.dumps(history, indent=1) + "\n")


def _stages(result: Path) -> dict[str, Any]:
    """The notes of a stage and of all that it starts from, first to last, as far as they are kept."""
    if not (result / RECIPE).is_file():
        return {}
    note = read_json(result / RECIPE)
    stages: dict[str, Any] = {}
    for name in note["recipe"]["starts_from"]:
        stages |= _stages(result.parent.parent / name / result.name)
    return stages | {note["recipe"]["name"]: note}


def _commit() -> str | None:
    """The commit of the code that runs, where it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
