"""What was trained and measured for the paper's tables in small: one file per run, read for all tables alike.

A run is a variant with one seed of training, or something that was measured without training: the shipped
model, a cascade of its parts, a row of table 1.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deeptalk.errors import DataError, reason
from deeptalk.evaluation.metrics import Score, share_score

START, SHIPPED, SHIPPED_BACKBONE, CASCADE = "start", "shipped", "shipped-backbone", "cascade"
"""What all variants begin with; the shipped model and its text backbone; its parts one after the other."""

FLOOR = "floor"
"""The synthesiser that the answers were learnt from, as the judge hears it."""

TABLE_1, LATENCY, LOAD = "table-1", "latency", "load"
"""Files beside those of the runs: rows of table 1, times, and the shipped model's load."""

Verdicts = Mapping[str, bool]
RecipesOf = Callable[[str, int], Sequence[Any]]
"""The recipes of a variant and a seed as they stand now, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRun:
    """One stage: its recipe and cost, and its figures if it was measured."""

    name: str
    recipe_hash: str
    num_steps: int = 0
    positions: int = 0
    trainable_parameters: int = 0
    minutes: float | None = None
    peak_memory_mb: float | None = None
    audio_experts: Sequence[Sequence[int]] = ()
    scores: Mapping[str, Score] = field(default_factory=dict)
    verdicts: Mapping[str, Verdicts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The stages of a run whose recipes are those of today; ``stale`` names those that are not."""

    name: str
    seed: int = 1
    about: str = ""
    commit: str = ""
    when: str = ""
    hardware: str = ""
    stages: tuple[StageRun, ...] = ()
    is_complete: bool = True
    stale: tuple[str, ...] = ()

    @property
    def minutes(self) -> float | None:
        """Processor minutes of training in all stages whose time is known; None where none is."""
        return _sum(stage.minutes for stage in self.stages)

    @property
    def is_timed(self) -> bool:
        """Whether the time of every stage is known."""
        return all(stage.minutes is not None for stage in self.stages)

    @property
    def peak_memory_mb(self) -> float | None:
        """The most memory of any stage."""
        return max((s.peak_memory_mb for s in self.stages if s.peak_memory_mb is not None), default=None)

    @property
    def positions(self) -> int:
        """Positions that the run has trained on."""
        return sum(stage.positions for stage in self.stages)

    def stage(self, ending: str | None) -> StageRun | None:
        """The measured stage whose recipe's name ends so; None stands for the last one of a whole run."""
        if ending is None:
            return self.stages[-1] if self.is_complete and self.stages else None
        seed = f"-seed-{self.seed}"
        return next((one for one in self.stages if one.name.removesuffix(seed).endswith(ending)), None)


def read_runs(folder: Path, variants: Sequence[str], *, recipes_of: RecipesOf) -> dict[str, tuple[Run, ...]]:
    """The runs of some variants by name, one for each seed.

    A stage counts as long as its recipe and those before it give what those of today give.

    Raises:
        DataError: a file is no result of a run.
    """
    found = {}
    for name in variants:
        paths = {1: folder / f"{name}.json"}
        for path in sorted(folder.glob(f"{name}-seed-*.json")):
            paths[int(path.stem.rpartition("-")[2])] = path
        runs = [
            _run(path, name, seed, recipes_of(name, seed)) for seed, path in paths.items() if path.is_file()
        ]
        if runs:
            found[name] = tuple(runs)
    return found


def read_shipped(assets: Path, report: Path | None) -> dict[str, tuple[Run, ...]]:
    """The shipped model's figures and its text backbone's; single verdicts from its full report, if given."""
    figures, bare = _read(assets / "evaluation.json"), _read(assets / "text_backbone.json")
    try:
        history = _read(assets / "stages.json")
        stage = list(history["stages"].values())[-1]
        commit, recipe_hash = str(history.get("commit") or ""), str(stage["recipe_hash"])
        ids = bare.get("verdicts", {})
        verdicts = {} if report is None else _verdicts_of_report(_read(report), list(ids))
        whole = StageRun(
            name=SHIPPED, recipe_hash=recipe_hash, scores=_scores(figures["scores"]), verdicts=verdicts
        )
        backbone = StageRun(
            name=SHIPPED_BACKBONE,
            recipe_hash="",
            scores={name: _bare_score(name, value, ids) for name, value in bare["scores"].items()},
            verdicts={"text_to_text": ids},
        )
        about = {"commit": commit}
        return {stage.name: (_measured_run(stage, about),) for stage in (whole, backbone)}
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{assets}: the shipped model's figures can't be read ({reason(error)}); measure it with "
            "`deeptalk eval pocket --out`."
        ) from error


