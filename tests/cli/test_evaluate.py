"""The evaluation from the command line, on four questions and a random model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import deeptalk
from deeptalk.cli import app
from deeptalk.cli.evaluation import _drop_interval, _origin, write_json
from deeptalk.cli.targets import TARGETS, table_rows
from deeptalk.decoding import Limits
from deeptalk.evaluation.answers import Respondent
from deeptalk.evaluation.benchmarks.text_model import text_backbone
from deeptalk.evaluation.metrics import share_score
from deeptalk.evaluation.pocket import PocketEvaluation
from deeptalk.evaluation.questions import EvalSet
from deeptalk.files import digest_of
from deeptalk.model.identity import model_hash

ITEMS = [
    ("facts", True, ["what is the capital of France"], ["Paris"]),
    ("arithmetic", False, ["two and two"], ["four"]),
    ("refusal", False, ["who won the match"], ["Sorry, I don't know that."]),
    ("dialogue", False, ["capital of Spain", "and of Italy"], ["Madrid", "Rome"]),
]


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    short = Limits(max_frames=2, max_text_tokens=3)
    monkeypatch.setattr("deeptalk.evaluation.answers.LIMITS", short)
    folder, lines, at = tmp_path / "questions", [], 0.0
    folder.mkdir()
    for number, (category, text_only, asked, answers) in enumerate(ITEMS):
        messages = []
        for text, answer in zip(asked, answers, strict=True):
            messages.append({"role": "user", "text": text, "voice": "none", "offset": at, "duration": 0.5})
            messages.append({"role": "assistant", "text": answer})
            at += 0.6
        entry = {"id": str(number), "category": category, "text_only": text_only, "messages": messages}
        lines.append(json.dumps(entry) + "\n")
    (folder / "questions.jsonl").write_text("".join(lines))
    wave = 0.2 * np.random.default_rng(0).standard_normal(round(at * 16_000))
    soundfile.write(folder / "questions.opus", wave, 16_000, format="OGG", subtype="OPUS")
    return folder


@pytest.mark.usefixtures("short_answers")
def test_every_figure_that_can_be_measured_is(questions, model_folder, tmp_path):
    out = tmp_path / "results" / "all.json"
    given = ("eval", "pocket", "--model", model_folder, "--questions", questions, "--no-judge", "--out", out)
    report = json.loads(run(*given, "--json").stdout)
    measured = {
        "text_to_text/mean",
        "speech_to_text/all",
        "transcription_wer",
        "refused_outside",
        "follow_up",
    }
    assert measured <= set(report["scores"])
    assert "real_digits (no --fsdd DIR)" in report["not_run"]
    assert list(out.parent.iterdir()) == [out]
    saved = json.loads(out.read_text())
    assert saved["about"]["model"] == model_hash(deeptalk.load(model_folder).model)
    assert (saved["about"]["voice"], saved["about"]["limit"], saved["about"]["judges"]) == ("rms", None, None)
    assert (saved["about"]["stage"], saved["about"]["dtype"]) == ("none", "float32")
    assert (saved["about"]["routing"], saved["about"]["partition"]) == ("audio:all text:all", None)
    assert saved["about"]["questions"] == digest_of(questions / "questions.jsonl")
    assert str(tmp_path) not in out.read_text()
    assert saved["scores"] == report["scores"]
    assert {item["row"] for item in saved["items"]} >= {"speech_to_text", "transcription", "follow_up"}
    table = run(*given).stdout
    assert "not run" in table
    assert "speech to text, exact" in table


@pytest.mark.usefixtures("short_answers")
def test_the_drop_is_measured_once_and_kept(questions, model_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    backbone = deeptalk.load(folder).model.backbone.model
    backbone.save_pretrained(tmp_path / "backbone")
    given = ("eval", "pocket", "--model", folder, "--questions", questions, "--no-judge", "--json")
    first = json.loads(run(*given, "--backbone", tmp_path / "backbone").stdout)
    assert first["scores"]["text_to_text/drop"]["value"] == 0.0
    noted = json.loads((folder / "text_backbone.json").read_text())
    assert noted["scores"]["text_to_text/mean"] == first["scores"]["text_to_text/mean"]["value"]
    assert json.loads(run(*given, "--max-text-drop", 0).stdout)["scores"]["text_to_text/drop"]["value"] == 0.0
    unknown = run(*given, "--limit", 1, "--max-text-drop", 3, code=1)
    assert unknown.stderr.splitlines()[-1] == "the drop was not measured; --max-text-drop allows 3."
    assert first["scores"]["text_to_text/drop"]["low"] == first["scores"]["text_to_text/drop"]["high"] == 0.0
    other = json.loads(run(*given, "--limit", 1).stdout)
    assert "text_to_text/drop" not in other["scores"]
    with torch.no_grad():
        backbone.get_output_embeddings().weight.mul_(-1)
    backbone.save_pretrained(tmp_path / "other")
    refused = run(*given, "--backbone", tmp_path / "other", code=2)
    assert "notes the figure of another backbone" in refused.stderr.splitlines()[-1]
    assert json.loads((folder / "text_backbone.json").read_text()) == noted
    (folder / "text_backbone.json").write_text(json.dumps(noted | {"verdicts": {}}))
    assert json.loads(run(*given).stdout)["scores"]["text_to_text/drop"]["low"] is None
    lines = (questions / "questions.jsonl").read_text().splitlines(keepends=True)
    (questions / "questions.jsonl").write_text("".join(lines[:2]))
    asked_nothing = json.loads(run(*given).stdout)["scores"]["refused_outside"]
    assert (asked_nothing["value"], asked_nothing["total"]) == (None, 0)
    (questions / "questions.jsonl").write_text("".join(lines))
    (questions / "questions.jsonl").write_text((questions / "questions.jsonl").read_text() + "\n")
    assert (
        "text_to_text/drop (the backbone was asked other questions)"
        in json.loads(run(*given).stdout)["not_run"]
    )
    (folder / "text_backbone.json").write_text('{"scores": {}}')
    monkeypatch.setattr(PocketEvaluation, "run", lambda *_, **__: pytest.fail("a question was asked"))
    (line,) = run(*given, code=2).stderr.splitlines()
    assert "text_backbone.json: no figure of a text backbone" in line


@pytest.mark.parametrize(
    ("note", "weights"),
    [
        ('{"recipe": {"name": "joint"}, "assembled_from": {}}', "trained"),
        ('{"converted_from": "x"}', "trained"),
        ('{"assembled_from": {"seed": 0}}', "partly random"),
        ('{"recipe": "none"}', "random"),
        ("{}", None),
        ("[1]", None),
        ("broken", None),
    ],
)
def test_a_folder_tells_whether_its_weights_are_trained(tmp_path, note, weights):
    (tmp_path / "provenance.json").write_text(note)
    assert _origin(tmp_path, is_lossless=False)["weights"] == weights


@pytest.mark.usefixtures("short_answers")
def test_one_command_measures_and_reports(questions, model_folder, tmp_path):
    out = tmp_path / "report"
    given = ("eval", "pocket", "--model", model_folder, "--questions", questions, "--no-judge", "--json")
    told = json.loads(run(*given, "--report", out).stdout)
    report = json.loads((out / "report.json").read_text())
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert set(figures) == set(told["scores"])
    for name, figure in figures.items():
        assert (figure["count"], figure["total"]) == (
            told["scores"][name]["count"],
            told["scores"][name]["total"],
        )
        assert (figure["interval"] is None) == (figure["low"] is None)
    assert figures["first_audio_p50"]["interval"] in ("bootstrap", None)
    assert (report["about"]["weights"], report["about"]["split"]) == ("random", None)
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "report.md"]
    assert report["samples"]
    (tmp_path / "file").write_text("")
    (line,) = run(*given, "--report", tmp_path / "file" / "x", code=2).stderr.splitlines()
    assert "can't be written" in line


@pytest.mark.usefixtures("short_answers")
def test_an_interrupted_evaluation_goes_on_with_the_part_it_was_at(
    questions, model_folder, tmp_path, monkeypatch
):
    given = ("eval", "pocket", "--model", model_folder, "--questions", questions, "--no-judge", "--json")
    whole = json.loads(run(*given).stdout)["scores"]
    follow_ups, asked = PocketEvaluation.follow_ups, []

    def interrupted(self: PocketEvaluation) -> None:
        raise KeyboardInterrupt

    for name in ("text_to_text", "speech_to_speech", "transcription"):
        real = getattr(PocketEvaluation, name)
        monkeypatch.setattr(
            PocketEvaluation, name, lambda self, *given, real=real: asked.append(1) or real(self, *given)
        )
    monkeypatch.setattr(PocketEvaluation, "follow_ups", interrupted)
    out = tmp_path / "new" / "all.json"
    stopped = run(*given, "--out", out, code=130)
    assert stopped.stderr.splitlines()[-1] == f"interrupted; the same command goes on with {out.parent}"
    assert len(asked) == 3
    (kept,) = out.parent.iterdir()
    monkeypatch.setattr(PocketEvaluation, "follow_ups", follow_ups)
    (line,) = run(*given, "--out", out, "--limit", 1, code=2).stderr.splitlines()
    assert "of another model or of other settings" in line
    kept.write_bytes(kept.read_bytes() + b'{"part": "follow-ups", "sco')  # killed while it wrote
    scores = json.loads(run(*given, "--out", out).stdout)["scores"]
    assert len(asked) == 3
    assert list(out.parent.iterdir()) == [out]
    timed = {"first_audio_p50", "real_time_factor_p50"}
    assert scores.keys() == whole.keys()
    for name in scores.keys() - timed:
        assert scores[name] == whole[name]
    items = json.loads(out.read_text())["items"]
    assert len(items) == len({(item["row"], item["id"]) for item in items})
    kept.write_text('{"some": "file"}\n')
    (line,) = run(*given, "--out", out, code=2).stderr.splitlines()
    assert "not the progress of an evaluation" in line


def test_the_interval_of_the_drop_is_paired_and_every_category_weighs_the_same(questions):
    asked = EvalSet(questions)
    assert _drop_interval({"0": True, "1": False}, {"0": True}, asked) is None
    # One question a category: draws hold the lost one not at all, once or twice.
    assert _drop_interval({"0": True, "1": False}, {"0": True, "1": True}, asked) == (0.0, 100.0)
    assert _drop_interval({"0": False, "1": True}, {"0": True, "1": False}, asked) == (-100.0, 100.0)


@pytest.mark.usefixtures("short_answers")
def test_a_model_in_text_is_its_backbone(model_folder, tmp_path):
    loaded = deeptalk.load(model_folder)
    loaded.model.backbone.model.save_pretrained(tmp_path / "own")
    with torch.no_grad():
        loaded.model.backbone.model.get_output_embeddings().weight.mul_(-1)
    loaded.model.backbone.model.save_pretrained(tmp_path / "other")
    loaded = deeptalk.load(model_folder)
    models = [loaded, *(text_backbone(loaded, tmp_path / name) for name in ("own", "other"))]
    asked = [Respondent(model.engine) for model in models]
    ours, own, other = (one.answer([one.written("what is red")], mode="text")[0].text for one in asked)
    assert ours == own != other


def test_a_voice_or_a_folder_that_is_not_there(questions, model_folder, tmp_path):
    given = ("eval", "pocket", "--model", model_folder, "--no-judge")
    assert "'bob'" in run(*given, "--questions", questions, "--voice", "bob", code=2).stderr
    assert "questions.jsonl" in run(*given, "--questions", tmp_path, code=2).stderr


@pytest.mark.parametrize("wrong", ["--fsdd", "--out", "--out a folder", "--backbone", "beside the weights"])
def test_what_is_given_is_checked_before_the_first_question(
    wrong, questions, model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(PocketEvaluation, "run", lambda *_, **__: pytest.fail("a question was asked"))
    (tmp_path / "file").write_text("")
    folder, given, complaint = model_folder, (wrong, tmp_path), "can't be written"
    if wrong == "--fsdd":
        complaint = "DIGIT_SPEAKER_TAKE.wav"
    elif wrong == "--out":
        given = (wrong, tmp_path / "file" / "all.json")
    elif wrong == "--out a folder":
        given = ("--out", tmp_path)
    elif wrong == "--backbone":
        complaint = "config.json"
    else:
        folder, given = shutil.copytree(model_folder, tmp_path / "model"), ("--backbone", tmp_path)
        (folder / "text_backbone.json").mkdir()
    result = run("eval", "pocket", "--model", folder, "--questions", questions, "--no-judge", *given, code=2)
    (line,) = result.stderr.splitlines()
    assert complaint in line
    assert (tmp_path / "file").read_text() == ""


def test_figures_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "all.json"
    write_json(path, {"value": 1, "scores": {"empty": [float("nan"), 0.5]}})
    assert json.loads(path.read_text())["scores"] == {"empty": [None, 0.5]}
    write_json(path, {"value": 1})

    def write_half(self: Path, text: str, **_: str) -> None:
        self.write_bytes(text.encode()[:5])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"value": 2})
    assert json.loads(path.read_text()) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_targets_know_their_side():
    by_name = {target.score: target for target in TARGETS}
    assert by_name["transcription_wer"].is_met(10.0)
    assert not by_name["transcription_wer"].is_met(10.1)
    assert by_name["follow_up"].is_met(75.0)
    assert not by_name["follow_up"].is_met(74.9)
    assert not by_name["follow_up"].is_met(float("nan"))
    rows = dict(table_rows([share_score("follow_up", 3, 4)]))
    assert rows[by_name["follow_up"]].value == 75.0
    assert rows[by_name["transcription_wer"]] is None
