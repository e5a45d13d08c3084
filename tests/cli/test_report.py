"""The full report from the command line: three files, samples that can be heard, mistakes in one line."""

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import deeptalk
from deeptalk.cli import app
from deeptalk.decoding import Limits
from deeptalk.evaluation.answers import Respondent
from deeptalk.evaluation.pocket import sound_of
from deeptalk.evaluation.questions import EvalSet

IDS = [f"q{i}" for i in range(6)]


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", "report", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    folder, lines = tmp_path / "questions", []
    folder.mkdir()
    for number, name in enumerate(IDS):
        turn = {"role": "user", "text": f"{name}?", "voice": "v", "offset": 0.5 * number, "duration": 0.5}
        messages = [turn, {"role": "assistant", "text": "Yes."}]
        category = "facts" if number < 4 else "strings"
        lines.append(json.dumps({"id": name, "category": category, "messages": messages}) + "\n")
    (folder / "questions.jsonl").write_text("".join(lines))
    wave = 0.2 * np.random.default_rng(0).standard_normal(3 * 16_000)
    soundfile.write(folder / "questions.opus", wave, 16_000, format="OGG", subtype="OPUS")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    items = [
        dict(id=name, row=row, question=f"{name}?", answer="yes", given=given, is_right=given == "yes")
        for row in ("speech_to_text", "speech_to_speech/bigram")
        for name, given in zip(IDS, ["yes", "yes", "yes", "no", "yes", ""], strict=True)
    ]
    share = dict(value=80.0, unit="%", count=4, total=5, low=37.6, high=96.4)
    values = {"scores": {"speech_to_text/all": share}, "num_runaway": 0, "not_run": [], "items": items}
    (tmp_path / "all.json").write_text(json.dumps(values))
    return tmp_path / "all.json"


def test_three_files_are_written(questions, results, tmp_path):
    given = (results, "--questions", questions, "--out", tmp_path / "new" / "out")
    printed = json.loads(run(*given, "--stage", f"first={results}", "--title", "One model", "--json").stdout)
    assert printed == {
        "report": str(tmp_path / "new" / "out" / "report.json"),
        **{"num_figures": 1, "num_asked": 1, "num_met": 0, "num_errors": 4, "num_samples": 0},
    }
    names = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert names == {"report.json", "report.md", "report.html"}
    written = json.loads(Path(printed["report"]).read_text())
    assert [stage["name"] for stage in written["stages"]] == ["first", "this model"]
    assert written["not_run"][0] == "text_to_text/mean"
    for name in names:
        assert str(tmp_path) not in (tmp_path / "new" / "out" / name).read_text()
    assert "# One model" in (tmp_path / "new" / "out" / "report.md").read_text()
    assert "0 of 1 bounds met, 4 errors, 0 samples" in run(*given).stdout


def test_samples_are_heard_in_the_page_and_nowhere_else(questions, results, tmp_path):
    answers = tmp_path / "answers"
    answers.mkdir()
    for name in ("q0", "q1", "q3", "q5"):
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
        soundfile.write(answers / f"{name}.wav", tone, 24_000)
    given = (results, "--questions", questions, "--answers", answers, "--out", tmp_path / "out")
    assert json.loads(run(*given, "--samples", 3, "--json").stdout)["num_samples"] == 3
    # one right and one wrong of facts, one wrong of strings; the second right one of facts has to wait
    written = (tmp_path / "out" / "report.json").read_text()
    assert json.loads(written)["samples"] == ["q0", "q3", "q5"]
    assert "base64" not in written
    html = (tmp_path / "out" / "report.html").read_text()
    sounds = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', html)
    assert len(sounds) == len(re.findall(r'src="data:image/jpeg;base64,', html)) == 6
    samples, rate = soundfile.read(BytesIO(b64decode(sounds[1])))
    spectrum = np.abs(np.fft.rfft(samples[: rate // 2]))
    assert rate == 24_000
    assert 2 * int(spectrum.argmax()) == 440
    assert "(nothing)" in html


@pytest.fixture
def short(monkeypatch):
    limits = Limits(max_frames=3, max_text_tokens=3)
    monkeypatch.setattr("deeptalk.evaluation.answers.LIMITS", limits)


@pytest.mark.usefixtures("short")
def test_samples_are_spoken_by_the_measured_model(questions, results, model_folder, tmp_path):
    given = (
        "--questions",
        questions,
        "--out",
        tmp_path / "out",
        "--model",
        model_folder,
        "--samples",
        2,
        "--json",
    )
    assert json.loads(run(results, *given).stdout)["num_samples"] == 2
    html = (tmp_path / "out" / "report.html").read_text()
    first = b64decode(re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', html)[1])
    sound, _ = soundfile.read(BytesIO(first), dtype="float32")
    loaded = deeptalk.load(model_folder)
    respondent, asked = Respondent(loaded.engine), EvalSet(questions)
    (answer,) = respondent.answer(
        [respondent.spoken(asked.speech(asked.items[0].turns[0]))], mode="speaker:rms"
    )
    expected = sound_of(answer, loaded.codec).numpy()
    assert len(sound) == len(expected)
    assert np.corrcoef(sound, expected)[0, 1] > 0.9
    values = json.loads(results.read_text())
    for change, complaint in (
        ({"about": {"model": "another"}}, "the results are of another model than --model"),
        ({"items": []}, "the results have no spoken questions"),
    ):
        results.write_text(json.dumps(values | change))
        lines = run(results, *given, code=2).stderr.splitlines()
        assert len(lines) == 1, lines
        assert complaint in lines[0]


def test_mistakes_are_one_line_and_nothing_is_written(questions, results, tmp_path):
    (tmp_path / "file").write_text("")
    for options, complaint in (
        (("--stage", "first"), "--stage takes NAME=F.json, each name once, got 'first'"),
        (("--stage", f"a={results}", "--stage", f"a={results}"), "each name once"),
        (("--stage", f"a={tmp_path / 'file'}"), "file: no results"),
        (("--answers", tmp_path, "--model", "pocket"), "not both"),
        (("--answers", tmp_path), "no file ID.wav of a question"),
        (("--questions", tmp_path), "questions.jsonl"),
        (("--out", tmp_path / "file" / "x"), "can't be written"),
    ):
        given = (results, "--questions", questions, "--out", tmp_path / "out", *options)
        (line,) = run(*given, code=2).stderr.splitlines()
        assert complaint in line
    assert not (tmp_path / "out").exists()
    (line,) = run(tmp_path / "file", "--out", tmp_path / "out", code=2).stderr.splitlines()
    assert "no results" in line
