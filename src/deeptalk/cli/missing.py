"""What the paper's tables in small still lack, and running it."""

import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deeptalk.cli.jobs import Job, Progress, Show, run_jobs
from deeptalk.cli.pipeline import last_line
from deeptalk.cli.varied import START, results_file, stages_of

if TYPE_CHECKING:
    from deeptalk.evaluation.benchmarks.small_results import Places
    from deeptalk.evaluation.benchmarks.small_tables import Table

PARTS = ("questions", "reading", "answers", "aloud")
"""The parts of the speech that the variants train on."""

WITHOUT_DATA = ("cascade", "preference", "latency")
"""Jobs that begin with the shipped model and need none of the pocket model's data."""


def run_missing(
    tables: "Sequence[Table]",
    *,
    root: Path,
    places: "Places",
    seeds: int,
    processes: int,
    workers: int,
    show: Show,
) -> bool:
    """Make data, train and measure what some tables lack; False when interrupted."""
    jobs = missing_jobs(tables, root=root, places=places, seeds=seeds)
    if any(job.name not in WITHOUT_DATA for job in jobs):
        prepare_data(root / "data", workers=workers, show=show)
    return not jobs or run_jobs(jobs, processes=processes, show=show)


def missing_jobs(tables: "Sequence[Table]", *, root: Path, places: "Places", seeds: int) -> list[Job]:
    """A job for every run that a table names and whose results are missing or of other recipes."""
    from deeptalk.evaluation.benchmarks.small_results import read_all
    from deeptalk.recipes.variants import VARIANTS

    wanted = {name for table in tables for name in table.variants}
    trained = {name.removeprefix("load of ") for name in wanted}
    names = [name for name in VARIANTS if name in trained]
    found = read_all(places, (START, *VARIANTS), recipes_of=stages_of)
    done = {(run.name, run.seed) for group in found.values() for run in group if run.is_complete}
    lacking = [(name, n) for name in names for n in range(1, seeds + 1) if (name, n) not in done]
    if _needs_start(root, is_wanted=bool(names) or START in wanted, is_done=(START, 1) in done, more=lacking):
        lacking.insert(0, (START, 1))
    jobs = [_variant_job(name, seed, root, places.runs) for name, seed in lacking]
    return jobs + _measuring_jobs({name for name in wanted if not found.get(name)}, root, places)


def prepare_data(data: Path, *, workers: int, show: Show) -> None:
    """The texts and the parts of the speech that the variants train on, as far as they are missing."""
    from deeptalk.data.pocket import prepare_speech, prepare_text

    if not (data / "durations.json").is_file():
        prepare_text(data, workers=workers)
    if not all((data / f"{part}.jsonl").is_file() for part in PARTS):
        prepare_speech(data, workers=workers, parts=PARTS, progress=show)


def _needs_start(root: Path, *, is_wanted: bool, is_done: bool, more: Sequence[object]) -> bool:
    """What all variants begin with is measured, or trained again where a variant needs its weights."""
    from deeptalk.training.run import is_finished
    from deeptalk.training.stage import Places as StagePlaces

    places = StagePlaces(root=root, data=root / "data")
    has_weights = all(is_finished(recipe, places) for recipe in stages_of(START, 1))
    return is_wanted and (not is_done or (bool(more) and not has_weights))


def _variant_job(name: str, seed: int, root: Path, runs: Path) -> Job:
    label = results_file(runs, name, seed).stem
    recipes = stages_of(name, seed)
    return Job(
        name=label,
        command=(sys.executable, "-m", "deeptalk.cli.varied", name, str(seed), str(root), str(runs)),
        log=root / "logs" / f"{label}.log",
        after=() if name == START else (START,),
        progress=partial(_steps, [(r.num_steps, root / r.name / "run" / "metrics.jsonl") for r in recipes]),
    )


def _steps(stages: Sequence[tuple[int, Path]]) -> Progress:
    """Steps over all stages of a run, and the last loss."""
    done, note = 0, ""
    for _, metrics in stages:
        if line := last_line(metrics):
            last = json.loads(line)
            done, note = done + last["step"], f"{metrics.parents[1].name} loss {last['loss']:.3f}"
    return Progress(done=done, total=sum(number for number, _ in stages), note=note)


def _measuring_jobs(lacking: set[str], root: Path, places: "Places") -> list[Job]:
    """Jobs on the shipped model, each for the runs that it serves."""
    module, verb = (sys.executable, "-m"), (sys.executable, "-m", "deeptalk")
    runs = places.runs

    def job(name: str, *command: str, after: tuple[str, ...] = ()) -> Job:
        return Job(name=name, command=command, log=root / "logs" / f"{name}.log", after=after)

    cascade = job("cascade", *module, "deeptalk.cli.cascade", "pocket", str(runs / "cascade.json"))
    preference = job("preference", *module, "deeptalk.cli.preferred", str(root), str(runs))
    latency = ("eval", "latency", "--turns", "20", "--allow-busy", "--out", str(runs / "latency.json"))
    load = ("profile", "--data", str(root / "data"), "--batches", "8", "--out", str(runs / "load.json"))
    served = (
        ({"cascade"}, cascade),
        ({"top-k 1", "top-k 10", "dpo top-k 1", "dpo top-k 10"}, preference),
        ({"latency"}, job("latency", *verb, *latency)),
        ({"load of shipped"}, job("load", *verb, *load, "--figure", str(places.figure), after=(START,))),
    )
    return [one for names, one in served if names & lacking]


def keep_load(root: Path, places: "Places") -> None:
    """The load by which audio experts were chosen, beside the results."""
    from deeptalk.evaluation.benchmarks.small_results import START_LOAD
    from deeptalk.recipes.variants import ADAPTIVE_AUDIO

    load, kept = root / ADAPTIVE_AUDIO.name / "run" / "load.json", places.runs / f"{START_LOAD}.json"
    if load.is_file() and (not kept.is_file() or kept.stat().st_mtime < load.stat().st_mtime):
        places.runs.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(load, kept)
