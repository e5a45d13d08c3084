"""The built-in model and its encoder and codec, as results of stages that others can start from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from deeptalk.model.identity import model_hash
from deeptalk.model.weights import load, model_folder, save_encoder
from deeptalk.recipes.preference import SHIPPED_MODEL
from deeptalk.recipes.variants import SHIPPED_CODEC, SHIPPED_ENCODER
from deeptalk.training.checkpoint import write_folder
from deeptalk.training.run import RECIPE
from deeptalk.training.stage import Places


def lay_out_shipped(places: Places, *, model: str = "pocket") -> None:
    """Write them where recipes that start from `SHIPPED_MODEL`, `_ENCODER` and `_CODEC` find them.

    What lies there already is left alone. Weights are as they ship, in half precision.
    """
    source = model_folder(model)
    loaded = load(model)
    note = {"taken_from": model, "model_hash": model_hash(loaded)}

    def copy(part: Path) -> Callable[[Path], None]:
        return lambda folder: shutil.copytree(part, folder, dirs_exist_ok=True) and None

    writers: dict[str, Callable[[Path], None]] = {
        SHIPPED_MODEL: copy(source),
        SHIPPED_ENCODER: lambda folder: save_encoder(loaded.encoder, folder, provenance=note),
        SHIPPED_CODEC: copy(source / "codec"),
    }
    for name, write in writers.items():
        if places.result(name).is_dir():
            continue

        def complete(folder: Path, write: Callable[[Path], None] = write) -> None:
            write(folder)
            (folder / RECIPE).write_text(json.dumps(note, indent=1))

        write_folder(places.result(name), complete)
