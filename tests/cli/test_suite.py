"""`eval --suite paper` on small sets and a random model: what is here is run, all else says why it is not."""

import json
from pathlib import Path
from urllib.error import HTTPError

import pytest
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.evaluation.benchmarks.llm_judge import LlmJudge
from deeptalk.model import load
from deeptalk.model.identity import model_hash


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def data(tmp_path: Path, tone) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b"):
        tone(name + ".wav").rename(folder / f"{name}.wav")
    write_lines(
        folder / "llama_questions.jsonl",
        *({"id": i, "audio": f"{i}.wav", "question": f"{i}?", "answers": ["x"]} for i in "ab"),
    )
    records = [{"id": i, "audio": f"{i}.wav", "text": "a b"} for i in "abc"]
    write_lines(folder / "librispeech_clean.jsonl", *records)
    (folder / "seedtts_en.lst").write_text("u1|x|x.wav|one two|a.wav\nu2|x|x.wav|three|b.wav\n")
    return folder


@pytest.fixture
def asked(model_folder, data, tmp_path, monkeypatch):
    """A suite of short answers, and what `eval latency` and `eval text` have written of the model."""
    from deeptalk.cli import suite_tables

    short = suite_tables.Work.run
    monkeypatch.setattr(
        suite_tables.Work,
        "run",
        lambda work, *given, **named: short(
            suite_tables.replace(work, max_text_tokens=3, max_frames=3), *given, **named
        ),
    )
    of = model_hash(load(model_folder))
    rows = [{"figure": "first_chunk", "ours": 100.0}, {"figure": "network", "ours": None}]
    engine = {"first_chunk_ms": {"n": 7}, "step_ms": {"both": {"n": 9}}, "real_time_factor": {"n": 7}}
    latency = {"rows": rows, "about": {"model": of}, "valid": True, "engine": engine}
    (tmp_path / "latency.json").write_text(json.dumps(latency))
    items = {"model": [1.0, 0.0], "backbone": [1.0, 1.0]}
    text = {
        "about": {"model": of},
        "engine": {"scorer": "lm-eval", "version": "0.4"},
        "tasks": [{"task": "mmlu/acc", "items": items}],
    }
    (tmp_path / "text.json").write_text(json.dumps(text))
    return (
        *("--suite", "paper", "--model", model_folder, "--data", data, "--out", tmp_path / "out"),
        *("--latency", tmp_path / "latency.json", "--text", tmp_path / "text.json", "--recogniser", "model"),
    )


def test_paper_ours_and_difference(asked, tmp_path):
    told = json.loads(run(*asked, "--json", code=1).stdout)
    rows = {f"{row['set']}/{row['figure']}": row for row in told["rows"]}
    ran = {name for name, row in rows.items() if row["ours"] is not None}
    assert ran == {
        *(f"llama_questions/{d}" for d in ("text_to_text", "speech_to_text", "speech_to_speech")),
        *("librispeech_clean/whisper-en", "seedtts_en/target"),
        *("MMLU/score", "drop/of_means", "latency/first_chunk"),
    }
    for name in ran:
        assert rows[name]["difference"] == pytest.approx(rows[name]["ours"] - rows[name]["paper"])
    assert (
        rows["librispeech_clean/whisper-en"]["num_missing"],
        rows["librispeech_clean/whisper-en"]["total"],
    ) == (1, 6)
    assert rows["librispeech_clean/whisper-en"]["about"]["run"]["mode"] == "asr"
    assert (rows["MMLU/score"]["ours"], rows["drop/of_means"]["ours"]) == (50.0, -50.0)
    assert rows["latency/first_chunk"]["count"] == 7
    assert rows["aishell1/wenet"]["not_run"] == "--data has no aishell1"
    assert rows["BBH/score"]["not_run"] == "--text F.json has no task of it"
    assert "no server was asked" in rows["latency/network"]["not_run"]
    assert rows["mean/speech_to_text"]["not_run"] == "not all three sets were run"
    out = tmp_path / "out"
    assert json.loads((out / "report.json").read_text()) == told
    assert "| MMLU | score | 54.63 % | 50.00 |" in (out / "report.md").read_text()
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    missing = [line for line in lines if line["set"] == "librispeech_clean" and line["id"] == "c"]
    assert missing[0]["reason"] == "missing"
    assert (missing[0]["asked"], missing[0]["right"]) == ("c.wav", "a b")
    questions = [line for line in lines if line["set"] == "llama_questions"]
    assert {(line["id"], line["asked"], line["right"]) for line in questions} == {
        ("a", "a?", "x"),
        ("b", "b?", "x"),
    }
    page = (out / "report.html").read_text()
    assert "Table 3" in page
    assert "<td>c.wav</td><td>a b</td>" in page
    assert str(tmp_path) not in page
    spoken = [json.loads(line) for line in (out / "seedtts_en" / "answers.jsonl").read_text().splitlines()]
    if any(line["audio"] for line in spoken):  # the random model may say nothing
        assert "data:audio/mpeg" in page
    assert told["extra"]["librispeech_clean"]["rtfx"] > 0
    assert "llama_questions/speech" in told["extra"]
    assert told["extra"]["seedtts_en/codec"]["total"] == 2
    assert json.loads((out / "seedtts_en" / "codec" / "run.json").read_text())["mode"] == "recoded"
    assert str(tmp_path) not in (out / "report.json").read_text() + (out / "items.jsonl").read_text()
    again = json.loads(run(*asked, "--json", "--allow-missing").stdout)
    assert again == told
    scores = out / "llama_questions" / "speech_to_text.scores.json"
    assert "contain-words" in run("compare", scores, scores).stdout
    shown = run(*asked, "--allow-missing").stdout
    assert "not run" in shown
    assert "Table 3" in shown


