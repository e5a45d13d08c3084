"""The paper's load figures in numbers: what part of each modality's choices goes to a run's audio experts."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deeptalk.evaluation.benchmarks.small_runs import SHIPPED, Run, StageRun
from deeptalk.evaluation.metrics import Score
from deeptalk.experts.load import DATA_SETS, ExpertLoad


def load_runs(runs: Mapping[str, Sequence[Run]], load: ExpertLoad) -> dict[str, tuple[Run, ...]]:
    """For every run with a partition one of its name after "load of", whose scores are those parts."""
    found = {}
    for name, group in runs.items():
        kept = [(run, stage) for run in group for stage in run.stages if stage.audio_experts]
        shared = [
            replace(run, name=f"load of {name}", stages=(_shares(stage, load),), is_complete=True)
            for run, stage in kept[:1]  # other seeds choose from the same load
        ]
        if shared:
            found[f"load of {name}"] = tuple(shared)
    return found


def shipped_load(assets: Path, load: ExpertLoad) -> dict[str, tuple[Run, ...]]:
    """The same of the shipped model, whose partition stands in its configuration."""
    experts = json.loads((assets / "config.json").read_text(encoding="utf-8")).get("audio_experts")
    if experts is None:
        return {}
    stage = StageRun(name=SHIPPED, recipe_hash="", audio_experts=experts)
    return {f"load of {SHIPPED}": (Run(name=f"load of {SHIPPED}", stages=(_shares(stage, load),)),)}


def _shares(stage: StageRun, load: ExpertLoad) -> StageRun:
    counts = load.count.sum(dim=2)
    num_layers = counts.shape[1]
    layers = {
        "first": [0],
        "middle": [num_layers // 2],
        "last": [num_layers - 1],
        "all": list(range(num_layers)),
    }
    scores = {}
    for number, data_set in enumerate(DATA_SETS):
        for name, kept in layers.items():
            chosen = sum(int(counts[number, i, list(stage.audio_experts[i])].sum()) for i in kept)
            total = int(counts[number, kept].sum())
            key = f"{data_set}/{name}"
            scores[key] = Score(
                name=key,
                value=100 * chosen / total,
                unit="%",
                count=chosen,
                total=total,
                low=math.nan,
                high=math.nan,
            )
    return StageRun(name=stage.name, recipe_hash=stage.recipe_hash, scores=scores)
