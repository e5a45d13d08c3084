"""The small form of `make kills`: a run that is killed in a save and between ends as one that was not."""

import json
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="processes are forked")
from kills import run_kills

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "kills.json"


@pytest.mark.slow
def test_kills_change_nothing(tmp_path: Path) -> None:
    outcome = run_kills(tmp_path, kills=3, in_saves=1, num_steps=24)
    assert outcome.kills >= 3
    assert outcome.kills_in_saves >= 1
    assert outcome.sha256 == outcome.expected
    assert any(name.endswith("states-00000-00000.safetensors") for name in outcome.sha256)


def test_the_long_form_was_run() -> None:
    """`make kills` wrote this, on the machine that it names."""
    told = json.loads(RESULT.read_text())
    assert told["is_equal"] is True
    assert told["kills"] >= 50
    assert told["kills_in_saves"] >= 20
    assert told["sha256"] == told["expected"]
