"""Scores of public benchmarks from the command line: what is printed, written and refused."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.evaluation.benchmarks.llm_judge import LlmJudge

RIGHT = {"a": "Paris", "b": "twenty one", "c": "O'Neill"}


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    records = [{"id": name, "question": f"{name}?", "answers": [answer]} for name, answer in RIGHT.items()]
    return write_lines(tmp_path / "set.jsonl", *records)


def answered(path: Path, **texts: str) -> Path:
    return write_lines(path, *[{"id": name, "text": text} for name, text in texts.items()])


def test_both_rules_stand_side_by_side(questions, tmp_path):
    answers = answered(tmp_path / "answers.jsonl", a="In Paris.", b="It is 21.", c="Nobody.")
    out = tmp_path / "new" / "scores.json"
    printed = json.loads(run("score-answers", questions, answers, "--out", out, "--json").stdout)
    assert {name: (score["count"], score["total"]) for name, score in printed["scores"].items()} == {
        "contain-words": (2, 3),
        "has-answer": (1, 3),
    }
    assert printed["rules"] == {"contain-words": "1", "has-answer": "1"}
    assert (printed["num_missing"], printed["errors"]) == (0, None)
    written = json.loads(out.read_text())
    items = written.pop("items")
    assert written == printed
    assert items[1] == {
        "id": "b",
        "given": "It is 21.",
        "parts": {"contain-words": [1.0, 1.0], "has-answer": [0.0, 1.0]},
        "reason": "",
    }
    assert str(tmp_path) not in out.read_text()
    table = run("score-answers", questions, answers, "--rule", "whole-words").stdout
    assert "whole-words" in table
    assert "contain-words" not in table
    assert "2 of 3" in table


def test_what_is_missing_is_wrong_and_a_failure_unless_allowed(questions, tmp_path):
    answers = answered(tmp_path / "answers.jsonl", a="In Paris.", c="")
    result = run("score-answers", questions, answers, "--json", code=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith("1 of 3 items are missing and 0 were not judged")
    allowed = run("score-answers", questions, answers, "--json", "--allow-missing")
    assert allowed.stdout == result.stdout
    assert json.loads(allowed.stdout)["scores"]["has-answer"]["total"] == 3
    assert allowed.stderr == ""


def test_a_judge_is_asked_once(questions, tmp_path, monkeypatch):
    asked = []

    def transport(url, body, *, headers, timeout_seconds):
        asked.append((url, json.loads(body), headers))
        return json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()

    monkeypatch.setitem(LlmJudge.__init__.__kwdefaults__, "transport", transport)
    answers = answered(tmp_path / "answers.jsonl", a="x", b="y", c="z")
    given = ("score-answers", questions, answers, "--judge-url", "http://here/v1", "--judge-model", "m")
    kept = ("--judge-replies", tmp_path / "new" / "replies.jsonl", "--json")
    first = json.loads(run(*given, *kept).stdout)
    assert first["scores"]["llm-judge"]["count"] == 3
    assert first["rules"]["llm-judge"].startswith("m, prompt ")
    assert run(*given, *kept).stdout == json.dumps(first, ensure_ascii=False) + "\n"
    assert len(asked) == 3


def test_a_judge_of_nonsense_or_without_a_word_leaves_the_rules_usable(questions, tmp_path, monkeypatch):
    said = iter(["maybe", None, None, None, "yes"])

    def transport(url, body, *, headers, timeout_seconds):
        reply = next(said)
        if reply is None:
            raise TimeoutError("too late")
        return json.dumps({"choices": [{"message": {"content": reply}}]}).encode()

    monkeypatch.setitem(LlmJudge.__init__.__kwdefaults__, "transport", transport)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    answers, out = answered(tmp_path / "answers.jsonl", a="Paris", b="x", c="y"), tmp_path / "scores.json"
    given = ("score-answers", questions, answers, "--judge-url", "http://here/v1", "--judge-model", "m")
    result = run(*given, "--out", out, "--json", code=1)
    assert result.stderr.splitlines()[-1].startswith("0 of 3 items are missing and 2 were not judged")
    told = json.loads(result.stdout)
    assert (told["num_unjudged"], told["scores"]["llm-judge"]["count"]) == (2, 1)
    assert told["scores"]["contain-words"]["count"] == 1
    assert [item["reason"] for item in json.loads(out.read_text())["items"]] == ["unreadable", "no reply", ""]


def test_a_column_that_is_missing_is_named(tmp_path):
    folder = tmp_path / "llama_questions"
    folder.mkdir()
    (folder / "llama_questions.csv").write_text("Questions,audio_filename\nwho?,a.wav\n")
    answers = answered(tmp_path / "answers.jsonl", a="x")
    (line,) = run("score-answers", folder, answers, code=2).stderr.splitlines()
    assert "llama_questions.csv, line 2: 'Answer' must be a text" in line
    ultra = write_lines(tmp_path / "ultra.jsonl", {"WavPath": "a.wav", "ref": "x"})
    (line,) = run("score-answers", ultra, answers, "--answer-column", "reference", code=2).stderr.splitlines()
    assert "one of WavPath, ref; got 'reference'" in line


def test_error_rates_by_two_normalizers(tmp_path):
    (tmp_path / "text").write_text("u1 Hello, world.\nu2 今天很好\n")
    (tmp_path / "heard").write_text("u1 hello world\nu2 今天好\n")
    given = ("score-transcripts", tmp_path / "text", tmp_path / "heard", "--normalizer", "wenet")
    report = json.loads(run(*given, "--normalizer", "seedtts-zh", "--json").stdout)
    values = {name: (score["count"], score["total"]) for name, score in report["scores"].items()}
    assert values["wenet/corpus"] == (3, 6)
    assert values["seedtts-zh/corpus"] == (2, 14)
    assert report["scores"]["wenet/utterances"]["value"] == pytest.approx((100 + 25) / 2)
    assert report["errors"] == {"substitutions": 2, "deletions": 1, "insertions": 0, "units": 6}
    assert report["scores"]["wenet/corpus"]["unit"] == "% CER"
    assert "substitutions 2" in run(*given).stdout
    (tmp_path / "heard").write_text("u1 hello world\n")
    lost = json.loads(run(*given, "--json", code=1).stdout)
    assert lost["scores"]["wenet/corpus"]["count"] == 6
    assert lost["num_missing"] == 1


def test_two_models_are_compared(questions, tmp_path):
    texts = {"left": ("no", "no", "no"), "right": ("Paris", "21", "o'neill"), "other": ("no", "no", "no")}
    for name, (a, b, c) in texts.items():
        answers = answered(tmp_path / "answers.jsonl", a=a, b=b, c=c)
        run("score-answers", questions, answers, "--out", tmp_path / f"{name}.json")
    lines = run("compare", tmp_path / "left.json", tmp_path / "right.json", "--json").stdout.splitlines()
    contain, has = (json.loads(line) for line in lines)
    assert contain == {
        **{"name": "contain-words", "left": 0.0, "right": 100.0, "difference": 100.0},
        **{"low": 100.0, "high": 100.0, "share_not_above": 0.0, "is_clear": True, "apart": None},
    }
    assert (has["name"], has["difference"]) == ("has-answer", pytest.approx(200 / 3))
    shown = run("compare", tmp_path / "left.json", tmp_path / "other.json").stdout
    assert shown.count("not clear") == 2
    questions.write_text(questions.read_text() + "\n")
    run("score-answers", questions, tmp_path / "answers.jsonl", "--out", tmp_path / "other.json")
    refused = run("compare", tmp_path / "left.json", tmp_path / "other.json", code=2)
    assert "of other data" in refused.stderr
    mixed = run("compare", tmp_path / "left.json", tmp_path / "other.json", "--mixed").stdout
    assert mixed.count("do not compare: other data") == 2


def test_runs_that_drew_otherwise_have_a_mean_and_a_range(questions, tmp_path):
    decoding = {"temperature": 0.7, "top_k": 10}

    def scored(name: str, a: str, **settings: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        answers = answered(folder / "answers.jsonl", a=a, b="21", c="no")
        (folder / "run.json").write_text(
            json.dumps({"model": "m", "decoding": "greedy", "seed": None} | settings)
        )
        run("score-answers", questions, answers, "--out", folder / "scores.json")
        return folder / "scores.json"

    right = ("Paris", "Rome", "Paris", "Oslo")
    drawn = [scored(f"s{n}", a, decoding=decoding, seed=n, git=str(n)) for n, a in enumerate(right)]
    contain, _ = (json.loads(line) for line in run("repeated", *drawn, "--json").stdout.splitlines())
    assert (contain["name"], contain["seeds"]) == ("contain-words", [0, 1, 2, 3])
    assert contain["mean"] == pytest.approx(50.0)
    assert (contain["lowest"], contain["highest"]) == (pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert "of 4 runs, seeds 0, 1, 2, 3" in run("repeated", *drawn).stdout
    other = scored("other", "x", decoding=decoding, seed=7, model="n")
    again = scored("again", "x", decoding=decoding, seed=0)
    greedy = scored("greedy", "x")
    for given, complaint in (
        (drawn[:2], "needs 3 runs of different seeds at least, got 2"),
        ([*drawn, other], "differ in more than the seed: run"),
        ([*drawn, again], "a seed comes twice: 0, 1, 2, 3, 0"),
        ([*drawn, greedy], "nothing was drawn in this run"),
        ([*drawn, questions], "set.jsonl: no report of a run"),
    ):
        (line,) = run("repeated", *given, code=2).stderr.splitlines()
        assert complaint in line


def test_what_is_missing_may_be_left_out_but_says_so(questions, tmp_path):
    answers = answered(tmp_path / "answers.jsonl", a="Paris", b="no")
    given = ("score-answers", questions, answers, "--rule", "has-answer")
    assert json.loads(run(*given, "--json", code=1).stdout)["scores"]["has-answer"]["total"] == 3
    told = json.loads(run(*given, "--drop-missing", "--json").stdout)
    assert (told["scores"]["has-answer"]["count"], told["scores"]["has-answer"]["total"]) == (1, 2)
    assert (told["about"]["shrunk_from"], told["num_missing"]) == (3, 0)
    assert "2 shrunk from 3: for no table" in run(*given, "--drop-missing").stdout
    texts = write_lines(tmp_path / "texts.jsonl", {"id": "a", "text": "x"}, {"id": "c", "text": "y z"})
    heard = ("score-transcripts", texts, answers, "--normalizer", "plain-en", "--drop-missing")
    (line,) = run(*heard, code=2).stderr.splitlines()
    assert "'b'" in line
    answered(tmp_path / "answers.jsonl", a="x")
    assert json.loads(run(*heard, "--json").stdout)["about"]["shrunk_from"] == 2


def test_a_folder_of_kaldi_is_the_set_of_its_name(tmp_path):
    folder = tmp_path / "librispeech" / "test-clean"
    folder.mkdir(parents=True)
    (folder / "wav.scp").write_text("a a.wav\n")
    (folder / "text").write_text("a one two\n")
    heard = answered(tmp_path / "heard.jsonl", a="one two")
    given = ("score-transcripts", folder, heard, "--normalizer", "plain-en", "--json")
    about = json.loads(run(*given).stdout)["about"]
    assert (about["set"], about["split"]) == ("test-clean", "test-clean")


def test_answers_are_handed_to_other_peoples_scorers(questions, tmp_path):
    lines = [
        {"id": "a", "text": "Paris", "transcript": "paris"},
        {"id": "c", "text": "x", "transcript": None},
    ]
    answers, out = write_lines(tmp_path / "answers.jsonl", *lines), tmp_path / "out"
    told = run("write-answers", questions, answers, "--out", out, "--name", "m", "--json").stdout
    names = [Path(json.loads(line)["file"]).name for line in told.splitlines()]
    assert names == [
        *("set_hyp_ref_text.json", "m-set-test-text.jsonl"),
        *("set_hyp_ref_speech.json", "m-set-test-audio.jsonl"),
    ]
    assert json.loads((out / names[0]).read_text()) == [
        *(["Paris", ["Paris"]], ["", ["twenty one"]]),
        ["x", ["O'Neill"]],
    ]
    assert [pair[0] for pair in json.loads((out / names[2]).read_text())] == ["paris", "", ""]
    again = run("score-answers", questions, out / names[1], "--json").stdout
    assert json.loads(again)["scores"]["has-answer"]["count"] == 1
    nobody = write_lines(tmp_path / "quiet.jsonl", {"id": "a", "text": "x", "transcript": None})
    shown = run("write-answers", questions, nobody, "--out", tmp_path / "quiet").stdout
    assert len(shown.splitlines()) == 2


def test_table_3_tells_the_drop_and_what_does_not_follow():
    shown = run("table3").stdout
    assert "DeepTalk            50.17    -5.45 %  against DeepSeek-V2-Lite\n" in shown
    assert "! GLM-4: its 12 values average 67.62, printed is 64.08\n" in shown
    lines = [json.loads(line) for line in run("table3", "--json").stdout.splitlines()]
    assert len(lines) == 13
    assert lines[1]["model"] == "DeepTalk"
    assert (round(lines[1]["drop"], 2), round(lines[1]["mean_of_set_drops"], 2)) == (-5.45, -5.81)
    assert [line["complaint"].split(":")[0] for line in lines[11:]] == ["GLM-4", "GLM-4-Voice"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--rule", "exact"), "no scoring rule is called 'exact'"),
        (("--layout", "kinder"), "no layout is called 'kinder'"),
        (("--judge-url", "http://x"), "needs both --judge-url and --judge-model"),
        (("--judge-url", "x", "--judge-model", "m"), "must begin with http://"),
        (
            ("--judge-url", "http://x", "--judge-model", "m", "--judge-prompt", "nowhere"),
            "nowhere: can't be read",
        ),
        (("--out", "/proc/x/y"), "/proc/x/y: can't be written"),
        (("--out", "new/x.json", "--rule", "exact"), "no scoring rule"),
        (
            ("--judge-url", "http://x", "--judge-model", "m", "--judge-replies", "/proc/x/y"),
            "/proc/x/y: can't be written",
        ),
        (("--field", "transcript"), "there is no 'transcript'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(options, complaint, questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answers = answered(tmp_path / "answers.jsonl", a="x")
    before = sorted(tmp_path.iterdir())
    (line,) = run("score-answers", questions, answers, *options, code=2).stderr.splitlines()
    assert complaint in line
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_not_there_is_one_line(questions, tmp_path):
    (line,) = run("score-answers", tmp_path / "x.jsonl", questions, code=2).stderr.splitlines()
    assert "x.jsonl: can't be read" in line
    (line,) = run("score-answers", questions, questions, code=2).stderr.splitlines()
    assert "there is no 'text'" in line


def test_a_packed_set_is_unpacked_and_read(tmp_path, tone):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (deeptalk[parquet])")
    from pyarrow.parquet import write_table

    sound = tone("x.wav").read_bytes()
    columns = {
        "audio": [{"bytes": sound, "path": "x.wav"}, {"bytes": None, "path": "y.wav"}],
        "prompt": ["capital of France", "twenty and one"],
        "reference": ["Paris", "21"],
    }
    packed, out = tmp_path / "set.parquet", tmp_path / "new" / "set"
    write_table(pyarrow.table(columns), packed)
    told = json.loads(run("unpack", packed, "--out", out, "--json").stdout)
    assert (told["num_items"], told["num_sounds"]) == (2, 1)
    assert (out / "audio" / "0.wav").read_bytes() == sound
    lines = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    assert lines[1] == {"id": "1", "audio": None, "question": "twenty and one", "answers": ["21"]}
    answers = write_lines(
        tmp_path / "answers.jsonl", {"id": "0", "text": "Paris."}, {"id": "1", "text": "no"}
    )
    scored = json.loads(run("score-answers", out / "questions.jsonl", answers, "--json").stdout)
    assert (scored["scores"]["has-answer"]["count"], scored["num_items"]) == (1, 2)
    (tmp_path / "no.parquet").write_text("no Parquet")
    for arguments, complaint in (
        ((tmp_path / "no.parquet",), "no Parquet that can be read"),
        ((tmp_path / "none.parquet",), "none.parquet: no Parquet that can be read"),
        ((packed, "--answer-column", "output"), "no column output; there are: audio, prompt, reference"),
    ):
        (line,) = run("unpack", *arguments, "--out", tmp_path / "other", code=2).stderr.splitlines()
        assert complaint in line


def test_a_packed_set_needs_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (line,) = run("unpack", tmp_path / "set.parquet", "--out", tmp_path / "x", code=2).stderr.splitlines()
    assert "deeptalk[parquet]" in line
