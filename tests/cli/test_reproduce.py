"""Data, stages and the shipped folder come in order, and an interrupted run goes on."""

import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.cli.pipeline import command_of
from deeptalk.decoding import load
from deeptalk.recipes import POCKET_PIPELINE
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
    given = ["reproduce", "--root", str(root), "--no-evaluate"]
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
    result = CliRunner().invoke(app, ["reproduce", "--root", root, "--no-evaluate", "--processes", "1"])
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
    result = CliRunner().invoke(app, ["reproduce", "--root", str(root), "--no-evaluate", "--processes", "1"])
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.output
    assert len(list(root.glob("saved-*"))) == 1
