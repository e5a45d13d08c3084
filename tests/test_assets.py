"""What travels with the package is small, plain and complete."""

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest
from safetensors import safe_open

from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet

ASSETS = Path(str(files("deeptalk"))) / "assets"
POCKET, EVALUATION = ASSETS / "pocket", ASSETS / "evaluation"


@pytest.mark.weights
def test_the_model_is_nothing_but_tensors_and_text_of_at_most_32_mb():
    paths = [path for path in POCKET.rglob("*") if path.is_file()]
    assert {path.suffix for path in paths} == {".safetensors", ".json", ".md"}
    assert {str(path.relative_to(POCKET)) for path in paths if path.suffix == ".safetensors"} == {
        "model.safetensors",
        "codec/model.safetensors",
    }
    for path in paths:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    assert sum(path.stat().st_size for path in paths) <= 32_000_000


@pytest.mark.weights
def test_model_and_codec_have_at_most_fourteen_million_parameters():
    counts = []
    for path in (POCKET / "model.safetensors", POCKET / "codec" / "model.safetensors"):
        with safe_open(path, framework="pt") as opened:
            shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
        counts.append(sum(map(math.prod, shapes)))
    assert min(counts) > 1_000_000
    assert sum(counts) <= 14_000_000


def test_the_evaluation_asks_at_least_400_questions_of_five_categories_in_4_mb():
    items = EvalSet(EVALUATION).of(*FIVE_CATEGORIES)
    assert {item.category for item in items} == set(FIVE_CATEGORIES)
    assert len({item.id for item in items}) == len(items) >= 400
    assert 1_000_000 < (EVALUATION / "questions.opus").stat().st_size <= 4_000_000
