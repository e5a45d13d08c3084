"""Running the pocket evaluation: the model's figures, its text backbone's, and the judge's own floor."""

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from deeptalk.cli.opening import open_model
from deeptalk.cli.output import finite
from deeptalk.cli.progress import bars
from deeptalk.data.domain.refusals import REFUSAL
from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError, DataError, reason
from deeptalk.evaluation.benchmarks.intervals import Ratios, paired_bootstrap
from deeptalk.evaluation.benchmarks.machine import device_name, git_hash
from deeptalk.evaluation.benchmarks.records import claimed, split_of
from deeptalk.evaluation.benchmarks.report_schema import RESULTS, check_report
from deeptalk.evaluation.benchmarks.text_model import text_backbone
from deeptalk.evaluation.metrics import Score
from deeptalk.evaluation.pocket import (
    Judges,
    PocketEvaluation,
    PocketReport,
    digit_recordings,
    judge_floor,
    open_judges,
)
from deeptalk.evaluation.pocket_progress import PocketProgress
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet
from deeptalk.files import digest_of, write_text
from deeptalk.model.identity import model_hash
from deeptalk.model.origin import origin_of
from deeptalk.model.weights import model_folder

BACKBONE_FIGURE = "text_backbone.json"
"""Beside a model's weights: what its text backbone scored before any speech."""

QUESTIONS = Path(str(files("deeptalk"))) / "assets" / "evaluation"
"""The folder of the built-in questions."""

_MEAN = "text_to_text/mean"


def evaluate_pocket(
    *,
    model: str = "pocket",
    questions: Path | None = None,
    fsdd: Path | None = None,
    backbone: Path | None = None,
    voice: str = "rms",
    limit: int | None = None,
    has_judge: bool = True,
    is_other: bool = False,
    out: Path | None = None,
    kept: Path | None = None,
) -> PocketReport:
    """All figures of a model; with ``backbone`` its figure is measured and noted beside the weights.

    ``is_other`` allows a backbone that the model was not made of, or that the noted figure is not of. Parts
    that have ended are kept in the file ``kept``, from which the same call goes on.

    Raises DeepTalkError before the first question where something given can't be read or written.
    """
    figure = model_folder(model) / BACKBONE_FIGURE
    if fsdd is not None:
        digit_recordings(fsdd)
    if backbone is not None:
        check_place(figure)
        is_own_backbone(model_folder(model), backbone, is_other=is_other)
    if out is not None:
        check_place(out)
    noted = None if backbone is not None else read_backbone_figure(figure)
    loaded = open_model(model)
    if voice not in loaded.voices:
        raise ConfigError(f"No voice is called {voice!r}; this model has: {', '.join(loaded.voices)}.")
    asked = EvalSet(questions or QUESTIONS)
    judges = open_judges(asked.folder) if has_judge else None
    bare = None if backbone is None else text_backbone(loaded, backbone)
    if bare is not None and not is_other:
        _check_noted(figure, model_hash(bare.model))
    run = PocketEvaluation(loaded, asked, voice=voice, limit=limit)
    about = about_model(loaded, model_folder(model)) | {
        "batch_size": run.respondent.batch_size,
        "template": "chat",
        "rows": "T S",
        "decoding": "greedy",
        "limits": dataclasses.asdict(run.respondent.options.limits),
        "questions": _digest(asked),
        "split": split_of(asked.folder.name),
        "voice": voice,
        "limit": limit,
        "judges": _about_judges(judges),
    }
    kept_parts = kept and PocketProgress(kept, claimed(about) | {"fsdd": fsdd and _names_of(fsdd)})
    with bars() as show:
        report = run.run(
            judges=judges,
            fsdd=fsdd,
            refusal=REFUSAL,
            progress=lambda name, done, total: show("questions", done, total, name),
            done=kept_parts and kept_parts.done,
            keep=kept_parts and kept_parts.keep,
        )
    if bare is not None:
        noted = _note_backbone(bare, asked, figure, voice=voice, limit=limit)
    _add_drop(report, noted, asked, limit=limit)
    _add_floor(report, judges, asked, voice=voice, limit=limit)
    if out is not None:
        items = [dataclasses.asdict(item) for item in report.items]
        about |= {"backbone": None, "backbone_score": None}
        if noted is not None:
            about |= {"backbone": noted["backbone"], "backbone_score": noted["scores"][_MEAN]}
        results = finite(report.to_dict() | {"about": about, "items": items})
        check_report(results, RESULTS)
        write_json(out, results)
    return report


