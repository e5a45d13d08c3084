"""The encoder and the codec of the built-in model, as results of stages that others can start from."""

import json
import shutil
from pathlib import Path

from deeptalk.model.identity import model_hash
from deeptalk.model.weights import load, model_folder, save_encoder
from deeptalk.recipes.variants import SHIPPED_CODEC, SHIPPED_ENCODER
from deeptalk.training.checkpoint import write_folder
from deeptalk.training.run import RECIPE
from deeptalk.training.stage import Places


def lay_out_shipped(places: Places, *, model: str = "pocket") -> None:
    """Write both where a recipe that starts from `SHIPPED_ENCODER` and `SHIPPED_CODEC` finds them.

    What lies there already is left alone. Weights are as they ship, in half precision.
    """
    wanted = [name for name in (SHIPPED_ENCODER, SHIPPED_CODEC) if not places.result(name).is_dir()]
    if not wanted:
        return
    loaded, source = load(model), model_folder(model)
    note = {"taken_from": model, "model_hash": model_hash(loaded)}

    def write_encoder(folder: Path) -> None:
        save_encoder(loaded.encoder, folder, provenance=note)
        (folder / RECIPE).write_text(json.dumps(note, indent=1))

    def write_codec(folder: Path) -> None:
        for path in sorted((source / "codec").iterdir()):
            shutil.copyfile(path, folder / path.name)
        (folder / RECIPE).write_text(json.dumps(note, indent=1))

    for name, write in ((SHIPPED_ENCODER, write_encoder), (SHIPPED_CODEC, write_codec)):
        if name in wanted:
            write_folder(places.result(name), write)
