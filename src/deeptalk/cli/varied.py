"""One variant of the pocket stages, trained and measured stage by stage in a process of its own.

    python -m deeptalk.cli.varied VARIANT SEED ROOT RESULTS

Stages that are finished and measured are passed over; an interrupted one goes on. `RESULTS/VARIANT.json` is
written anew after each stage. Exit status 130 tells that it was interrupted.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deeptalk.cli.measured import EVERY

START = "start"
"""The run of what all variants begin with: text backbone and stage 1."""
PROCESSOR = "processor"
"""Processor seconds of a stage's training in `ROOT/RECIPE/times.json`, over its interruptions."""
TEXT_ONLY, ALL_PARTS = ("text",), ("text", "speech", "refusals")
_INTERRUPTED = 130
_LAST_PART = 0.1


def results_file(results: Path, variant: str, seed: int) -> Path:
    """Where a run's figures are kept."""
    return results / (f"{variant}.json" if seed == 1 else f"{variant}-seed-{seed}.json")


def read_results(path: Path) -> dict[str, Any] | None:
    """What a run has left, or None."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def stages_of(variant: str, seed: int) -> "Sequence[Any]":
    """The recipes of a run, in order."""
    from deeptalk.recipes.variants import BRIEF_ALIGN, BRIEF_TEXT, VARIANTS

    return (BRIEF_TEXT, BRIEF_ALIGN) if variant == START else VARIANTS[variant].seeded(seed).stages


def _is_of(stage: Mapping[str, Any], recipe: Any) -> bool:
    """Whether figures are those of a recipe, which may have gained settings with a default since."""
    return bool(recipe.makes_the_same_as(stage["recipe_values"]))


def is_measurable(recipe: Any) -> bool:
    """Whether a stage's result can be asked; a bare text backbone can't, and stage 1 answers as it does."""
    from deeptalk.training.parts import TextPart

    return not isinstance(recipe.model, TextPart)


def run(variant: str, seed: int, root: Path, results: Path) -> bool:
    """Train and measure what is missing; False when interrupted."""
    from deeptalk.cli.evaluation import write_json
    from deeptalk.cli.measured import measure
    from deeptalk.cli.shipped import lay_out_shipped
    from deeptalk.cli.times import Times
    from deeptalk.cli.training import train_stage
    from deeptalk.training.run import is_finished
    from deeptalk.training.stage import Places

    places, path = Places(root=root, data=root / "data"), results_file(results, variant, seed)
    lay_out_shipped(places)
    recipes = stages_of(variant, seed)
    before = read_results(path) or {"stages": []}
    known = {stage["recipe"]: stage for stage in before["stages"]}
    stages: list[dict[str, Any]] = []
    for recipe in recipes:
        kept = known.get(recipe.name)
        if kept is not None and _is_of(kept, recipe) and is_finished(recipe, places):
            stages.append(kept)
            continue
        times, started = Times(root / recipe.name / "times.json"), time.process_time()
        last = train_stage(recipe, root=root, data=places.data, resume=True)
        if last is not None:
            times.add(PROCESSOR, time.process_time() - started)
        if last is not None and last.is_interrupted:
            return False
        spent = times.seconds.get(PROCESSOR)  # None: trained by another command
        measured = None
        if is_measurable(recipe):
            parts = ALL_PARTS if recipe is recipes[-1] else TEXT_ONLY
            measured = measure(str(places.result(recipe.name)), parts)
        stages.append(_told(recipe, places, seconds=spent, measured=measured))
        write_json(path, _about(variant, seed) | {"stages": stages})
    return True


def _about(variant: str, seed: int) -> dict[str, Any]:
    from deeptalk.recipes.variants import VARIANTS

    about = "text backbone and stage 1, with the shipped encoder and codec"
    return {
        "variant": variant,
        "seed": seed,
        "about": about if variant == START else VARIANTS[variant].about,
        "every": EVERY,
        **about_machine(),
    }


def about_machine() -> dict[str, Any]:
    """When, where and by which code something was measured."""
    import torch

    from deeptalk.evaluation.benchmarks.machine import device_name, git_hash

    return {
        "commit": git_hash() or "",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"one core of {device_name(torch.device('cpu'))}",
        "torch": torch.__version__,
    }


def _told(
    recipe: Any, places: Any, *, seconds: float | None, measured: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is kept of a stage: its recipe, its cost, its last losses, its partition and its figures."""
    from deeptalk.training.metrics import read_metrics
    from deeptalk.training.run import METRICS

    lines = read_metrics(places.run(recipe.name) / METRICS)
    partition = places.run(recipe.name) / "partition.json"
    return {
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "recipe_values": recipe.to_dict(),
        "num_steps": recipe.num_steps,
        "positions": recipe.batch_size * recipe.accumulate * (recipe.num_steps or 0),
        "trainable_parameters": _trainable(recipe, places),
        "processor_minutes": None if seconds is None else round(seconds / 60, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "losses": _last_losses(lines),
        "partition": _partition(partition) if partition.is_file() else None,
        "measured": measured,
    }


def _trainable(recipe: Any, places: Any) -> int:
    """Parameters that the white list of a stage lets train."""
    from deeptalk.backbone import open_backbone
    from deeptalk.model.weights import load
    from deeptalk.training.trainable import freeze_all_but

    if not is_measurable(recipe):
        return sum(parameter.numel() for parameter in open_backbone(places.result(recipe.name)).parameters())
    model = load(places.result(recipe.name))
    if model.config.audio_experts is not None and model.config.extra_experts is None:
        model.split(model.is_audio())
    free = set(freeze_all_but(model, recipe.trains))
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in free)


def _last_losses(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the last tenth of the steps: samples that the stage has hardly seen before."""
    last = lines[-max(1, round(_LAST_PART * len(lines))) :]
    sums: dict[str, list[float]] = {}
    for line in last:
        for name, value in line["losses"].items():
            sums.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sums.items()}


def _partition(path: Path) -> dict[str, Any]:
    saved = json.loads(path.read_text())
    return {name: saved.get(name) for name in ("hash", "audio_experts", "options", "report")}


def main(arguments: Sequence[str]) -> None:
    """Run one variant; the arguments are its name, the seed's number, and the two folders."""
    variant, seed, root, results = arguments
    if not run(variant, int(seed), Path(root), Path(results)):
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
