"""``deeptalk train``: one stage of training from its recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Compiled, Data, Dense, Json, Root, Shared
from deeptalk.errors import ConfigError

if TYPE_CHECKING:
    from deeptalk.training.loop import StepReport
    from deeptalk.training.recipe import Recipe


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe.", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Change a value of the recipe; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Delete an interrupted run and begin again.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A random model of tiny size and two steps.")] = False,
    recipes: Annotated[
        Path | None,
        typer.Option(
            "--recipes",
            metavar="F.py",
            help="A Python file with recipes of your own; it is run.",
            show_default=False,
        ),
    ] = None,
    root: Root = Path("build/pocket"),
    data: Data = None,
    compiled: Compiled = False,
    shared: Shared = False,
    dense: Dense = False,
    expert_parallel: Annotated[
        int,
        typer.Option(
            "--expert-parallel",
            metavar="N",
            min=1,
            help="Groups of N launched processes take the same batches and hold 1/N of the experts each.",
        ),
    ] = 1,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Train on where a full disk takes no checkpoint; it is told."),
    ] = False,
    text_baseline: Annotated[
        Path | None,
        typer.Option(
            "--text-baseline",
            metavar="DIR",
            help="The text backbone that --max-text-drop holds text against.",
            show_default=False,
        ),
    ] = None,
    max_text_drop: Annotated[
        float | None,
        typer.Option(
            "--max-text-drop",
            metavar="NATS",
            help="End the run where text has lost more, in nats of cross-entropy per token.",
            show_default=False,
        ),
    ] = None,
    text_set: Annotated[
        str, typer.Option("--text-set", metavar="NAME", help="Manifest of the texts that it is measured on.")
    ] = "text_eval",
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            metavar="F.png",
            help="Draw margins, accuracy and lengths of stage RL.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train one stage from its recipe.

    The result lands in ROOT/RECIPE/model, checkpoints and metrics in ROOT/RECIPE/run. Ctrl-C saves and ends;
    --resume goes on from there, bit for bit; --anew begins again. Without either, an interrupted run is
    left alone and a finished stage is trained again.
    """
    chosen = _find(recipe, recipes)
    from deeptalk.cli.training import is_first_process, train_stage
    from deeptalk.training.override import override
    from deeptalk.training.retention import TextBound

    chosen = override(chosen.tiny() if tiny else chosen, *(settings or []))
    _check_public(chosen, root)
    if figure is not None:
        _check_drawable(chosen, figure)
    if (max_text_drop is None) != (text_baseline is None):
        raise ConfigError("--max-text-drop and --text-baseline go together: so much, against that.")
    bound = None
    if max_text_drop is not None and text_baseline is not None:
        bound = TextBound(backbone=text_baseline, most=max_text_drop, manifest=text_set)
    last = train_stage(
        chosen,
        root=root,
        data=data or root / "data",
        resume=resume,
        anew=anew,
        compiled=compiled,
        shared=shared,
        dense=dense,
        expert_parallel=expert_parallel,
        keep_going=keep_going,
        text_bound=bound,
    )
    if figure is not None and is_first_process():
        from deeptalk.cli.figure import draw_preference
        from deeptalk.training.metrics import read_metrics
        from deeptalk.training.run import METRICS

        draw_preference(read_metrics(root / chosen.name / "run" / METRICS), figure)
    is_interrupted = last is not None and last.is_interrupted
    if is_first_process():
        _tell(chosen, root, last, json=json)
    if is_interrupted:
        raise typer.Exit(130)


def _tell(recipe: "Recipe", root: Path, last: "StepReport | None", *, json: bool) -> None:
    from deeptalk.cli.output import console, print_json

    is_interrupted = last is not None and last.is_interrupted
    result = root / recipe.name / ("run" if is_interrupted else "model")
    if json:
        values = {"step": last.step, "loss": last.loss, "rejected": dict(last.rejected)} if last else {}
        print_json({"recipe": recipe.name, **values, "is_interrupted": is_interrupted, "folder": str(result)})
    else:
        console().print(f"{'interrupted; --resume goes on from' if is_interrupted else 'done:'} {result}")
        if last is not None and last.rejected:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in last.rejected.items())
            console().print(f"samples left out: {reasons}")


def _check_drawable(recipe: "Recipe", figure: Path) -> None:
    """Refuse, before anything trains, a figure of another stage or one that can't be drawn."""
    from deeptalk.cli.figure import check_figure
    from deeptalk.training.preference import Preference

    if not isinstance(recipe.objective, Preference):
        raise ConfigError(f"--figure draws stage RL; recipe {recipe.name!r} learns no preferences.")
    check_figure(figure)


def _check_public(recipe: "Recipe", root: Path) -> None:
    """Refuse what starts from a public checkpoint that isn't there: no recipe makes it."""
    from deeptalk.recipes import PIPELINE

    for name in recipe.starts_from:
        folder = root / name / "model"
        if name in PIPELINE[0].starts_from and not folder.is_dir():
            raise ConfigError(
                f"recipe {recipe.name!r} starts from {name!r}, a public checkpoint, and {folder} is missing; "
                "put its folder, or a link to it, there (docs/large-runs.md)."
            )


def _find(name: str, own: Path | None) -> "Recipe":
    from difflib import get_close_matches

    from deeptalk.recipes import RECIPES

    recipes = RECIPES if own is None else read_recipes(own)
    if name not in recipes:
        near = get_close_matches(name, recipes, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no recipe {name!r}; {hint}Recipes are {', '.join(recipes)}.")
    return recipes[name]


def read_recipes(path: Path) -> "dict[str, Recipe]":
    """The recipes that a Python file holds, by name.

    Raises:
        ConfigError: it can't be run, holds none, or calls one like a recipe that is built in.
    """
    from runpy import run_path

    from deeptalk.recipes import RECIPES, Recipe

    if not path.is_file():
        raise ConfigError(f"there is no file {path}; examples/own_model.py shows what it may hold.")
    try:
        values = run_path(str(path)).values()
    except Exception as error:  # whatever somebody's own file may do
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{path} can't be run: {why}") from error
    built_in = set(map(id, RECIPES.values()))
    own = {id(value): value for value in values if isinstance(value, Recipe) and id(value) not in built_in}
    found = {recipe.name: recipe for recipe in own.values()}
    if len(found) < len(own):
        raise ConfigError(f"{path} calls two recipes the same; give each a name of its own.")
    if not found:
        raise ConfigError(f"{path} holds no recipe; examples/own_model.py shows what it may hold.")
    if taken := sorted(found.keys() & RECIPES.keys()):
        raise ConfigError(f"{path}: {taken[0]!r} is built in; give your recipe a name of its own.")
    return found
