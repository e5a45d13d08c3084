"""The pocket model is made in order and interrupted runs go on; tables lack nothing, or it is run."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from typer.testing import CliRunner
from variant_files import write_run

from deeptalk.cli import app
from deeptalk.cli.jobs import Job
from deeptalk.cli.missing import missing_jobs
from deeptalk.cli.pipeline import command_of
from deeptalk.cli.reproduce import places_of
from deeptalk.decoding import load
from deeptalk.evaluation.benchmarks.report_schema import check_report
from deeptalk.evaluation.benchmarks.small_cells import CELL
from deeptalk.evaluation.benchmarks.small_tables import TABLE_7, TABLE_8
from deeptalk.recipes import POCKET_PIPELINE
from deeptalk.recipes.pocket import POCKET_SENTENCE_SECONDS
from deeptalk.training.recipe import Recipe

NAMES = [recipe.name for recipe in POCKET_PIPELINE]


STAGE = """
import json, os, shutil, sys
from pathlib import Path
name, folder, note, root = sys.argv[1:]
made = Path(root) / "made.txt"
is_new = not made.is_file() or name not in made.read_text()
with made.open("a") as file:
    file.write(f"{name} {os.environ.get('RANK', '-')}/{os.environ.get('WORLD_SIZE', '1')}\\n")
if name == "INTERRUPTED" and is_new:
    sys.exit(130)
if os.environ.get("RANK", "0") == "0":
    model = Path(root) / name / "model"
    shutil.copytree(folder, model, dirs_exist_ok=True)
    (model / "recipe.json").write_text(note)
"""
"""Stands for `deeptalk train`: notes what it was asked for and leaves a result."""


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> list[str]:
    """Notes what data are made; the first attempt at the fourth stage is interrupted."""
    made: list[str] = []

    def prepare_text(folder: Path, **_: object) -> dict[str, float]:
        made.append("text")
        folder.mkdir(parents=True)
        (folder / "durations.json").write_text("{}")
        return {"items": 1}

    def prepare_speech(folder: Path, **_: object) -> dict[str, float]:
        made.append("speech")
        return {"questions": 0.5}

    def command_of(recipe: Recipe, *, root: Path, compiled: bool, is_shared: bool) -> list[str]:
        assert not compiled
        assert is_shared == (recipe.accumulate > 1)
        note = {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "asked_hash": recipe.hash}
        script = STAGE.replace("INTERRUPTED", NAMES[3])
        return [sys.executable, "-c", script, recipe.name, str(model_folder), json.dumps(note), str(root)]

    monkeypatch.setattr("deeptalk.data.pocket.prepare_text", prepare_text)
    monkeypatch.setattr("deeptalk.data.pocket.prepare_speech", prepare_speech)
    monkeypatch.setattr("deeptalk.cli.pipeline.command_of", command_of)
    monkeypatch.setattr("deeptalk.cli.pipeline._POLL_SECONDS", 0.01)
    return made


def test_the_pocket_model_is_made_in_order(done, tmp_path):
    root = tmp_path / "build"
    given = ["reproduce", "--only", "model", "--root", str(root), "--no-evaluate"]
    assert CliRunner().invoke(app, given).exit_code == 130
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, (result.output, result.exception)
    assert done == ["text", "speech", "speech"]
    made = (root / "made.txt").read_text().splitlines()
    assert {line.split()[0] for line in made} == set(NAMES)
    assert made.count(f"{NAMES[3]} -/1") == 2
    for recipe in POCKET_PIPELINE:
        ranks = ["0/2", "1/2"] if recipe.accumulate > 1 else ["-/1"]
        assert {f"{recipe.name} {rank}" for rank in ranks} <= set(made)
        first = next(i for i, line in enumerate(made) if line.startswith(f"{recipe.name} "))
        for name in recipe.starts_from:
            assert max(i for i, line in enumerate(made) if line.startswith(f"{name} ")) < first
    shipped = tmp_path / "build" / "pocket"
    assert load(shipped).voices
    assert load(shipped).model.config.sentence_seconds == POCKET_SENTENCE_SECONDS
    with safe_open(shipped / "model.safetensors", framework="pt") as opened:
        assert {str(opened.get_tensor(name).dtype) for name in opened.keys()} == {"torch.float16"}  # noqa: SIM118
    history = json.loads((shipped / "stages.json").read_text())
    assert {name: note["recipe_hash"] for name, note in history["stages"].items()} == {
        recipe.name: recipe.hash for recipe in POCKET_PIPELINE
    }
    assert set(json.loads((tmp_path / "build" / "times.json").read_text())) == {"data", "training", *NAMES}


def test_a_stage_goes_on_by_the_verb_that_trains():
    name = POCKET_PIPELINE[-1].name
    verb = [sys.executable, "-m", "deeptalk", "train", name, "--resume", "--root", "there"]
    given = {"recipe": POCKET_PIPELINE[-1], "root": Path("there")}
    assert command_of(**given, compiled=False, is_shared=False) == verb
    assert command_of(**given, compiled=True, is_shared=True) == [*verb, "--compile", "--share"]


def test_a_stage_that_fails_names_its_log(done, monkeypatch, tmp_path):
    script = "import sys; print('no room on the disk'); sys.exit(1)"
    monkeypatch.setattr("deeptalk.cli.pipeline.command_of", lambda *_, **__: [sys.executable, "-c", script])
    root = str(tmp_path / "build")
    given = ["reproduce", "--only", "model", "--root", root, "--no-evaluate", "--processes", "1"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert f"stage '{NAMES[0]}' failed (exit 1)" in " ".join(result.output.split())
    assert "no room" in (tmp_path / "build" / NAMES[0] / "train.log").read_text()


def test_an_interruption_lets_the_stages_save(done, monkeypatch, tmp_path):
    script = """
