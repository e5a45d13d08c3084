"""A list that was read aloud, and the codec's ceiling, from the command line on a random model."""

import json
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.files import digest_of


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def write_run(folder: Path, *lines: dict) -> Path:
    """A run's folder, as `eval say` leaves it."""
    folder.mkdir()
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def line(name: str, text: str | None, transcript: str | None, **more: object) -> dict:
    return {"id": name, "text": text, "transcript": transcript, "finish_reason": "stop"} | more


@pytest.fixture
def texts(tmp_path: Path, tone) -> Path:
    """Three texts, two of them with a recording of their own."""
    tone("a.wav", seconds=0.5)
    tone("b.wav", seconds=0.7, rate=8_000, channels=2)
    rows = [f"{name}|prompt|p.wav|one two three|{name}.wav" for name in "abc"]
    (tmp_path / "meta.lst").write_text("\n".join(rows) + "\n")
    return tmp_path / "meta.lst"


@pytest.fixture
def spoken(texts: Path, tmp_path: Path) -> Path:
    """Words lost by the speech (a), by the text already (b), and nothing said at all (c)."""
    folder = write_run(
        tmp_path / "run",
        line("a", "one two three", "one two"),
        line("b", "one four three", "one four three", finish_reason="length"),
        line("c", None, None, reason="c.wav: there is no such file"),
    )
    (folder / "audio").mkdir()
    for name in "ab":
        (folder / "audio" / f"{name}.wav").write_bytes((tmp_path / f"{name}.wav").read_bytes())
    (folder / "run.json").write_text('{"model": "0123", "mode": "speaker:rms"}\n')
    return folder


def test_errors_against_the_list_and_against_the_models_own_text(texts, spoken, tmp_path):
    given = ("score-speech", texts, spoken, "--normalizer", "seedtts-en")
    out = tmp_path / "new" / "scores.json"
    failed = run(*given, "--json", "--out", out, code=1)
    (complaint,) = failed.stderr.splitlines()
    assert complaint.startswith("1 of 3 items are missing")
    told = json.loads(failed.stdout)
    scores = told["scores"]
    assert scores["target/utterances"]["value"] == pytest.approx(100 * (1 / 3 + 1 / 3 + 1) / 3)
    assert (scores["target/corpus"]["count"], scores["target/corpus"]["total"]) == (1 + 1 + 3, 9)
    assert (scores["self/corpus"]["count"], scores["self/corpus"]["total"]) == (1, 6)
    assert (scores["text/corpus"]["count"], scores["text/corpus"]["total"]) == (1, 6)
    assert (scores["coverage"]["count"], scores["coverage"]["total"]) == (2, 3)
    assert (told["kind"], told["num_items"], told["num_missing"]) == ("tts", 3, 1)
    assert told["data"] == digest_of(texts)
    assert told["rules"]["target/utterances"].startswith("seedtts-en 2")
    assert (told["about"]["run"]["mode"], told["about"]["num_runaway"]) == ("speaker:rms", 1)
    assert (told["about"]["row"], told["errors"]["units"]) == ("S", 9)
    written = json.loads(out.read_text())
    items = written.pop("items")
    assert written == told
    assert (items[2]["id"], items[2]["given"], items[2]["reason"]) == ("c", None, "missing")
    assert items[2]["parts"].items() >= {"target/corpus": [3.0, 3.0], "self/corpus": [0.0, 0.0]}.items()
    assert [item["parts"]["coverage"] for item in items] == [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]
    assert str(tmp_path) not in out.read_text()
    allowed = run(*given, "--json", "--allow-missing")
    assert json.loads(allowed.stdout) == told
    assert allowed.stderr == ""
    shown = run(*given, "--allow-missing").stdout
    assert "target/utterances" in shown
    assert "2 of 3" in shown


