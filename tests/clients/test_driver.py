"""What the driver of the stock clients counts; the clients themselves run in ``make test-clients``."""

import json
import re
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import pytest
import run
import spoken

from deeptalk.cli.served import served
from deeptalk.evaluation.questions import EvalItem


def item(answer: str) -> EvalItem:
    return EvalItem(id=answer, category="facts", text_only=False, turns=(), answers=(answer,))


def converse(script: str, questions: list[EvalItem]) -> run.Outcome:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return run.converse(command, "openai-python", "manual", url="http://127.0.0.1:1/v1", questions=questions)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "BUILD", tmp_path)


def test_an_answer_counts_when_the_server_says_so_and_it_has_a_voice():
    lines = [
        {"turn": 0, "completed": True, "text": "It's five!", "seconds_of_audio": 0.2},
        {"turn": 1, "completed": True, "text": "four", "seconds_of_audio": 0.1},
        {"turn": 2, "completed": False, "text": "three", "seconds_of_audio": 0.9},
    ]
    script = f"print({chr(10).join(map(json.dumps, lines))!r})"
    outcome = converse(script, [item("it's five"), item("six"), item("three")])
    assert (outcome.asked, outcome.completed, outcome.right, outcome.trouble) == (3, 1, 2, "")
    assert [record["right"] for record in outcome.records] == [True, False, True]
    assert "completed  1 of 3  right  2 of 3" in run.row_of(outcome)
    assert outcome.version.startswith("openai==")
    told = ["client", "version", "turns", "asked", "completed", "right", "trouble", "records"]
    assert list(asdict(outcome)) == told
    assert set(outcome.records[0]) == {"turn", "completed", "text", "right", "seconds_of_audio"}


@pytest.mark.parametrize("given", [["nobody"], ["--count", "0"]])
def test_what_can_not_be_run_is_refused(given: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["run.py", *given])
    with pytest.raises(SystemExit) as left:
        run.main()
    assert left.value.code == 2


def test_a_client_that_fails_is_told_with_its_last_words():
    outcome = converse("raise RuntimeError('refused')", [item("five")])
    assert (outcome.asked, outcome.completed, outcome.right) == (1, 0, 0)
    assert outcome.trouble == "RuntimeError: refused"


def test_the_questions_are_of_every_category_and_can_be_read_back(tmp_path: Path):
    items = run.write_questions(tmp_path, count=7)
    assert [one.category for one in items[:2]] == [items[5].category, items[6].category]
    assert len({one.category for one in items}) == 5
    sounds = [spoken.read_wave(path) for path in sorted(tmp_path.glob("*.wav"))]
    for one, sound in zip(items, sounds, strict=True):
        assert len(sound) / (2 * spoken.RATE) == pytest.approx(one.turns[0].duration, abs=0.01)
        assert spoken.seconds_with_voice(sound) > 0.3
        assert spoken.seconds_with_voice(spoken.SILENCE) == 0


def test_every_client_is_pinned():
    for client in run.CLIENTS:
        folder = run.HERE / client
        if (folder / "requirements.txt").exists():
            lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
            assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
        else:
            assert re.fullmatch(r"\S+@\d+\.\d+\.\d+", run.version_of(client))
            assert (folder / "package-lock.json").exists()


@pytest.mark.slow
@pytest.mark.weights
def test_the_openai_package_asks_the_built_in_model(tmp_path: Path):
    """Its script as `make test-clients` runs it, in this environment: a question of every category."""
    pytest.importorskip("openai", reason="pip install openai to run it here; make test-clients has its own")
    questions = run.write_questions(tmp_path / "questions", count=5)
    script = [sys.executable, run.HERE / "openai-python" / "client.py"]
    with served(log=tmp_path / "serve.log") as url:
        base = url.replace("ws", "http", 1).removesuffix("/realtime")
        outcome = run.converse(script, "openai-python", "manual", url=base, questions=questions)
    assert outcome.trouble == ""
    assert outcome.completed == 5
    assert outcome.records[0]["right"]