def test_a_set_that_is_broken_does_not_keep_others_from_being_run(asked, data, tmp_path):
    (data / "seedtts_en.lst").write_text("u1|a|b|c|d|e|f\n")
    (tmp_path / "text.json").write_text("{}")
    result = run(*asked, "--json", "--allow-missing", code=2)
    rows = {f"{row['set']}/{row['figure']}": row for row in json.loads(result.stdout)["rows"]}
    assert "line 1: two to five fields" in rows["seedtts_en/target"]["not_run"]
    assert "not what `deeptalk eval text --out` writes" in rows["drop/of_means"]["not_run"]
    assert rows["librispeech_clean/whisper-en"]["ours"] is not None
    assert [line.split(":")[0] for line in result.stderr.splitlines() if "expected" in line] == ["seedtts_en"]


def test_a_judge_stands_beside_the_rules_and_is_asked_once(asked, tmp_path, monkeypatch):
    replies, requests = iter(["yes", "who knows"]), []

    def transport(url, body, *, headers, timeout_seconds):
        requests.append(json.loads(body))
        said = next(replies, "no")
        return json.dumps({"choices": [{"message": {"content": said}}]}).encode()

    monkeypatch.setitem(LlmJudge.__init__.__kwdefaults__, "transport", transport)
    judged = (*asked, "--judge-url", "http://here/v1", "--judge-model", "m", "--json")
    answers = {"a": "one", "b": "two"}
    monkeypatch.setattr(
        "deeptalk.evaluation.benchmarks.question_sets.read_answers", lambda *_, field, **__: answers
    )
    result = run(*judged, code=1)
    told = json.loads(result.stdout)["extra"]["llama_questions/text_to_text/llm-judge"]
    assert (told["count"], told["total"], told["num_unjudged"]) == (1, 2, 1)
    assert told["judge"].startswith("m, prompt ")
    assert "answers were not judged" in result.stderr
    num_requests = len(requests)
    assert num_requests == 2  # the same two answers, whatever they were asked as
    assert (tmp_path / "out" / "judge.jsonl").is_file()
    run(*judged, "--allow-missing")
    assert len(requests) == num_requests

    def refuses(*_, **__):
        raise HTTPError("http://here/v1", 404, "no such model", {}, None)  # pyright: ignore

    monkeypatch.setitem(LlmJudge.__init__.__kwdefaults__, "transport", refuses)
    refused = run(
        *judged[:-1], "--judge-replies", tmp_path / "new.jsonl", "--allow-missing", "--json", code=2
    )
    rows = {f"{row['set']}/{row['figure']}": row for row in json.loads(refused.stdout)["rows"]}
    assert rows["llama_questions/text_to_text"]["ours"] is not None
    assert "llama_questions/text_to_text/llm-judge: the judge refuses" in refused.stderr


def test_mistakes_are_one_line(asked, data, model_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "suite.json").write_text('{"model": "another"}\n')
    (line,) = run(*asked, code=2).stderr.splitlines()
    assert "holds a run of another model or of other settings" in line
    for arguments, complaint in (
        (("--suite", "papr"), "Did you mean 'paper'?"),
        (("--suite", "paper", "--data", tmp_path / "none", "--model", model_folder), "no folder"),
        (("--suite", "questions", "--judge-url", "http://x"), "needs both --judge-url and --judge-model"),
        (("--suite", "latency", "--device", "gpu", "--model", model_folder), "no device 'gpu'"),
        (("--model", model_folder), "say what to measure"),
    ):
        (line,) = run("--out", tmp_path / "new", *arguments, code=2).stderr.splitlines()
        assert complaint in line
    (line,) = run("--suite", "paper", "table3", code=2).stderr.splitlines()
    assert "leave it out" in line


def test_without_data_nothing_is_run(model_folder, tmp_path):
    given = ("--suite", "questions", "--model", model_folder, "--out", tmp_path / "out", "--json")
    told = json.loads(run(*given).stdout)
    assert {row["not_run"] for row in told["rows"]} == {"no --data DIR", "not all three sets were run"}