def test_two_models_that_read_a_list_are_compared_item_by_item(texts, spoken, tmp_path):
    given = ("score-speech", texts, spoken, "--normalizer", "seedtts-en", "--allow-missing", "--out")
    run(*given, tmp_path / "left.json")
    (spoken / "answers.jsonl").write_text(
        "".join(json.dumps(line(name, "one two three", "one two three")) + "\n" for name in "abc")
    )
    run(*given, tmp_path / "right.json")
    lines = run("compare", tmp_path / "left.json", tmp_path / "right.json", "--json").stdout.splitlines()
    by_name = {told["name"]: told for told in map(json.loads, lines)}
    assert by_name["target/corpus"]["difference"] == pytest.approx(-100 * 5 / 9)
    assert by_name["self/corpus"]["difference"] == pytest.approx(-100 / 6)
    assert by_name["coverage"]["difference"] == 0


def test_recordings_go_through_the_codec_and_are_scored(texts, model_folder, tmp_path):
    out = tmp_path / "recoded"
    given = ("recode", texts, "--out", out, "--model", model_folder, "--recogniser", "model", "--json")
    failed = run(*given, code=1)
    told = json.loads(failed.stdout)
    assert (told["num_items"], told["num_missing"]) == (3, 1)
    assert "first 'c'" in failed.stderr.splitlines()[-1]
    assert told["settings"]["mode"] == "recoded"
    assert told["settings"]["codec"] == digest_of(model_folder / "codec" / "model.safetensors")
    for name, seconds in (("a", 0.5), ("b", 0.7)):
        sound = soundfile.info(out / "audio" / f"{name}.wav")
        assert (sound.samplerate, sound.channels) == (24_000, 1)
        assert sound.duration == pytest.approx(seconds, abs=0.01)
    again = json.loads(run(*given, "--allow-missing").stdout)
    assert again == told
    scored = run("score-speech", texts, out, "--normalizer", "seedtts-en", "--json", "--allow-missing")
    report = json.loads(scored.stdout)
    assert (report["num_items"], report["num_missing"]) == (3, 1)
    assert report["about"]["recogniser"] == told["recogniser"]
    assert report["scores"]["text/corpus"]["count"] == 0  # a recording's text row is the list's
    natural = ("recode", texts, "--natural", "--out", tmp_path / "natural", "--model", model_folder, "--json")
    untouched = json.loads(run(*natural, "--limit", 2).stdout)
    assert (untouched["settings"]["mode"], untouched["settings"]["codec"]) == ("natural", None)
    assert (untouched["settings"]["model"], untouched["settings"]["from"]) == (None, "speech")
    kept, _ = soundfile.read(tmp_path / "natural" / "audio" / "a.wav")
    recoded, _ = soundfile.read(out / "audio" / "a.wav")
    assert kept.shape == recoded.shape
    assert abs(kept - recoded).max() > 1e-3


def test_mistakes_are_one_line_and_nothing_is_written(texts, spoken, model_folder, tmp_path):
    (tmp_path / "short.lst").write_text("a|one two\n")
    (tmp_path / "other.lst").write_text("z|one two\n")
    quiet = write_run(tmp_path / "quiet", line("a", "one", None))
    before = sorted(tmp_path.iterdir())
    scored = ("score-speech", texts)
    recoded = ("--out", tmp_path / "new", "--model", model_folder)
    for arguments, complaint in (
        ((*scored, spoken, "--normalizer", "seedtts"), "no normaliser is called 'seedtts'; there are"),
        ((*scored, tmp_path / "none", "--normalizer", "seedtts-en"), "answers.jsonl: can't be read"),
        ((*scored, quiet, "--normalizer", "seedtts-en"), "nobody has listened"),
        (("score-speech", tmp_path / "other.lst", spoken, "--normalizer", "seedtts-en"), "'a' is not in"),
        ((*scored, spoken, "--normalizer", "seedtts-en", "--out", tmp_path), "it is a folder"),
        ((*scored, spoken, "--normalizer", "seedtts-en", "--speaker-model", tmp_path), str(tmp_path)),
        (("recode", tmp_path / "short.lst", *recoded), "'a' has no recording in a fifth field"),
        (("recode", tmp_path / "none.lst", *recoded), "can't be read"),
        (("recode", texts, *recoded, "--recogniser", "whisper"), "needs --whisper DIR"),
        (("recode", texts, "--out", spoken, "--model", model_folder), "holds a run of another model"),
    ):
        result = run(*arguments, code=2)
        (told,) = result.stderr.splitlines()
        assert complaint in told
    assert sorted(tmp_path.iterdir()) == before