def check_place(path: Path) -> None:
    """DataError where a file could not be written; its folder need not be there yet."""
    if path.is_dir():
        raise DataError(f"{path}: can't be written, it is a folder; name a file.")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error}).") from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file whole or not at all; numbers that JSON lacks become null."""
    write_text(path, json.dumps(finite(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_backbone_figure(path: Path) -> dict[str, Any] | None:
    """What was noted of a text backbone; None where nothing was, DataError where the file is broken."""
    if not path.is_file():
        return None
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return {
            "scores": {_MEAN: float(noted["scores"][_MEAN])},
            "limit": noted["limit"],
            "questions": noted.get("questions"),
            "backbone": noted.get("backbone"),
            "verdicts": dict(noted.get("verdicts", {})),
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no figure of a text backbone ({reason(error)}); measure it anew with --backbone DIR."
        ) from error


def is_own_backbone(folder: Path, baseline: Path, *, is_other: bool) -> bool | None:
    """Whether a model was made of the backbone in ``baseline``; None where its folder does not tell.

    Raises:
        ConfigError: it was made of another one, unless ``is_other`` says that this is meant.
    """
    told, given = origin_of(folder), origin_of(baseline)
    if told is None or given is None:
        return None
    if told != given and not is_other:
        raise ConfigError(
            f"{baseline}: not the backbone that the model was made of (weights {given}, not {told}); name "
            "that one, or say --other-backbone."
        )
    return told == given


def _check_noted(figure: Path, given: str) -> None:
    """ConfigError where a figure is noted of another backbone."""
    noted = read_backbone_figure(figure) if figure.is_file() else None
    if noted is not None and noted["backbone"] not in (None, given):
        raise ConfigError(
            f"{figure}: notes the figure of another backbone ({noted['backbone']}, this one is {given}); "
            "name that one, or say --other-backbone to measure against this one from now on."
        )


def about_model(loaded: LoadedModel, folder: Path) -> dict[str, Any]:
    """What tells a model from others and what computes, for a report: no path, since reports travel.

    The fields of `OF_MODEL`; those of how it is asked are null, for the caller to fill.
    """
    config = loaded.model.config
    experts = None if config.audio_experts is None else [list(layer) for layer in config.audio_experts]
    return {
        "name": folder.resolve().name,
        "model": model_hash(loaded.model),
        **_origin(folder, is_lossless=config.extra_experts is not None),
        "fusion": config.fusion,
        "routing": " ".join(f"{kind}:{bank}" for kind, bank in sorted(config.routing.items())),
        "partition": experts and sha256(json.dumps(experts).encode()).hexdigest()[:16],
        "adapter_stride": config.adapter.stride,
        "codec": digest_of(folder / "codec" / "model.safetensors"),
        "deeptalk": version("deeptalk"),
        "git": git_hash(),
        "device": device_name(loaded.model.device),
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "batch_size": None,
        "template": None,
        "template_hash": loaded.engine.layout.template.digest,
        **dict.fromkeys(("rows", "decoding", "seed", "limits")),
    }


def _origin(folder: Path, *, is_lossless: bool) -> dict[str, Any]:
    """Of a folder's weights their last stage, what it moved, and the preset; None for what is not told.

    ``weights`` are random where no recipe has trained them (``none``), partly random where the model was
    assembled and has had no stage: then what joins its parts is.
    """
    try:
        noted = dict(json.loads((folder / "provenance.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        noted = {}
    recipe, preset = noted.get("recipe"), noted.get("preset")
    told = recipe if isinstance(recipe, dict) else {"name": recipe}
    weights = None
    if recipe == "none":
        weights = "random"
    elif recipe or "converted_from" in noted:
        weights = "trained"
    elif "assembled_from" in noted:
        weights = "partly random"
    stage, trains = told.get("name"), told.get("trains")
    return {
        "weights": weights,
        "stage": stage and str(stage),
        "preset": "lossless" if is_lossless else preset and str(preset),
        "trains": trains if isinstance(trains, list) else None,
    }


def _names_of(folder: Path) -> str:
    """What tells one folder of digits from another."""
    names = [f"{path.name} {path.stat().st_size}" for path in digit_recordings(folder)]
    return sha256("\n".join(names).encode()).hexdigest()[:16]


def _about_judges(judges: Judges | None) -> dict[str, str] | None:
    return judges and {name: judge.hash for name, judge in judges.named()}


def _digest(asked: EvalSet) -> str | None:
    return digest_of(asked.folder / "questions.jsonl")


def _note_backbone(
    bare: LoadedModel, asked: EvalSet, path: Path, *, voice: str, limit: int | None
) -> dict[str, Any]:
    run = PocketEvaluation(bare, asked, voice=voice, limit=limit)
    run.text_to_text()
    noted = {
        "scores": {score.name: score.value for score in run.report.scores},
        "limit": limit,
        "questions": _digest(asked),
        "backbone": model_hash(bare.model),
        "verdicts": _verdicts(run.report),
    }
    write_json(path, noted)
    return noted


def _add_drop(
    report: PocketReport, noted: Mapping[str, Any] | None, asked: EvalSet, *, limit: int | None
) -> None:
    """Points that the model lost against its text backbone, if that was measured on the same questions.

    The interval draws questions for both at once; a figure that was noted without its verdicts has none.
    """
    if noted is None:
        report.not_run.append("text_to_text/drop (no --backbone DIR)")
        return
    # Early figures do not tell their questions: they are of the built-in ones.
    questions = noted["questions"] or digest_of(QUESTIONS / "questions.jsonl")
    if (noted["limit"], questions) != (limit, _digest(asked)):
        report.not_run.append("text_to_text/drop (the backbone was asked other questions)")
        return
    ours = next(score for score in report.scores if score.name == _MEAN)
    drop = noted["scores"][_MEAN] - ours.value
    low, high = _drop_interval(_verdicts(report), noted["verdicts"], asked) or (math.nan, math.nan)
    report.scores.append(
        Score(
            name="text_to_text/drop",
            value=drop,
            unit="points",
            count=ours.count,
            total=ours.total,
            low=low,
            high=high,
        )
    )


def _verdicts(report: PocketReport) -> dict[str, bool]:
    return {item.id: item.is_right for item in report.items if item.row == "text_to_text"}


def _drop_interval(
    ours: Mapping[str, bool], backbones: Mapping[str, bool], asked: EvalSet
) -> tuple[float, float] | None:
    """Every category weighs the same, as in the mean; None unless both were asked the same."""
    if ours.keys() != backbones.keys():
        return None
    category = {item.id: item.category for item in asked.of(*FIVE_CATEGORIES)}
    sizes = Counter(category[name] for name in ours)
    weights = {name: 1 / sizes[category[name]] for name in ours}

    def parts(verdicts: Mapping[str, bool]) -> Ratios:
        return [(weight * verdicts[name], weight) for name, weight in weights.items()]

    found = paired_bootstrap(parts(ours), parts(backbones))
    return 100 * found.low, 100 * found.high


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
