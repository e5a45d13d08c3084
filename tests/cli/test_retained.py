"""What speech cost of the text, from the command line, on the pocket domain and a random model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import deeptalk
from deeptalk.backbone.stock import stock_hash
from deeptalk.cli import app
from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks import lm_harness, report_schema
from deeptalk.evaluation.pocket import ItemResult, PocketEvaluation


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", "text", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    folder = tmp_path / "questions"
    folder.mkdir()
    lines = []
    for number in range(6):
        turn = {"role": "user", "text": f"{number}?", "voice": "v", "offset": 0.0, "duration": 0.5}
        messages = [turn, {"role": "assistant", "text": "yes"}]
        category = "facts" if number < 4 else "strings"
        lines.append(json.dumps({"id": f"q{number}", "category": category, "messages": messages}) + "\n")
    (folder / "questions.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def backbone(model_folder: Path, tmp_path: Path) -> Path:
    model = deeptalk.load(model_folder).model.backbone.model
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(-1)
    model.save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


@pytest.fixture
def told_apart(monkeypatch: pytest.MonkeyPatch) -> list[PocketEvaluation]:
    """The first model that is asked is right on three of six questions, the second on five."""
    runs: list[PocketEvaluation] = []

    def text_to_text(self: PocketEvaluation) -> None:
        runs.append(self)
        right = {"q0", "q1", "q4"} if len(runs) % 2 else {"q0", "q1", "q2", "q4", "q5"}
        for item in self._items("facts", "strings"):
            fields = dict(id=item.id, row="text_to_text", question="", answer="", given="")
            self.report.items.append(ItemResult(**fields, is_right=item.id in right))

    monkeypatch.setattr(PocketEvaluation, "text_to_text", text_to_text)
    return runs


def test_the_drop_of_every_category(questions, backbone, model_folder, told_apart, tmp_path):
    out = tmp_path / "new" / "text.json"
    given = ("--model", model_folder, "--baseline", backbone, "--questions", questions)
    lines = [json.loads(line) for line in run(*given, "--out", out, "--json").stdout.splitlines()]
    facts, strings, total = lines
    assert [(one["task"], one["model"]["count"], one["backbone"]["count"]) for one in (facts, strings)] == [
        ("facts/exact", 2, 3),
        ("strings/exact", 1, 2),
    ]
    assert (facts["difference"], facts["model"]["total"], facts["is_clear"]) == (-25.0, 4, False)
    assert total["of_means"] == pytest.approx(100 * (100 / 175 - 1))
    assert total["mean_of_task_drops"] == pytest.approx(-(100 / 3 + 50) / 2)
    assert (total["num_tasks"], total["engine"]["scorer"], total["limit"]) == (2, "own", None)
    assert total["about"]["model"] != total["backbone"]
    assert total["about"].keys() == report_schema.OF_MODEL.keys()
    assert total["about"]["weights"] == "random"
    assert (total["about"]["rows"], total["about"]["batch_size"], total["about"]["seed"]) == ("T", 16, None)
    assert (total["num_runaway"], total["num_missing"]) == ({"model": 0, "backbone": 0}, 0)
    assert json.loads(run(*given, "--json").stdout.splitlines()[-1])["backbone"] == total["backbone"]
    ours, bare = (run.loaded.model.backbone.lm_head.weight for run in told_apart[:2])
    assert torch.equal(ours, -bare)
    written = json.loads(out.read_text())
    assert written["tasks"][0]["items"] == {"model": [1, 1, 0, 0], "backbone": [1, 1, 1, 0]}
    assert {name: written[name] for name in total} == total
    report_schema.check_report(written, report_schema.TEXT_DROP)
    assert str(tmp_path) not in out.read_text()
    assert total["points"] == pytest.approx(-(25 + 50) / 2)
    run(*given, "--max-text-drop", 37.5)
    refused = run(*given, "--max-text-drop", 37.4, "--json", code=1)
    assert refused.stderr.splitlines()[-1] == "the text has lost 37.50 points; --max-text-drop allows 37.4."
    assert json.loads(refused.stdout.splitlines()[-1])["points"] == total["points"]
    shown = run(*given).stdout
    assert "facts/exact" in shown
    assert "2/4" in shown
    assert "of 2 means -42.86 %, task by task -41.67 %" in shown


@pytest.mark.usefixtures("told_apart")
def test_a_backbone_that_the_model_was_not_made_of_is_noticed(questions, backbone, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    given = ("--model", folder, "--baseline", backbone, "--questions", questions, "--json")

    def told(*options: str) -> bool | None:
        return json.loads(run(*given, *options).stdout.splitlines()[-1])["is_own_backbone"]

    assert told() is None  # a folder that does not tell
    note = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(note | {"backbone_hash": stock_hash(backbone)}))
    assert told() is True
    (folder / "provenance.json").write_text(json.dumps(note | {"backbone_hash": "0" * 16}))
    (line,) = run(*given, code=2).stderr.splitlines()
    assert "not the backbone that the model was made of" in line
    assert told("--other-backbone") is False


@pytest.mark.usefixtures("told_apart")
def test_a_backbone_without_a_right_answer_has_no_drop(questions, backbone, model_folder, tmp_path):
    text = (questions / "questions.jsonl").read_text().splitlines(keepends=True)
    (questions / "questions.jsonl").write_text(text[3])
    given = ("--model", model_folder, "--baseline", backbone, "--questions", questions)
    total = json.loads(run(*given, "--json").stdout.splitlines()[-1])
    assert (total["of_means"], total["num_tasks"]) == (None, 1)
    assert "of 1 means" not in run(*given).stdout


def test_the_harness_keeps_answers_by_model_and_length(backbone, model_folder, tmp_path, monkeypatch):
    kept: list[str] = []
    chats: list[bool] = []

    def run_tasks(
        model: object, tasks: list[str], *, cache: Path, is_chat: bool, **_: object
    ) -> dict[str, list[float]]:
        kept.append(cache.name)
        chats.append(is_chat)
        return {f"{tasks[0]}/acc": [1.0]}

    for name, stand_in in (("register", lambda: None), ("harness_version", lambda: "0")):
        monkeypatch.setattr(lm_harness, name, stand_in)
    monkeypatch.setattr(lm_harness, "run_tasks", run_tasks)
    given = ("--model", model_folder, "--baseline", backbone, "--task", "a", "--cache", tmp_path / "kept")
    for length in (32, 64, 32):
        run(*given, "--max-length", length)
    assert len(set(kept)) == 4
    assert kept[:2] == kept[4:]
    assert not any(chats)
    for options, template in (((), "raw"), (("--chat",), "chat")):
        total = json.loads(run(*given, *options, "--json").stdout.splitlines()[-1])
        assert total["engine"]["template"] == total["about"]["template"] == template
        assert len(total["engine"]["template_hash"]) == 16
    assert chats[-2:] == [True, True]


def test_mistakes_are_one_line_and_nothing_is_written(
    questions, backbone, model_folder, tmp_path, monkeypatch
):
    def register():
        raise ConfigError("no harness")

    monkeypatch.setattr(lm_harness, "register", register)
    out = tmp_path / "new" / "text.json"
    for options, complaint in (
        (("--baseline", tmp_path), "config.json"),
        (("--baseline", backbone, "--questions", tmp_path), "questions.jsonl"),
        (("--baseline", backbone, "--task", "mmlu"), "no harness"),
        (("--baseline", backbone, "--task", "mmlu", "--questions", questions), "leave it out, or --task"),
        (("--baseline", backbone, "--cache", tmp_path / "kept"), "name a --task too"),
        (("--baseline", backbone, "--run-unsafe-code"), "name a --task too"),
        (("--baseline", backbone, "--chat"), "name a --task too"),
        (("--baseline", backbone, "--out", "/proc/x/y"), "can't be written"),
    ):
        lines = run("--model", model_folder, "--out", out, *options, code=2).stderr.splitlines()
        assert len(lines) == 1, lines
        assert complaint in lines[0]
    assert not out.parent.exists()