def shipped_hash(assets: Path) -> str:
    """What tells the shipped model from others."""
    return str(_read(assets / "evaluation.json").get("about", {}).get("model", ""))


def read_measured(path: Path, name: str, *, model: str) -> tuple[Run, ...]:
    """What was measured of the model of that hash; empty where the file is missing or of another model."""
    values = _read(path) if path.is_file() else {}
    about = values.get("about")
    if not isinstance(about, Mapping) or about.get("model") != model:
        return ()
    stage = StageRun(
        name=name,
        recipe_hash=f"model {model}",
        scores=_scores(values.get("scores", {})),
        verdicts=values.get("verdicts", {}),
    )
    return (_measured_run(stage, about),)


def read_rows(path: Path, *, model: str) -> dict[str, tuple[Run, ...]]:
    """The rows of table 1, named ``top-k N`` and ``dpo top-k N`` whatever the model is called, and the floor.

    A score is named by its list, for example ``answers/own_wer/bigram``. Rows of another model than that of
    the hash ``model`` say so in ``about``.
    """
    if not path.is_file():
        return {}
    values = _read(path)
    found: dict[str, tuple[Run, ...]] = {}
    try:
        for label, row in values["rows"].items():
            name = ("dpo " if "dpo" in label.lower() else "") + label[label.index("top-k") :]
            scores: dict[str, Score] = {}
            for part in ("answers", "hard"):
                scores |= _list_scores(part, row.get(part) or {})
            about = row.get("about") or {}
            after = (values.get("preference") or {}) if name.startswith("dpo") else {}
            stage = StageRun(
                name=name,
                recipe_hash=after.get("recipe_hash") or f"model {about.get('model')}",
                scores=scores,
                minutes=after.get("processor_minutes"),
                peak_memory_mb=after.get("peak_memory_mb"),
            )
            told = _pairs_told(after) if after else ""
            if not name.startswith("dpo") and about.get("model") != model:
                told = f"weights of {str(about.get('when'))[:10]}, which shipped before"
            found[name] = (replace(_measured_run(stage, about), about=told),)
        floor = {}
        for part, kept in (values.get("floor") or {}).items():
            floor |= _scores(
                {f"{part}/target_{name.removeprefix('floor_')}": one for name, one in kept.items()}
            )
        if floor:
            found[FLOOR] = (_measured_run(StageRun(name=FLOOR, recipe_hash="", scores=floor), {}),)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path}: no rows of table 1 ({reason(error)}); move it away to measure anew."
        ) from error
    return found


def _pairs_told(preference: Mapping[str, Any]) -> str:
    """What DPO had to learn from, and whether it holds for pairs that it has not seen."""
    held_out, trained = sorted(preference["pairs"].values(), key=lambda made: made["num_prompts"])
    discarded = ", ".join(f"{reason} {count}" for reason, count in trained["discarded"].items())
    accuracy = preference["held_out"][-1]["accuracy"]
    return (
        f"{trained['num_prompts']:,} prompts gave {trained['num_pairs']} pairs (left out: {discarded}), "
        f"on which the loss fell from {preference['loss'][0]:.2f} to {preference['loss'][-1]:.2f}; of "
        f"{held_out['num_pairs']} pairs that it has not seen, it has the better one ahead in "
        f"{100 * accuracy:.0f} %, and by chance in 50"
    )


def read_latency(path: Path, *, model: str) -> tuple[Run, ...]:
    """The figures of ``deeptalk eval latency``; means, as the paper's are. Empty as in `read_measured`."""
    if not path.is_file():
        return ()
    values = _read(path)
    try:
        if values["about"]["model"] != model:
            return ()
        engine = values["engine"]
        scores = {
            name: _time(name, figures, unit)
            for name, figures, unit in (
                ("first_chunk", engine["first_chunk_ms"], "ms"),
                ("step", engine["step_ms"]["both"], "ms"),
                ("real_time_factor", engine["real_time_factor"], "x"),
            )
        }
    except (LookupError, TypeError) as error:
        raise DataError(f"{path}: no figures of `deeptalk eval latency --out` ({reason(error)}).") from error
    stage = StageRun(name=LATENCY, recipe_hash=f"model {model}", scores=scores)
    return (_measured_run(stage, values["about"]),)


