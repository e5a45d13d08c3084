"""``deeptalk eval text``: what speech has cost of the text, task by task."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Json, Model
from deeptalk.cli.score import BootstrapSeed

if TYPE_CHECKING:
    from deeptalk.decoding import LoadedModel
    from deeptalk.evaluation.benchmarks.retention import TaskScores

MaxTextDrop = Annotated[
    float | None,
    typer.Option(
        "--max-text-drop",
        metavar="N",
        help="Exit with 1 where the text has lost more: points, of 100.",
        min=0,
    ),
]
OtherBackbone = Annotated[
    bool, typer.Option("--other-backbone", help="Allow a backbone that the model was not made of.")
]


def text(
    baseline: Annotated[
        Path,
        typer.Option(
            "--baseline", metavar="DIR", help="The text backbone before any speech, asked the same."
        ),
    ],
    model: Model = "pocket",
    other_backbone: OtherBackbone = False,
    max_drop: MaxTextDrop = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Task of lm-evaluation-harness; repeatable. The pocket domain else.",
        ),
    ] = None,
    task_folder: Annotated[
        Path | None, typer.Option("--task-folder", metavar="DIR", help="Tasks of your own, for the harness.")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions", metavar="DIR", help="Questions of the pocket domain; the built-in ones else."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="The first N items of each task only.", min=1)
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch", metavar="N", help="Texts of the harness at a time.", min=1)
    ] = 8,
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", metavar="N", help="Tokens the harness may show the model.", min=2),
    ] = None,
    runs_code: Annotated[
        bool,
        typer.Option(
            "--run-unsafe-code", help="Let tasks run what the model writes (HumanEval, MBPP); no sandbox."
        ),
    ] = False,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Put the harness's questions as turns of a dialogue, not as raw text."),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Keeps the harness's answers: a stopped run goes on."),
    ] = None,
    seed: BootstrapSeed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="F.json", help="A file for all figures and every verdict.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask a model and its untouched text backbone the same, in text, and print the drop of every task.

    Both run through the same code with the same prompts; the interval of a difference draws items in pairs.
    """
    from deeptalk.cli.evaluation import about_model, check_place, is_own_backbone, write_json
    from deeptalk.cli.opening import open_model
    from deeptalk.cli.output import console, finite, print_json
    from deeptalk.cli.progress import bars
    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.benchmarks.machine import git_hash
    from deeptalk.evaluation.benchmarks.report_schema import TEXT_DROP, check_report
    from deeptalk.evaluation.benchmarks.retention import mean_drop, retained
    from deeptalk.evaluation.benchmarks.text_model import text_backbone
    from deeptalk.model.identity import model_hash
    from deeptalk.model.weights import model_folder

    if tasks and questions is not None:
        raise ConfigError("--questions is of the pocket domain; leave it out, or --task.")
    if not tasks and ((task_folder or cache or max_length) is not None or runs_code or chat):
        raise ConfigError(
            "--task-folder, --max-length, --cache, --chat and --run-unsafe-code are for the harness; name a "
            "--task too."
        )
    if out is not None:
        check_place(out)
    if tasks:
        engine, asked, ask = _harness(
            tasks, task_folder, limit, batch_size, max_length, cache, runs_code=runs_code, is_chat=chat
        )
    else:
        engine, asked, ask = _own(questions, limit)
    is_own = is_own_backbone(model_folder(model), baseline, is_other=other_backbone)
    loaded = open_model(model)
    bare = text_backbone(loaded, baseline)
    scores, cut = [], []
    with bars() as show:
        for number, (name, one) in enumerate({"model": loaded, "backbone": bare}.items()):
            show("models", number, 2, name)
            of_one, num_cut = ask(one, lambda done, total, name=name: show(f"texts, {name}", done, total))
            scores.append(of_one)
            cut.append(num_cut)
        show("models", 2, 2)
    found = retained(*scores, seed=seed)
    drop = mean_drop(found)
    lost = -sum(one.difference.value for one in found) / len(found)
    total = {
        "kind": "text",
        "points": -lost,
        "of_means": drop and drop.of_means,
        "mean_of_task_drops": drop and drop.mean_of_sets,
        "num_tasks": len(found),
        "num_missing": 0,
        "num_runaway": dict(zip(("model", "backbone"), cut, strict=True)),
        "engine": engine | {"git": git_hash(), "template_hash": loaded.engine.layout.template.digest},
        "limit": limit,
        "about": about_model(loaded, model_folder(model)) | asked | {"rows": "T"},
        "backbone": model_hash(bare.model),
        "is_own_backbone": is_own,
    }
    ours, bares = scores
    items = [{"model": list(ours[one.task]), "backbone": list(bares[one.task])} for one in found]
    tasks_told = [one.to_dict() | {"items": of_one} for one, of_one in zip(found, items, strict=True)]
    check_report(finite(total | {"tasks": tasks_told}), TEXT_DROP)
    if out is not None:
        write_json(out, total | {"tasks": tasks_told})
    if json:
        for one in found:
            print_json(one.to_dict())
        print_json(total)
        check_drop(lost, max_drop)
        return
    screen = console()
    for one in found:
        left, right = (f"{s.value:>7.2f} {f'{s.count}/{s.total}':>12}" for s in (one.model, one.backbone))
        change = one.difference
        bounds = f"[{change.low:+.2f}, {change.high:+.2f}]{'' if change.is_clear else '  not clear'}"
        screen.print(f"{one.task:<34}{left}  from{right}  {change.value:>+7.2f}  {bounds}")
    if drop is not None:
        screen.print(f"of {len(found)} means {drop.of_means:+.2f} %, task by task {drop.mean_of_sets:+.2f} %")
    check_drop(lost, max_drop)


