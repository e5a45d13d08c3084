"""From the last stage's result to the folder that ships: half precision, the same layout."""

from pathlib import Path

import torch

from deeptalk.codec import load_codec, save_codec
from deeptalk.model import load, save
from deeptalk.model.folder import PROVENANCE, TOKENIZER, read_json


def export(source: Path, target: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a model's folder again with weights stored as ``dtype``; what it came from stays beside it."""
    provenance = read_json(source / PROVENANCE)
    save(load(source), target, tokenizer_path=source / TOKENIZER, provenance=provenance, dtype=dtype)
    save_codec(load_codec(source / "codec"), target / "codec", dtype=dtype)
