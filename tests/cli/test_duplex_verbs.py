"""Full-Duplex-Bench there and back: turns on a recording's clock, files for the bench, its figures."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.cli.half_duplex import Uttered, mix, speech_intervals, take_turns, words_of
from deeptalk.errors import AudioError
from deeptalk.evaluation.benchmarks.llm_judge import LlmJudge
from deeptalk.serving.detector import TurnDetector
from deeptalk.serving.settings import TurnDetection

RATE = 24_000


class Talk:
    """Says four words in two seconds to everything; cannot hear its first ``deaf`` turns."""

    sample_rate = RATE

    def __init__(self, deaf: int = 0) -> None:
        self.heard: list[float] = []
        self.deaf = deaf
        self.last_reply = SimpleNamespace(text="one two three four", time_to_first_audio_ms=300.0)

    def listen(self, samples: torch.Tensor) -> None:
        self.heard.append(len(samples) / 16_000)
        if len(self.heard) <= self.deaf:
            raise AudioError("too short")

    def reply(self):
        yield from (SimpleNamespace(samples=torch.full((RATE,), 0.5)) for _ in range(2))


def recording(*bursts: tuple[float, float], seconds: float) -> torch.Tensor:
    """Tones between some moments, silence else."""
    at = np.arange(round(seconds * 16_000)) / 16_000
    wave = np.zeros(len(at), dtype=np.float32)
    for start, end in bursts:
        wave += np.where((at >= start) & (at < end), 0.3 * np.sin(2 * np.pi * 440 * at), 0)
    return torch.from_numpy(wave.astype(np.float32))


def said_to(samples: torch.Tensor, talk: Talk) -> list[Uttered]:
    return take_turns(samples, talk, TurnDetector(TurnDetection(), longest_seconds=30.0))  # pyright: ignore


def test_turns_are_heard_out_and_replies_fall_silent() -> None:
    talk = Talk()
    first, second = said_to(recording((0.5, 1.5), (3.0, 4.0), seconds=6.0), talk)
    assert len(talk.heard) == 2
    assert all(1.0 <= seconds < 1.8 for seconds in talk.heard)
    assert first.start == pytest.approx(1.5 + 0.5 + 0.3, abs=0.05)
    assert 3.3 < first.end < 3.5  # spoken into at 3.0, which took 350 ms of voice to be sure
    assert (second.start, second.end) == (pytest.approx(4.8, abs=0.05), 6.0)  # cut by the recording's end
    mixed = mix([first, second], seconds=6.0, rate=RATE)
    assert len(mixed) == 6 * RATE
    loud = mixed > 0
    for moment, is_loud in ((2.2, False), (2.4, True), (3.3, True), (3.6, False), (4.7, False), (5.9, True)):
        assert bool(loud[round(moment * RATE)]) is is_loud
    words = words_of([first, second])
    assert [word.text for word in words] == ["one", "two"] * 2  # about half of both
    assert words[0].start == pytest.approx(first.start, abs=1e-3)
    assert words[1].end == pytest.approx(first.end, abs=1e-3)


def test_a_reply_that_is_late_is_not_heard_at_all() -> None:
    talk = Talk()
    talk.last_reply.time_to_first_audio_ms = 2_000.0
    first, second = said_to(recording((0.5, 1.5), (2.5, 3.5), seconds=8.0), talk)
    assert first.start == first.end
    assert words_of([first]) == []
    assert second.end - second.start == pytest.approx(2.0)
    (only,) = said_to(recording((0.5, 1.5), seconds=3.0), talk)
    assert only.start > 3.0
    assert (len(only.heard), words_of([only])) == (0, [])
    assert not mix([only], seconds=3.0, rate=RATE).any()


def test_what_can_not_be_heard_gets_no_reply() -> None:
    assert len(said_to(recording((0.5, 1.5), (3.0, 4.0), seconds=6.0), Talk(deaf=1))) == 1
    assert said_to(recording(seconds=2.0), Talk()) == []


def test_voice_is_found_where_it_is(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", recording((0.5, 1.5), seconds=2.0).numpy(), 16_000)
    found = speech_intervals(tmp_path / "a.wav")
    assert found[0][0] == pytest.approx(0.5, abs=0.03)
    assert found[-1][1] == pytest.approx(1.5, abs=0.03)
    soundfile.write(tmp_path / "b.wav", np.zeros(16_000), 16_000)
    assert speech_intervals(tmp_path / "b.wav") == []
    (tmp_path / "c.wav").write_text("no sound")
    with pytest.raises(AudioError, match=r"c\.wav: not audio that can be read"):
        speech_intervals(tmp_path / "c.wav")


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    for name in ("1", "2"):
        folder = tmp_path / "bench" / name
        folder.mkdir(parents=True)
        soundfile.write(folder / "input.wav", recording((0.3, 1.0), seconds=2.5).numpy(), 16_000)
        (folder / "turn_taking.json").write_text('[{"text": "x", "timestamp": [1.0, 2.5]}]')
        (folder / "output.json").write_text("of another model")
        (folder / "latency_intervals.json").write_text("of another model")
    soundfile.write(
        tmp_path / "bench" / "1" / "clean_input.wav", recording(seconds=2.0).numpy() + 1e-3, 16_000
    )
    soundfile.write(
        tmp_path / "bench" / "2" / "clean_input.wav", recording((0.2, 0.9), seconds=2.0).numpy(), 16_000
    )
    return tmp_path / "bench"


@pytest.mark.usefixtures("short_answers")
def test_there_and_back(bench, model_folder, tmp_path):
    out = tmp_path / "out"
    given = ("converse", bench, "--out", out, "--model", model_folder, "--json")
    told = json.loads(run(*given, code=1).stdout)
    assert (told["num_items"], told["num_missing"], told["settings"]["words"]) == (2, 1, "even")
    assert sorted(path.name for path in (out / "2").iterdir()) == [
        *("clean_input.wav", "clean_output.json", "clean_output.wav"),
        *("input.wav", "output.json", "output.wav", "turn_taking.json"),
    ]
    assert not (out / "1" / "clean_output.json").exists()  # silent
    for name in ("1", "2"):
        info = soundfile.info(out / name / "output.wav")
        assert abs(info.duration - 2.5) <= 0.02
        assert set(json.loads((out / name / "output.json").read_text())) == {"text", "chunks"}
    before = (out / "2" / "output.wav").stat().st_mtime_ns
    again = run(*given, "--allow-missing")
    assert (out / "2" / "output.wav").stat().st_mtime_ns == before
    assert "1: clean_input.wav: the recording is silent." in again.stderr
    assert str(bench) not in again.stderr
    score = ("score-duplex", out, "--task", "turn_taking", "--timing")
    values = json.loads(run(*score, "--json").stdout)
    assert (values["take_over"]["total"], values["num_missing"], values["detector"]) == (2, 0, "energy")
    assert values["about"]["run"] == json.loads((out / "run.json").read_text())
    assert (values["data"], values["relevance"]) == (values["about"]["run"]["samples"], None)
    written = json.loads((out / "1" / "latency_intervals.json").read_text())
    assert set(written) == {"latency_stop_list", "latency_resp_list"}
    assert values["stop_latency"]["total"] == 2
    (out / "1" / "output.json").unlink()
    (out / "1" / "output.wav").unlink()
    lost = run(*score, code=1)
    assert json.loads(run(*score, "--json", code=1).stdout)["response_latency"]["total"] == 2
    assert "1 of 2 samples have no reply" in lost.stderr
    assert "not full duplex; take-over should be high" in lost.stdout
    soundfile.write(bench / "2" / "input.wav", recording((0.4, 1.1), seconds=2.5).numpy(), 16_000)
    assert "holds a run of another model or of other settings" in run(*given, code=2).stderr


def test_replies_to_interruptions_are_rated(tmp_path, monkeypatch):
    replies = {"good": "Sunny.", "odd": "Well.", "late": "Later.", "silent": ""}
    for name, reply in replies.items():
        folder = tmp_path / "bench" / name
        folder.mkdir(parents=True)
        soundfile.write(folder / "input.wav", recording((0.3, 1.0), seconds=2.0).numpy(), 16_000)
        told = [{"context": "Once {reply} upon", "interrupt": f"Weather, {name}?", "timestamp": [0.5, 1.0]}]
        (folder / "interrupt.json").write_text(json.dumps(told))
        chunks = [{"text": word, "timestamp": [1.2, 2.4]} for word in reply.split()]
        (folder / "output.json").write_text(json.dumps({"text": reply, "chunks": chunks}))
    asked = []

    def transport(url, body, *, headers, timeout_seconds):
        asked.append(json.loads(body)["messages"][0]["content"])
        if "late" in asked[-1]:
            raise TimeoutError
        said = " 4." if "good" in asked[-1] else "between 3 and 5"
        return json.dumps({"choices": [{"message": {"content": said}}]}).encode()

    monkeypatch.setitem(LlmJudge.__init__.__kwdefaults__, "transport", transport)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    judged = ("--judge-url", "http://here/v1", "--judge-model", "m", "--judge-replies", tmp_path / "r.jsonl")
    given = ("score-duplex", tmp_path / "bench", "--task", "interruption", *judged, "--json")
    result = run(*given, code=1)
    relevance = json.loads(result.stdout)["relevance"]
    assert (relevance["value"], relevance["count"], relevance["total"]) == (1.0, 1, 4)
    assert relevance["num_unjudged"] == 2
    assert relevance["judge"].startswith("m, prompt ")
    assert "2 were not judged" in result.stderr
    assert len(asked) == 1 + 1 + 3  # a late judge is asked three times, a silent reply is not asked about
    assert "Once {reply} upon" in asked[0]
    ratings = {name: json.loads((tmp_path / "bench" / name / "rating.json").read_text()) for name in replies}
    assert ratings == {
        "good": {"rating": 4, "reason": "judged"},
        "odd": {"rating": 0, "reason": "unreadable"},
        "late": {"rating": 0, "reason": "no reply"},
        "silent": {"rating": 0, "reason": "no answer"},
    }
    assert "relevance" in run(*given[:-1], "--allow-missing").stdout
    other = ("score-duplex", tmp_path / "bench", "--task", "pause", *judged)
    (line,) = run(*other, code=2).stderr.splitlines()
    assert "give it with --task interruption" in line


def test_mistakes_are_one_line_and_nothing_is_written(bench, model_folder, tmp_path):
    for arguments, complaint in (
        (("converse", tmp_path, "--out", tmp_path / "out"), "no folders with an input.wav"),
        (("converse", bench, "--out", tmp_path / "out", "--model", model_folder, "--voice", "bob"), "bob"),
        (("converse", bench, "--out", bench), "the bench's own folder is only read"),
        (("score-duplex", bench, "--task", "chat"), "no task is called 'chat'"),
        (("score-duplex", bench, "--task", "interruption"), "interrupt.json: it does not tell"),
    ):
        lines = run(*arguments, code=2).stderr.splitlines()
        assert len(lines) == 1, lines
        assert complaint in lines[0]
    assert not (tmp_path / "out").exists()
