"""Running the pocket evaluation: the model's figures, its text backbone's, and the judge's own floor."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from deeptalk.backbone import open_backbone
from deeptalk.cli.opening import open_model
from deeptalk.cli.progress import bars
from deeptalk.data.domain.refusals import REFUSAL
from deeptalk.decoding import DecodingEngine, LoadedModel
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.metrics import Score
from deeptalk.evaluation.pocket import (
    Judges,
    PocketEvaluation,
    PocketReport,
    digit_recordings,
    judge_floor,
    open_judges,
)
from deeptalk.evaluation.questions import EvalSet
from deeptalk.files import write_text
from deeptalk.model import DeepTalk
from deeptalk.model.weights import model_folder

BACKBONE_FIGURE = "text_backbone.json"
"""Beside a model's weights: what its text backbone scored before any speech."""


def evaluate_pocket(
    *,
    model: str = "pocket",
    questions: Path | None = None,
    fsdd: Path | None = None,
    backbone: Path | None = None,
    voice: str = "rms",
    limit: int | None = None,
    has_judge: bool = True,
    out: Path | None = None,
) -> PocketReport:
    """All figures of a model; with ``backbone`` its figure is measured and noted beside the weights.

    Raises DeepTalkError before the first question where something given can't be read or written.
    """
    figure = model_folder(model) / BACKBONE_FIGURE
    if fsdd is not None:
        digit_recordings(fsdd)
    if backbone is not None:
        check_place(figure)
    if out is not None:
        check_place(out)
    loaded = open_model(model)
    if voice not in loaded.voices:
        raise ConfigError(f"No voice is called {voice!r}; this model has: {', '.join(loaded.voices)}.")
    asked = EvalSet(questions or Path(str(files("deeptalk"))) / "assets" / "evaluation")
    judges = open_judges(asked.folder) if has_judge else None
    bare = None if backbone is None else text_backbone(loaded, backbone)
    with bars() as show:
        run = PocketEvaluation(loaded, asked, voice=voice, limit=limit)
        report = run.run(
            judges=judges,
            fsdd=fsdd,
            refusal=REFUSAL,
            progress=lambda name, done, total: show("questions", done, total, name),
        )
    if bare is not None:
        _note_backbone(bare, asked, figure, voice=voice, limit=limit)
    _add_drop(report, figure, limit=limit)
    _add_floor(report, judges, asked, voice=voice, limit=limit)
    if out is not None:
        items = [dataclasses.asdict(item) for item in report.items]
        write_json(out, report.to_dict() | {"items": items})
    return report


def check_place(path: Path) -> None:
    """Make a file's folder; DataError where the file could not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error}).") from error
    if path.is_dir():
        raise DataError(f"{path}: can't be written, it is a folder; name a file.")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def text_backbone(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The model with another backbone; in text, where all other streams are zero, it is that backbone."""
    ours = loaded.model
    config = dataclasses.replace(ours.config, fusion="sum")
    other = DeepTalk(config, encoder=ours.encoder, backbone=open_backbone(folder), tokenizer=ours.tokenizer)
    return LoadedModel(engine=DecodingEngine(other), codec=loaded.codec)


def _note_backbone(bare: LoadedModel, asked: EvalSet, path: Path, *, voice: str, limit: int | None) -> None:
    run = PocketEvaluation(bare, asked, voice=voice, limit=limit)
    run.text_to_text()
    scores = {score.name: score.value for score in run.report.scores}
    write_json(path, {"scores": scores, "limit": limit})


def _add_drop(report: PocketReport, path: Path, *, limit: int | None) -> None:
    """Points that the model lost against its text backbone, if that was measured on the same questions."""
    name = "text_to_text/mean"
    ours = next(score for score in report.scores if score.name == name)
    if not path.is_file():
        report.not_run.append("text_to_text/drop (no --backbone DIR)")
        return
    noted = json.loads(path.read_text())
    if noted["limit"] != limit:
        report.not_run.append("text_to_text/drop (the backbone was asked other questions)")
        return
    drop = noted["scores"][name] - ours.value
    report.scores.append(
        Score(
            name="text_to_text/drop",
            value=drop,
            unit="points",
            count=ours.count,
            total=ours.total,
            low=drop,
            high=drop,
        )
    )


def _add_floor(
    report: PocketReport, judges: Judges | None, asked: EvalSet, *, voice: str, limit: int | None
) -> None:
    """How well the judge understands the synthesiser itself."""
    if judges is None:
        return
    if shutil.which("flite") is None:
        report.not_run.append("judge_floor (no flite)")
        return
    try:
        report.scores += judge_floor(judges, asked, voice=voice, limit=limit)
    except DataError as error:
        report.not_run.append(f"judge_floor ({error})")
