"""Our model on public layouts from the command line, and its answers through the scorers."""

import json
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from deeptalk.cli import app

SHORT = ("--max-text-tokens", 4)
SPOKEN = (*SHORT, "--max-frames", 3)


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def questions(tmp_path, tone) -> Path:
    tone("a.wav")
    tone("b.wav", seconds=0.7)
    records = [{"id": i, "audio": f"{i}.wav", "question": f"{i}?", "answers": ["x"]} for i in "abc"]
    return write_lines(tmp_path / "set.jsonl", *records)


def test_spoken_questions_are_answered_in_speech_and_scored(questions, model_folder, tmp_path):
    out = tmp_path / "new" / "run"
    given = ("answer", questions, "--out", out, "--model", model_folder, *SPOKEN, "--recogniser", "model")
    result = run(*given, "--json", code=1)
    told = json.loads(result.stdout)
    lines = lines_of(out / "answers.jsonl")
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    (complaint,) = [line for line in result.stderr.splitlines() if "lack an answer" in line]
    assert "c.wav: there is no such file" in complaint or "no sound" in complaint
    silent = [line["id"] for line in lines if line["audio"] is None]
    assert (told["num_items"], told["num_missing"]) == (3, len(silent))
    assert told["num_runaway"] == sum(line["finish_reason"] == "length" for line in lines)
    assert (told["recogniser"]["name"], told["recogniser"]["language"]) == ("model", None)
    assert told["recogniser"]["hash"] == told["settings"]["model"]
    assert (told["settings"]["mode"], told["settings"]["limits"]["max_frames"]) == ("speaker:rms", 3)
    assert told["settings"].items() >= {"rows": "T S", "template": "chat", "batch_size": 16}.items()
    assert told["settings"].items() >= {"decoding": "greedy", "seed": None, "stage": "none"}.items()
    assert json.loads((out / "run.json").read_text()) == told["settings"]
    for line in lines:
        assert (line["transcript"] is None) == (line["audio"] is None)
        if line["audio"] is not None:
            assert soundfile.info(out / line["audio"]).duration == pytest.approx(line["seconds"])
    assert str(tmp_path) not in (out / "answers.jsonl").read_text() + (out / "run.json").read_text()
    assert json.loads((out / "recogniser.json").read_text()) == told["recogniser"]
    before = (out / "answers.jsonl").read_bytes()
    run(*given[:-2], "--allow-missing")  # nobody listens
    assert not (out / "recogniser.json").exists()
    assert json.loads(run(*given, "--json", "--allow-missing").stdout) == told
    assert (out / "answers.jsonl").read_bytes() == before
    scored = ("score-answers", questions, out / "answers.jsonl", "--json", "--allow-missing")
    by_text, by_speech = (
        json.loads(run(*scored, *field).stdout) for field in ((), ("--field", "transcript"))
    )
    assert (by_text["num_items"], by_text["num_missing"]) == (3, 1)
    assert (by_speech["num_items"], by_speech["num_missing"]) == (3, len(silent))


def test_written_questions_are_answered_in_text(questions, model_folder, tmp_path):
    given = ("answer", questions, "--out", tmp_path / "run", "--model", model_folder, *SHORT)
    shown = run(*given, "--from", "text", "--to", "text", "--limit", 2).stdout
    assert shown == f"{tmp_path / 'run' / 'answers.jsonl'}: items 2  missing 0  runaway {shown[-2]}\n"
    assert [line["audio"] for line in lines_of(tmp_path / "run" / "answers.jsonl")] == [None, None]
    other = run(*given, "--to", "text", code=2).stderr
    assert "holds a run of another model or of other settings" in other


def test_answers_may_be_drawn_as_the_authors_code_does(questions, model_folder, tmp_path):
    given = ("answer", questions, "--model", model_folder, *SPOKEN, "--limit", 2, "--allow-missing", "--json")
    told = json.loads(run(*given, "--out", tmp_path / "a", "--released", "--seed", 3).stdout)["settings"]
    assert told["decoding"] == {"temperature": 1.0, "top_k": 10, "released": True}
    assert told["seed"] == 3
    run(*given, "--out", tmp_path / "b", "--released", "--seed", 3)
    lines = [(tmp_path / name / "answers.jsonl").read_bytes() for name in "ab"]
    assert lines[0] == lines[1]