import os, signal, sys, time
from pathlib import Path
root = Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (root / f"saved-{os.getpid()}").touch() or sys.exit(130))
os.kill(os.getppid(), signal.SIGINT)
time.sleep(60)
"""
    root = tmp_path / "build"
    monkeypatch.setattr(
        "deeptalk.cli.pipeline.command_of", lambda *_, **__: [sys.executable, "-c", script, str(root)]
    )
    given = ["reproduce", "--only", "model", "--root", str(root), "--no-evaluate", "--processes", "1"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.output
    assert len(list(root.glob("saved-*"))) == 1


TABLE_8_RUNS = ("pure-moe", "random-1", "random-2", "random-3", "adaptive", "loads-max")
VARIANT = """
import shutil, sys
from pathlib import Path
variant, seed, root, results = sys.argv[1:]
root, results = Path(root), Path(results)
with (root / "made.txt").open("a") as file:
    file.write(variant + "\\n")
once = root / "once"
if variant == "random-2" and not once.is_file():
    once.touch()
    sys.exit(130)
results.mkdir(parents=True, exist_ok=True)
shutil.copyfile(root / "ready" / f"{variant}.json", results / f"{variant}.json")
"""
"""Stands for `deeptalk.cli.varied`: notes what it was asked for and leaves figures."""


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """`reproduce` of table 8 with children that train nothing; a list that grows by what data were made."""
    made: list[str] = []

    def as_fake(job: Job) -> Job:
        assert job.command[1:3] == ("-m", "deeptalk.cli.varied")
        return replace(job, command=(sys.executable, "-c", VARIANT, *job.command[3:]))

    def fakes(*args: object, **named: object) -> list[Job]:
        return [as_fake(job) for job in missing_jobs(*args, **named)]  # pyright: ignore

    monkeypatch.setattr("deeptalk.cli.missing.missing_jobs", fakes)
    monkeypatch.setattr("deeptalk.cli.missing.prepare_data", lambda *_, **__: made.append("data"))
    monkeypatch.setattr("deeptalk.cli.jobs._POLL_SECONDS", 0.01)
    (tmp_path / "build").mkdir()
    for name in ("start", *TABLE_8_RUNS):
        write_run(tmp_path / "build" / "ready", name)
    return made


def places_in(folder: Path) -> list[str]:
    names = {"--root": "build", "--results": "results/pocket/runs", "--out": "results"}
    return [word for option, name in names.items() for word in (option, str(folder / name))]


def test_what_a_table_lacks_is_run_and_an_interrupted_run_goes_on(verb, tmp_path):
    given = ["reproduce", "--only", "table-8", "--json", "--processes", "1", *places_in(tmp_path)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 130, (result.output, result.exception)
    assert "the same command goes on from here" in result.stderr
    assert result.stdout == ""
    made = (tmp_path / "build" / "made.txt").read_text().split()
    assert made == ["start", "adaptive", "random-1", "random-2"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, (result.output, result.exception)
    made = (tmp_path / "build" / "made.txt").read_text().split()[len(made) :]
    # what all begin with has left figures, but no weights for the others to begin with
    assert made == ["start", "random-2", "random-3", "loads-max", "pure-moe"]
    assert verb == ["data", "data"]
    cells = [json.loads(line) for line in result.stdout.splitlines()]
    for cell in cells:
        check_report(cell, CELL)
        assert (cell["table"], cell["is_run"], cell["seeds"][:1]) == ("table-8", True, [1])
    assert len(cells) == len(TABLE_8.rows) * len(TABLE_8.columns)
    assert "not run" in (tmp_path / "results" / "pocket.md").read_text()
    assert (tmp_path / "results" / "pocket.html").stat().st_size < 500_000


def test_with_results_that_are_current_nothing_is_run(verb, tmp_path):
    for name in ("start", *TABLE_8_RUNS):
        write_run(tmp_path / "results" / "pocket" / "runs", name)
    given = ["reproduce", "--only", "table-8", "--resume", *places_in(tmp_path)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, (result.output, result.exception)
    assert not (tmp_path / "build" / "made.txt").exists()
    assert verb == []
    num_cells = len(TABLE_8.rows) * len(TABLE_8.columns)
    assert f"{num_cells} of {num_cells} cells filled" in result.output


def test_an_interruption_while_data_are_made_is_told_alike(verb, monkeypatch, tmp_path):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deeptalk.cli.missing.prepare_data", interrupted)
    result = CliRunner().invoke(app, ["reproduce", "--only", "table-8", *places_in(tmp_path)])
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.stderr


def test_results_of_other_recipes_are_run_anew(tmp_path):
    places = places_of(tmp_path / "results" / "pocket" / "runs")
    for name in ("start", "adaptive", "experts-6", "experts-9", "experts-12"):
        path = write_run(places.runs, name)
        if name == "experts-9":
            values = json.loads(path.read_text())
            values["stages"][-1]["recipe_values"]["seed"] += 1
            path.write_text(json.dumps(values))
    jobs = missing_jobs([TABLE_7], root=tmp_path, places=places, seeds=1)
    assert [job.name for job in jobs] == ["start", "experts-9"]
    assert [job.after for job in jobs] == [(), ("start",)]
    jobs = missing_jobs([TABLE_7], root=tmp_path, places=places, seeds=2)
    assert [job.name for job in jobs][1:3] == ["adaptive-seed-2", "experts-6-seed-2"]


def test_a_report_of_what_is_there_runs_nothing(verb, tmp_path):
    given = ["reproduce", "--no-run", "--only", "forgetting", *places_in(tmp_path)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, (result.output, result.exception)
    assert verb == []
    assert "0 of" in result.output


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--only", "table-88"], "did you mean 'table-8'?"),
        (["--only", "modle"], "did you mean 'model'?"),
        (["--only", "model", "--no-run"], "--no-run only reports"),
        (["--only", "model", "--json"], "--json lists the cells"),
        (["--size", "full"], "pocket"),
        (["--processes", "0"], "processes"),
        (["--seeds", "0"], "seeds"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(verb, tmp_path, given, told):
    result = CliRunner().invoke(app, ["reproduce", *given, *places_in(tmp_path)])
    assert result.exit_code == 2, (result.output, result.exception)
    assert told in result.output
    assert not (tmp_path / "results").exists()
    assert verb == []


def test_a_broken_file_of_results_is_named_before_anything_is_run(verb, tmp_path):
    runs = tmp_path / "results" / "pocket" / "runs"
    runs.mkdir(parents=True)
    (runs / "adaptive.json").write_text("{")
    result = CliRunner().invoke(app, ["reproduce", "--only", "table-8", *places_in(tmp_path)])
    assert result.exit_code == 2
    assert "adaptive.json" in " ".join(result.output.split()).replace(" ", "")
    assert verb == []