def _run(path: Path, name: str, seed: int, recipes: Sequence[Any]) -> Run:
    values = _read(path)
    try:
        kept = list(values["stages"])
        current = [one for one, recipe in zip(kept, recipes, strict=False) if _is_current(one, recipe)]
        for number, (one, recipe) in enumerate(zip(kept, recipes, strict=False)):
            if not _is_current(one, recipe):  # what comes after has learnt from another model
                current = current[:number]
                break
        stages = tuple(map(_stage, current))
        return Run(
            name=name,
            seed=seed,
            about=str(values.get("about", "")),
            commit=str(values.get("commit", "")),
            when=str(values.get("when", "")),
            hardware=str(values.get("hardware", "")),
            stages=stages,
            is_complete=len(stages) == len(recipes) and bool(stages[-1].scores),
            stale=tuple(one["recipe"] for one in kept[len(current) :]),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path}: no results of a run ({reason(error)}); move it away to run it anew."
        ) from error


def _is_current(stage: Mapping[str, Any], recipe: Any) -> bool:
    """Whether a stage is of a recipe, which may have gained settings with a default since."""
    if stage["recipe"] != recipe.name:
        return False
    values = stage.get("recipe_values")
    return stage["recipe_hash"] == recipe.hash if values is None else recipe.makes_the_same_as(values)


def _stage(values: Mapping[str, Any]) -> StageRun:
    measured = values.get("measured") or {}
    return StageRun(
        name=values["recipe"],
        recipe_hash=values["recipe_hash"],
        num_steps=int(values.get("num_steps") or 0),
        positions=int(values.get("positions") or 0),
        trainable_parameters=int(values.get("trainable_parameters") or 0),
        minutes=values.get("processor_minutes") or None,  # 0: another command had trained it
        peak_memory_mb=values.get("peak_memory_mb"),
        audio_experts=(values.get("partition") or {}).get("audio_experts") or (),
        scores=_scores(measured.get("scores", {})),
        verdicts=measured.get("verdicts", {}),
    )


def _measured_run(stage: StageRun, about: Mapping[str, Any]) -> Run:
    """A run of its name that trained nothing; ``about`` tells by which code, when and on what."""
    commit, when, hardware = (str(about.get(key) or "") for key in ("commit", "when", "hardware"))
    return Run(name=stage.name, commit=commit, when=when, hardware=hardware, stages=(stage,))


def _verdicts_of_report(report: Mapping[str, Any], ids: Sequence[str]) -> dict[str, dict[str, bool]]:
    """Every question of a row is right that is not among its errors."""
    rows = ("text_to_text", "speech_to_text", "speech_to_speech/bigram")
    wrong = {row: {error["id"] for error in report["errors"] if error["row"] == row} for row in rows}
    return {row: {name: name not in wrong[row] for name in ids} for row in rows}


def _bare_score(name: str, value: float, verdicts: Verdicts) -> Score:
    """A figure that was noted without its count; the one of all questions is counted anew."""
    if name == "text_to_text/all" and verdicts:
        return share_score(name, sum(verdicts.values()), len(verdicts))
    return Score(name=name, value=value, unit="%", count=0, total=0, low=math.nan, high=math.nan)


def _time(name: str, figures: Mapping[str, Any], unit: str) -> Score:
    mean, number = figures["mean"], int(figures["n"])
    value = math.nan if mean is None else float(mean)
    return Score(name=name, value=value, unit=unit, count=number, total=number, low=math.nan, high=math.nan)


def _list_scores(name: str, values: Mapping[str, Any]) -> dict[str, Score]:
    scores = {f"{name}/{key}": score for key, score in values.get("scores", {}).items()}
    found = _scores(scores)
    if values.get("mean_frames") is not None:
        key, frames = f"{name}/mean_frames", float(values["mean_frames"])
        found[key] = Score(
            name=key, value=frames, unit="frames", count=0, total=0, low=math.nan, high=math.nan
        )
    return found


def _scores(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Score]:
    return {name: _score(name, value) for name, value in values.items()}


def _score(name: str, values: Mapping[str, Any]) -> Score:
    numbers = {
        key: math.nan if values.get(key) is None else float(values[key]) for key in ("value", "low", "high")
    }
    count, total = int(values.get("count") or 0), int(values.get("total") or 0)
    return Score(name=name, unit=values["unit"], count=count, total=total, **numbers)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no results that can be read ({error}).") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: no results, an object was expected.")
    return values


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
