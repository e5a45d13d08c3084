"""Questions in, answers out, from the command line, with a random model."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from typer.testing import CliRunner

from deeptalk.audio import load_waveform, save_waveform
from deeptalk.cli import app
from deeptalk.cli.spoken import speak
from deeptalk.decoding import Conversation, Spoken
from deeptalk.model import DeepTalkConfig

pytestmark = pytest.mark.usefixtures("short_answers")

EXAMPLES = ("1-so-which-continent-is-france-in", "2-hey-whats-five-plus-thirty-four")
KEYS = ["input", "text", "audio", "num_frames", "time_to_first_audio_ms", "real_time_factor", "finish_reason"]


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def options(model_folder: Path, tmp_path: Path) -> tuple[str, ...]:
    return ("--model", str(model_folder), "--out", str(tmp_path / "out"))


def test_every_file_earns_one_object(options, tone, tmp_path):
    files = [tone("a.wav"), tone("b.flac", rate=96_000, channels=2), tone("c.ogg", rate=8_000)]
    lines = [json.loads(line) for line in run("talk", *files, *options, "--json").stdout.splitlines()]
    assert [line["input"] for line in lines] == [str(file) for file in files]
    for line in lines:
        assert list(line) == KEYS
        assert Path(line["audio"]).parent == tmp_path / "out"
        assert soundfile.info(line["audio"]).samplerate == 24_000
        assert soundfile.info(line["audio"]).frames == 2_048 * line["num_frames"] > 0
        assert line["time_to_first_audio_ms"] > 0
        assert line["real_time_factor"] > 0
        assert line["finish_reason"] in ("stop", "length")


def test_people_read_the_answer_and_its_figures(options, tone, monkeypatch):
    reply = Conversation.reply
    monkeypatch.setattr(Conversation, "transcribe", lambda *_: "what was asked")
    monkeypatch.setattr(
        Conversation, "reply", lambda self: (replace(piece, text="word ") for piece in reply(self))
    )
    output = run("talk", tone("a.wav"), *options).stdout
    assert "a.wav" in output
    assert "  heard   what was asked\n" in output
    assert "  answer word word " in output
    assert "first audio after" in output
    assert "real-time factor" in output
    assert "a-answer.wav" in output


def test_text_appears_while_it_is_made(tmp_path, capsys):
    seen = []

    def pieces():
        for word in ("It", " is", " Paris."):
            yield Spoken(text=word, samples=torch.zeros(100))
            seen.append(capsys.readouterr().out)

    speak(pieces(), path=tmp_path / "said.wav", sample_rate=24_000, is_json=False)
    assert seen == ["  answer It", " is", " Paris."]
    assert soundfile.info(tmp_path / "said.wav").frames == 300


@pytest.mark.parametrize("verb", ["talk", "say"])
def test_a_seed_draws_the_codes_at_a_temperature_only(verb, model_folder, tmp_path):
    given = ("talk", "--text") if verb == "talk" else ("say", "--out", tmp_path / "said.wav")
    place = ("--out", tmp_path) if verb == "talk" else ()

    def answer(*more: object) -> tuple[str, bytes]:
        output = run(*given, "hello", *place, "--model", model_folder, "--json", *more).stdout
        return json.loads(output)["text"], Path(json.loads(output)["audio"]).read_bytes()

    greedy, drawn, other = answer(), answer("--temperature", 1), answer("--temperature", 1, "--seed", 1)
    assert len({greedy[1], drawn[1], other[1]}) == 3
    assert greedy[0] == drawn[0] == other[0]
    assert answer("--seed", 1) == answer("--seed", 1, "--temperature", 1, "--top-k", 1) == greedy
    assert answer("--temperature", 1, "--seed", 1) == other


@pytest.mark.parametrize(
    ("option", "value"), [("--temperature", "-1"), ("--temperature", "nan"), ("--top-k", "-1")]
)
@pytest.mark.parametrize("verb", ["talk", "say"])
def test_what_cannot_be_drawn_with_is_one_line(verb, option, value, tmp_path):
    given = ("talk", "--text", "hello", "--out", tmp_path / "out")
    if verb == "say":
        given = ("say", "hello", "--out", tmp_path / "out" / "said.wav")
    result = run(*given, option, value, code=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith("temperature and top_k must be finite, 0 or more, got ")
    assert value in line
    assert not (tmp_path / "out").exists()


def test_questions_of_one_name_do_not_share_an_answer_file(options, tone):
    file = tone("a.wav")
    lines = run("talk", file, file, *options, "--json").stdout.splitlines()
    assert len({json.loads(line)["audio"] for line in lines}) == 2


def test_independent_questions_have_the_same_answer_and_turns_may_not(options, tone):
    file = tone("a.wav")

    def answers(*more: str) -> list[tuple[str, bytes]]:
        output = run("talk", file, file, *options, "--json", *more).stdout
        lines = [json.loads(line) for line in output.splitlines()]
        return [(line["text"], Path(line["audio"]).read_bytes()) for line in lines]

    alone, dialogue = answers(), answers("--conversation")
    assert alone[0] == alone[1] == dialogue[0]
    assert dialogue[1] != dialogue[0]


def test_typed_questions(options):
    (line,) = run("talk", "--text", "what is the capital of France", *options, "--json").stdout.splitlines()
    assert json.loads(line)["input"] == "what is the capital of France"
    assert "--text" in run("talk", "--text", " ", *options, code=2).stderr


def test_voices_are_the_models_own(options, tone):
    run("talk", tone(), *options, "--voice", "slt", "--json")
    result = run("talk", tone(), *options, "--voice", "bob", code=2)
    assert result.stderr == "No voice is called 'bob'; this model has: rms, slt.\n"


@pytest.mark.parametrize("verb", ["talk", "transcribe"])
def test_bad_recordings_are_named_and_the_others_answered(verb, options, model_folder, tone, bad_recordings):
    files = [*bad_recordings, tone("good.wav")]
    given = options if verb == "talk" else ("--model", model_folder)
    result = run(verb, *files, *given, "--json", code=2)
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["input"].endswith("good.wav")
    complaints = result.stderr.splitlines()
    assert len(complaints) == len(bad_recordings)
    for complaint, (path, words) in zip(complaints, bad_recordings.items(), strict=True):
        assert complaint.startswith(f"{path}: ")
        assert words in complaint


def test_a_question_longer_than_the_model_hears_is_named(options, tone):
    result = run("talk", tone("a.wav", seconds=2.0), tone("b.wav"), *options, "--json", code=2)
    assert "a.wav: too long, 2.0 s; this model hears at most 1.28 s" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def of_sentences(model: Path, copy: Path, seconds: float | None) -> Path:
    """A copy of a model that has learnt from sentences of so many seconds."""
    shutil.copytree(model, copy)
    noted = json.loads((copy / "config.json").read_text()) | {"sentence_seconds": seconds}
    (copy / "config.json").write_text(json.dumps(noted))
    return copy


def test_a_question_longer_than_what_was_learnt_is_answered_with_a_warning(options, tone, tmp_path):
    own = of_sentences(Path(options[1]), tmp_path / "model", 0.6)
    given = ("--model", own, *options[2:], "--json")
    result = run("talk", tone("a.wav", seconds=1.0), tone("b.wav"), *given)
    assert len(result.stdout.splitlines()) == 2
    (line,) = result.stderr.splitlines()
    assert "a.wav: 1.0 s; this model has learnt from sentences of up to 0.6 s" in line


def test_only_bad_recordings_need_no_model(bad_recordings):
    result = run("talk", *bad_recordings, "--model", "/nowhere", code=2)
    assert len(result.stderr.splitlines()) == len(bad_recordings)


def test_a_missing_or_damaged_model_is_one_line(tone, tmp_path):
    assert "/nowhere" in run("talk", tone(), tone(), "--model", "/nowhere", code=2).stderr
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "weights.bin").write_bytes(b"pickle")
    stderr = run("talk", tone(), "--model", tmp_path / "foreign", code=2).stderr
    assert "pickle" in stderr
    assert len(stderr.splitlines()) == 1


def test_transcribe_splits_long_recordings(model_folder, tone, monkeypatch):
    heard = []
    transcribe = Conversation.transcribe

    def noted(self, samples):
        heard.append(len(samples))
        return transcribe(self, samples)

    monkeypatch.setattr(Conversation, "transcribe", noted)
    files = [tone("short.wav"), tone("long.wav", seconds=3.0)]
    lines = run("transcribe", *files, "--model", model_folder, "--json").stdout.splitlines()
    short, long = (json.loads(line) for line in lines)
    assert list(short) == list(long) == ["input", "text"]
    assert heard[0] == 9_600
    assert sum(heard[1:]) == 48_000
    assert max(heard) <= 1.28 * 16_000
    assert "short.wav: " in run("transcribe", *files, "--model", model_folder).stdout


def test_say_writes_the_file_it_names(model_folder, tmp_path):
    out = tmp_path / "said.wav"
    given = ("say", "good morning", "--voice", "slt", "--out", out, "--model", model_folder)
    line = json.loads(run(*given, "--json").stdout)
    assert list(line) == KEYS
    assert (line["input"], line["audio"]) == ("good morning", str(out))
    assert soundfile.info(out).frames == 2_048 * line["num_frames"] > 0
    assert "said.wav" in run(*given).stdout
    wrong = ("say", "hello", "--out", tmp_path / "said.txt", "--model", model_folder)
    assert "'.txt'" in run(*wrong, code=2).stderr


@pytest.mark.parametrize("verb", ["talk", "say"])
def test_a_seed_that_no_generator_takes_is_refused(verb: str):
    given = ("say", "hello", "--out", "said.wav") if verb == "say" else ("talk", "--text", "hello")
    assert "--seed" in run(*given, "--seed", 10**20, code=2).stderr


def test_say_refuses_a_file_that_it_cannot_write_before_the_work(tmp_path: Path):
    result = run("say", "hello", "--out", tmp_path, "--model", "no model at all", code=2)
    (line,) = result.stderr.splitlines()
    assert "this is a folder" in line


def test_a_full_disk_is_one_line(model_folder: Path, tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "deeptalk", "say", "hello", "--out", str(tmp_path / "said.wav")]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*command, "--model", str(model_folder), "--json"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 2
    assert result.stderr.splitlines() == ["There is no space left where the output goes."]


@pytest.mark.weights
def test_the_built_in_model_writes_down_one_sentence_after_the_other(tmp_path: Path):
    """It learnt from single sentences: of more at a time it understands nothing."""
    folder = Path(__file__).parents[2] / "examples" / "questions"
    questions = [load_waveform(folder / f"{name}.wav") for name in EXAMPLES]
    pause = torch.zeros(16_000)
    save_waveform(
        tmp_path / "long.wav",
        torch.cat([torch.zeros(80_000), questions[0], pause, questions[1]]),
        sample_rate=16_000,
    )
    heard = run("transcribe", tmp_path / "long.wav").stdout.strip()
    assert heard == "So, which continent Hey, what's"  # four tokens each, by the fixture


@pytest.mark.parametrize(
    ("longest", "sentence", "parts"),
    [((), None, 1), (("--longest", 2), None, 6), ((), 5.0, 1), ((), 2.0, 6), (("--longest", 8), 2.0, 1)],
)
def test_a_file_is_split_where_it_is_longer_than_asked(
    longest, sentence, parts, model_folder, tone, tmp_path, monkeypatch
):
    own = of_sentences(model_folder, tmp_path / "model", sentence)
    heard = []
    monkeypatch.setattr(Conversation, "transcribe", lambda _, part: heard.append(len(part)) or "said")
    monkeypatch.setattr(DeepTalkConfig, "longest_clip_seconds", 30.0)
    result = run("transcribe", tone("long.wav", seconds=7.0), *longest, "--model", own)
    assert len(heard) == len(result.stdout.split()) == parts
    assert sum(heard) == 7 * 16_000
    assert "--longest" in run("transcribe", "long.wav", "--longest", "nan", code=2).stderr


def test_talk_refuses_a_file_for_its_folder_before_the_work(tone):
    (line,) = run("talk", tone(), "--out", tone("other.wav"), "--model", "none", code=2).stderr.splitlines()
    assert "answers go to a folder" in line


@pytest.mark.parametrize("given", [("talk", "--text", "hello"), ("say", "hello", "--out", "said.wav")])
def test_a_choice_without_a_temperature_is_refused(given):
    (line,) = run(*given, "--top-k", 5, code=2).stderr.splitlines()
    assert line == "--top-k 5 says from how many codes --temperature draws: give both."
