"""Data, stages and the shipped folder come in order, and an interrupted run goes on."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.decoding import load
from deeptalk.recipes import POCKET_PIPELINE

NAMES = [recipe.name for recipe in POCKET_PIPELINE]


@dataclass(frozen=True)
class Report:
    is_interrupted: bool


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> list[str]:
    """Notes what is made; the first attempt at the third stage is interrupted."""
    made: list[str] = []

    def prepare_text(folder: Path, **_: object) -> dict[str, float]:
        made.append("text")
        folder.mkdir(parents=True)
        (folder / "durations.json").write_text("{}")
        return {"items": 1}

    def prepare_speech(folder: Path, **_: object) -> dict[str, float]:
        made.append("speech")
        return {"questions": 0.5}

    def train_stage(recipe, *, root: Path, data: Path, resume: bool, compiled: bool) -> Report:
        assert resume
        assert not compiled
        assert data == root / "data"
        is_interrupted = recipe.name == NAMES[2] and NAMES[2] not in made
        made.append(recipe.name)
        if not is_interrupted:
            shutil.copytree(model_folder, root / recipe.name / "model", dirs_exist_ok=True)
            note = {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash}
            (root / recipe.name / "model" / "recipe.json").write_text(json.dumps(note))
        return Report(is_interrupted=is_interrupted)

    monkeypatch.setattr("deeptalk.data.pocket.prepare_text", prepare_text)
    monkeypatch.setattr("deeptalk.data.pocket.prepare_speech", prepare_speech)
    monkeypatch.setattr("deeptalk.cli.training.train_stage", train_stage)
    return made


def test_the_pocket_model_is_made_in_order(done, tmp_path):
    given = ["reproduce", "--root", str(tmp_path / "build"), "--no-evaluate"]
    assert CliRunner().invoke(app, given).exit_code == 130
    assert done == ["text", "speech", *NAMES[:3]]
    done.clear()
    done.append(NAMES[2])
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, (result.output, result.exception)
    assert done[1:] == ["speech", *NAMES]
    shipped = tmp_path / "build" / "pocket"
    assert load(shipped).voices
    with safe_open(shipped / "model.safetensors", framework="pt") as opened:
        assert {str(opened.get_tensor(name).dtype) for name in opened.keys()} == {"torch.float16"}  # noqa: SIM118
    history = json.loads((shipped / "stages.json").read_text())
    assert {name: note["recipe_hash"] for name, note in history["stages"].items()} == {
        recipe.name: recipe.hash for recipe in POCKET_PIPELINE
    }
    assert set(json.loads((tmp_path / "build" / "times.json").read_text())) == {"data", *NAMES}