def test_recordings_are_transcribed_and_scored(model_folder, tmp_path, tone):
    records = [
        {"id": i, "audio": tone(f"{i}.wav", seconds=0.5 + k / 10).name, "text": "a b"}
        for k, i in enumerate("ab")
    ]
    path = write_lines(tmp_path / "set.jsonl", *records, {"id": "c", "audio": "c.wav", "text": "d"})
    given = ("transcribe", path, "--out", tmp_path / "run", "--model", model_folder, *SHORT, "--json")
    told = json.loads(run(*given, code=1).stdout)
    assert (told["num_items"], told["num_missing"], told["settings"]["mode"]) == (3, 1, "asr")
    assert told["recogniser"] is None
    scored = (
        "score-transcripts",
        path,
        tmp_path / "run" / "answers.jsonl",
        "--normalizer",
        "plain-en",
        "--json",
    )
    report = json.loads(run(*scored, code=1).stdout)
    assert (report["num_missing"], report["errors"]["units"]) == (1, 5)
    assert not (tmp_path / "run" / "audio").exists()


def test_a_list_is_read_aloud_and_scored_against_itself_and_its_own_text(model_folder, tmp_path):
    (tmp_path / "meta.lst").write_text("u1|one two\nu2|three\n")
    out = tmp_path / "run"
    given = ("say", tmp_path / "meta.lst", "--out", out, "--model", model_folder, *SPOKEN)
    run(*given, "--recogniser", "model", "--voice", "slt", "--allow-missing")
    lines = lines_of(out / "answers.jsonl")
    assert [line["id"] for line in lines] == ["u1", "u2"]
    assert json.loads((out / "run.json").read_text())["mode"] == "speaker:slt"
    heard = (
        out / "answers.jsonl",
        "--field",
        "transcript",
        "--normalizer",
        "seedtts-en",
        "--json",
        "--allow-missing",
    )
    report = json.loads(run("score-transcripts", tmp_path / "meta.lst", *heard).stdout)
    assert report["errors"]["units"] == 3
    write_lines(out / "answers.jsonl", *(line | {"text": "x y", "transcript": "x"} for line in lines))
    itself = json.loads(run("score-transcripts", out / "answers.jsonl", *heard).stdout)
    assert itself["scores"]["seedtts-en/corpus"]["value"] == 50.0


def test_a_list_is_said_in_its_very_words(model_folder, tmp_path):
    texts = ["one two", "three", "a b c d e f g"]
    (tmp_path / "meta.lst").write_text("".join(f"u{n}|{text}\n" for n, text in enumerate(texts)))
    given = ("say", tmp_path / "meta.lst", "--model", model_folder, "--max-frames", 3, "--allow-missing")

    def said(folder: Path) -> list[str]:
        texts = [line["text"] for line in lines_of(folder / "answers.jsonl")]
        return [text.replace(" ", "").replace("Ġ", " ").strip() for text in texts]  # bytes, undecoded

    forced = json.loads(run(*given, "--out", tmp_path / "forced", "--forced", "--json").stdout)
    assert said(tmp_path / "forced") == texts
    assert forced["settings"]["text"] == "forced"
    own = json.loads(run(*given, "--out", tmp_path / "own", "--json").stdout)
    assert own["settings"]["text"] is None
    assert said(tmp_path / "own") != texts
    assert "other settings" in run(*given, "--out", tmp_path / "own", "--forced", code=2).stderr


def test_mistakes_are_one_line_and_nothing_is_written(questions, model_folder, tmp_path):
    bare = write_lines(tmp_path / "bare.jsonl", {"id": "a", "answers": ["x"]})
    for arguments, complaint in (
        (("answer", bare), "question 'a' has no recording; ask with --from text"),
        (("answer", bare, "--from", "text"), "question 'a' has no text; ask with --from speech"),
        (("answer", questions, "--voice", "bob"), "'bob'"),
        (("answer", questions, "--released", "--top-k", 5), "leave out --temperature and --top-k"),
        (("answer", questions, "--to", "text", "--recogniser", "model"), "there are none with --to text"),
        (("answer", questions, "--to", "text", "--voice", "rms"), "there are none with --to text"),
        (("answer", questions, "--recogniser", "whisper"), "needs --whisper DIR"),
        (("transcribe", tmp_path / "none.jsonl"), "can't be read"),
        (("say", questions), "two to five fields"),
    ):
        given = ("--model", model_folder, "--out", tmp_path / "run")
        (line,) = run(*arguments, *given, code=2).stderr.splitlines()
        assert complaint in line
    assert not (tmp_path / "run").exists()
    (line,) = run("answer", questions, "--out", questions / "x", code=2).stderr.splitlines()
    assert "can't be written" in line
