"""Rows of table 1 in small: a model reads two lists aloud, greedily and drawn, and two judges listen.

    python -m deeptalk.cli.aloud MODEL LABEL F.json

Adds the rows ``LABEL top-k 1`` and ``LABEL top-k 10`` to the file, and the floor where flite is installed.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from deeptalk.cli.evaluation import QUESTIONS, about_model, write_json
from deeptalk.cli.opening import open_model
from deeptalk.cli.varied import about_machine
from deeptalk.evaluation.aloud import Aloud, aloud_floor, answer_texts, hard_texts, read_aloud
from deeptalk.evaluation.metrics import Score
from deeptalk.evaluation.pocket import open_judges
from deeptalk.evaluation.questions import EvalSet
from deeptalk.model.weights import model_folder

VOICE = "rms"
TOP_KS = (1, 10)


def add_rows(model: str, label: str, path: Path) -> None:
    """Measure one model on both lists and write the file anew."""
    table: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": {}, "floor": {}}
    loaded, judges = open_model(model), open_judges(QUESTIONS)
    lists = {"answers": answer_texts(EvalSet(QUESTIONS)), "hard": hard_texts()}
    if not table["floor"] and shutil.which("flite") is not None:
        table["floor"] = {
            name: _by_name(aloud_floor(texts, judges, voice=VOICE)) for name, texts in lists.items()
        }
    for top_k in TOP_KS:
        row = {
            name: _told(read_aloud(loaded, texts, judges, top_k=top_k, voice=VOICE))
            for name, texts in lists.items()
        }
        about = about_model(loaded, model_folder(model)) | about_machine()
        table["rows"][f"{label} top-k {top_k}"] = row | {"about": about}
        write_json(path, table)


def _told(aloud: Aloud) -> dict[str, Any]:
    return {
        "scores": _by_name(aloud.scores),
        "mean_frames": aloud.mean_frames,
        "num_runaway": aloud.num_runaway,
    }


def _by_name(scores: Iterable[Score]) -> dict[str, Any]:
    return {score.name: score.to_dict() for score in scores}


def main(arguments: Sequence[str]) -> None:
    """Measure; the arguments are the model, what its rows are called, and the file."""
    model, label, path = arguments
    add_rows(model, label, Path(path))


if __name__ == "__main__":
    main(sys.argv[1:])