def check_drop(lost: float | None, most: float | None) -> None:
    """Leave with 1, in one line, where the text has lost more points than it may, or nobody knows."""
    import sys

    if most is None or (lost is not None and lost <= most):
        return
    told = "the drop was not measured" if lost is None else f"the text has lost {lost:.2f} points"
    print(f"{told}; --max-text-drop allows {most:g}.", file=sys.stderr)
    raise typer.Exit(1)


def _own(questions: Path | None, limit: int | None) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """The pocket domain's written questions: a task for each category, answers compared exactly.

    What scores, how it asks, and the asking itself: by task the scores, and how many answers were cut off.
    """
    from dataclasses import asdict

    from deeptalk.cli.evaluation import QUESTIONS
    from deeptalk.evaluation.answers import BATCH_SIZE, LIMITS
    from deeptalk.evaluation.benchmarks.records import split_of
    from deeptalk.evaluation.pocket import PocketEvaluation
    from deeptalk.evaluation.questions import EvalSet
    from deeptalk.files import digest_of

    asked = EvalSet(questions or QUESTIONS)

    def ask(loaded: "LoadedModel", progress: Callable[[int, int], None]) -> "tuple[TaskScores, int | None]":
        run = PocketEvaluation(loaded, asked, voice=loaded.voices[0], limit=limit)
        run.text_to_text()
        category = {item.id: item.category for item in asked.items}
        scores: dict[str, list[float]] = {}
        for item in run.report.items:
            scores.setdefault(f"{category[item.id]}/exact", []).append(float(item.is_right))
        return scores, run.report.num_runaway

    data = digest_of(asked.folder / "questions.jsonl")
    told = {"version": "1", "data": data, "split": split_of(asked.folder.name)}
    told |= {"normalizer": "plain-en 1", "template": "chat"}
    how = {"template": "chat", "decoding": "greedy", "batch_size": BATCH_SIZE, "limits": asdict(LIMITS)}
    return {"scorer": "own", **told}, how, ask


def _harness(
    tasks: list[str],
    folder: Path | None,
    limit: int | None,
    batch_size: int,
    max_length: int | None,
    cache: Path | None,
    *,
    runs_code: bool,
    is_chat: bool,
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Tasks of lm-evaluation-harness, as `_own` has them; ConfigError where it is not installed."""
    from deeptalk.evaluation.benchmarks.lm_harness import harness_version, register, run_tasks
    from deeptalk.evaluation.benchmarks.text_model import TextModel
    from deeptalk.model.identity import model_hash

    register()

    def ask(loaded: "LoadedModel", progress: Callable[[int, int], None]) -> "tuple[TaskScores, int | None]":
        model = TextModel(loaded.engine, batch_size=batch_size, max_positions=max_length, progress=progress)
        kept = None if cache is None else cache / f"{model_hash(loaded.model)}-{model.max_positions}"
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
        scores = run_tasks(
            model, tasks, folder=folder, limit=limit, cache=kept, runs_code=runs_code, is_chat=is_chat
        )
        return scores, None  # the harness does not tell

    template = "chat" if is_chat else "raw"
    told = {"version": harness_version(), "data": None, "split": None, "normalizer": None}
    told |= {"template": template}
    asked = {"template": template, "decoding": "by task", "batch_size": batch_size}
    asked |= {"limits": {"max_length": max_length}}
    return {"scorer": "lm-eval", **told}, asked, ask
