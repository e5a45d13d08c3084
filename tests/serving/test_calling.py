"""The client of Realtime servers, what users hear of answers, and the verbs that tell it."""

import asyncio
import base64
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from running import serve
from typer.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK

from deeptalk.cli import app
from deeptalk.cli.client import _playing
from deeptalk.cli.idle import busy_cores
from deeptalk.cli.served import served
from deeptalk.decoding import LoadedModel
from deeptalk.errors import AudioError, ConfigError, ProtocolError
from deeptalk.serving import events
from deeptalk.serving.calling import RATE, Arrival, Call, Received, call, play
from deeptalk.serving.load import Load, figures_of, is_in_real_time, means_between, put_load
from deeptalk.serving.security import Security
from deeptalk.serving.server import Server
from deeptalk.serving.service import Service

QUESTION = 0.1 * torch.sin(torch.arange(12_000) / 20)


def arrivals(*pairs: tuple[float, float]) -> tuple[Arrival, ...]:
    return tuple(Arrival(at=at, seconds=seconds) for at, seconds in pairs)


def received(*pairs: tuple[float, float], status: str = "completed") -> Received:
    """An answer to a turn that ended at 1 s."""
    sound = bytes(int(2 * RATE * sum(seconds for _, seconds in pairs)))
    return Received(text="", sound=sound, status=status, trouble="", asked_at=1.0, arrivals=arrivals(*pairs))


def test_sound_is_played_as_it_comes():
    played = play(arrivals((5.0, 0.5), (5.1, 0.5), (6.05, 0.5), (7.0, 0.5)))
    assert (played.num_pieces, played.num_late, played.num_gaps) == (4, 2, 1)  # 50 ms late is not heard
    assert played.until == pytest.approx(7.5)
    nothing = play(())
    assert (nothing.num_pieces, nothing.num_late, nothing.num_gaps) == (0, 0, 0)


def test_what_users_have_heard_in_figures():
    good, late, silent = received((1.25, 0.5), (1.5, 0.5)), received((1.75, 0.5), (3.25, 0.5)), received()
    figures = figures_of([[good, late], [silent]])
    assert figures == {
        "turns": 3,
        "completed": 3,
        "silent": 1,
        "first_audio_ms": {"p50": 500.0, "p95": 725.0, "p99": 745.0, "max": 750.0},
        "viability": 0.75,
        "underruns": 1,
        "underruns_per_minute": 30.0,
        "seconds_of_audio": 2.0,
    }
    assert [is_in_real_time(session) for session in ([good], [good, late], [good, silent], [])] == [
        True,
        False,
        False,
        False,
    ]
    empty = figures_of([[silent]])
    assert empty["first_audio_ms"] == {"p50": None, "p95": None, "p99": None, "max": None}
    assert (empty["viability"], empty["underruns_per_minute"]) == (0.0, 0.0)


def test_means_are_those_of_the_time_between_two_readings():
    before = '# HELP x y\ndeeptalk_step_seconds_sum 1\ndeeptalk_step_seconds_count 10\na{le="1"} 3\n'
    after = "deeptalk_step_seconds_sum 1.5\ndeeptalk_step_seconds_count 110\n"
    assert means_between(before, after).step_ms == pytest.approx(5.0)
    assert means_between(before, after).first_chunk_ms is None
    assert means_between("", "").step_ms is None


def test_turns_in_every_way_are_answered(loaded: LoadedModel):
    async def script(server: Server, service: Service, url: str) -> None:
        heard: list[bytes] = []
        async with call(url, voice="slt", on_sound=heard.append) as calling:
            spoken = await calling.say(QUESTION, is_paced=False)
            written = await calling.write("hello")
        for answer in (spoken, written):
            assert answer.status == "incomplete"
            assert answer.text
            assert answer.first_audio_seconds is not None
            assert answer.first_audio_seconds > 0
            assert answer.seconds == pytest.approx(sum(each.seconds for each in answer.arrivals))
            assert len(answer.sound) % (2 * 2048) == 0
        assert b"".join(heard) == spoken.sound + written.sound
        async with call(url, turns="server_vad") as calling:
            found = await calling.say(hum(0.6), is_paced=False)
        assert found.status == "incomplete"
        assert found.sound

    serve(loaded, script)


def hum(seconds: float) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return 0.1 * sum((torch.sin(2 * torch.pi * 180 * n * time) / n for n in range(1, 8)), torch.zeros(1))


class Scripted:
    """A server that has said all it will say, and takes so many events before it is gone."""

    def __init__(self, *told: object, num_taken: int = 1_000) -> None:
        self._told = [each if isinstance(each, str) else json.dumps(each) for each in told]
        self._num_taken = num_taken

    async def send(self, text: str) -> None:
        self._num_taken -= 1
        if self._num_taken < 0:
            raise ConnectionClosedOK(None, None)
        await asyncio.sleep(0)

    async def recv(self) -> str:
        await asyncio.sleep(0)
        return self._told.pop(0)


def say(server: Scripted) -> Received:
    async def main() -> Received:
        calling = Call(server, turns="server_vad", now=lambda: 0.0)  # pyright: ignore[reportArgumentType]
        return await asyncio.wait_for(calling.say(QUESTION, is_paced=False), 60)

    return asyncio.run(main())


def test_a_server_that_finds_no_turn_is_not_waited_for():
    class Silent(Scripted):
        async def recv(self) -> str:
            return await asyncio.Future()

    async def main() -> None:
        calling = Call(Silent(), turns="server_vad", patience=0.01)  # pyright: ignore[reportArgumentType]
        await calling.say(QUESTION, is_paced=False)

    with pytest.raises(
        ProtocolError, match=r"nothing for 0.01 s: it is stuck, or server_vad finds no speech"
    ):
        asyncio.run(main())


def piece(sound: bytes) -> dict[str, str]:
    return {"type": events.AUDIO_DELTA, "delta": base64.b64encode(sound).decode()}


def ended(status: str, **details: str) -> dict[str, Any]:
    return {"type": events.RESPONSE_DONE, "response": {"status": status, "status_details": details or None}}


def test_a_turn_with_a_pause_is_answered_once():
    """What the server began to answer in the pause, it has broken off."""
    cut = ended("cancelled", type="cancelled", reason="turn_detected")
    answer = say(Scripted(piece(b"aa"), cut, piece(b"bbbb"), ended("completed")))
    assert (answer.sound, answer.status, len(answer.arrivals)) == (b"bbbb", "completed", 1)


def test_a_server_that_answers_and_leaves_is_not_waited_for():
    assert say(Scripted(piece(b"aa"), ended("completed"), num_taken=2)).sound == b"aa"


@pytest.mark.parametrize("said", ["hello", ["hello"]])
def test_what_is_no_event_is_told(said: object):
    with pytest.raises(ProtocolError, match="is no event"):
        say(Scripted(said))


def test_a_turn_is_spoken_at_its_own_pace(loaded: LoadedModel):
    """Each tenth of a second leaves when it has been spoken; the clock is the sleeper's."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def script(server: Server, service: Service, url: str) -> None:
        async with connect(url) as socket:
            calling = Call(socket, turns="manual", now=lambda: sum(slept), sleep=sleep)
            await calling.begin(voice=None)
            answer = await calling.say(QUESTION, is_paced=True)
        assert slept == pytest.approx([0.1] * 5)
        assert answer.asked_at == pytest.approx(0.5)

    serve(loaded, script)


def test_servers_that_do_not_answer(loaded: LoadedModel):
    async def script(server: Server, service: Service, url: str) -> None:
        async with call(url) as calling:
            with pytest.raises(ProtocolError, match="503 All sessions are taken"):
                async with call(url):
                    pass
            with pytest.raises(ProtocolError, match="commit_empty"):
                await calling.say(QUESTION[:10], is_paced=False)
        async with call(url) as calling:
            service.is_draining = True
            await service.drain()
            with pytest.raises(ProtocolError, match="1001 going_away"):
                await calling.write("hello")
        with pytest.raises(ConfigError, match="no Realtime server answers"):
            async with call(url.replace("/v1/realtime", "").replace("ws", "http")):
                pass
        server.should_exit = True

    serve(loaded, script, max_sessions=1)
    for url in ("ws://127.0.0.1:9/v1/realtime", "ws://[", "nonsense"):
        with pytest.raises(ConfigError, match="no Realtime server answers"):
            asyncio.run(hang_up(url))


async def hang_up(url: str) -> None:
    async with call(url):
        pass


def test_sessions_talk_at_the_same_time(loaded: LoadedModel):
    async def script(server: Server, service: Service, url: str) -> None:
        load = Load(questions=[QUESTION, QUESTION[:6000]], num_sessions=2, num_turns=2, is_hurried=True)
        answers = await put_load(url, load)
        assert [len(session) for session in answers] == [2, 2]
        assert figures_of(answers)["silent"] == 0
        brief = Load(questions=[QUESTION], seconds=1e-6, pause_seconds=1e-6, is_hurried=True)
        assert [len(session) for session in await put_load(url, brief)] == [1]

    serve(loaded, script)


def told(arguments: list[Any], *, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


@pytest.fixture
def question(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "question.wav", QUESTION.numpy(), RATE)
    return tmp_path / "question.wav"


def test_the_client_verb_asks_files_and_texts(loaded: LoadedModel, question: Path, tmp_path: Path):
    async def script(server: Server, service: Service, url: str) -> None:
        out, broken = tmp_path / "out", tmp_path / "broken.wav"
        broken.write_text("no sound")
        common = ["client", "--url", url, "--out", out]
        result = await asyncio.to_thread(
            told, [*common, question, broken, "--text", "hello", "--json"], code=2
        )
        assert str(broken) in result.stderr
        spoken, written = (json.loads(line) for line in result.stdout.splitlines())
        assert set(spoken) == {
            *("input", "text", "audio", "status", "first_audio_ms", "seconds_of_audio", "underruns")
        }
        assert (spoken["input"], written["input"]) == (str(question), "hello")
        for answer in (spoken, written):
            assert answer["status"] == "incomplete"
            assert answer["first_audio_ms"] > 0
            duration = soundfile.info(answer["audio"]).duration
            assert answer["seconds_of_audio"] == pytest.approx(duration, abs=0.001)
            assert duration > 0
        result = await asyncio.to_thread(told, [*common, "--text", "hello"])
        assert "first audio after" in result.stdout
        service.is_draining = True
        result = await asyncio.to_thread(told, [*common, "--text", "hello"], code=2)
        assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
        server.should_exit = True

    serve(loaded, script)


def test_the_client_verb_takes_a_microphone_and_plays(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stand-ins of both: what is said at 16 kHz is asked, too little is told, and the answer is played."""
    played: list[torch.Tensor] = []
    said = [
        0.1 * torch.sin(torch.arange(8_000) / 13),
        torch.zeros(10),
        0.1 * torch.ones(9_000).cumsum(0).sin(),
    ]

    class Loudspeaker:
        def play(self, samples: torch.Tensor, *, sample_rate: int) -> None:
            assert sample_rate == RATE
            played.append(samples)

    monkeypatch.setattr("deeptalk.cli.sound.record_turns", lambda: iter(said))
    monkeypatch.setattr("deeptalk.cli.sound.open_speaker", lambda: nullcontext(Loudspeaker()))

    async def script(server: Server, service: Service, url: str) -> None:
        asked = ["client", "--url", url, "--out", tmp_path, "--mic", "--play", "--json"]
        result = await asyncio.to_thread(told, asked, code=2)
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        assert [answer["input"] for answer in answers] == ["microphone", "microphone"]
        assert "microphone" in result.stderr
        assert len({answer["audio"] for answer in answers}) == 2
        whole = sum(answer["seconds_of_audio"] for answer in answers)
        assert len(torch.cat(played)) == pytest.approx(RATE * whole, abs=RATE / 500)

    serve(loaded, script)


def test_a_loudspeaker_that_fails_is_told(monkeypatch: pytest.MonkeyPatch):
    class Loudspeaker:
        def play(self, samples: torch.Tensor, *, sample_rate: int) -> None:
            raise AudioError("loudspeaker: gone")

    monkeypatch.setattr("deeptalk.cli.sound.open_speaker", lambda: nullcontext(Loudspeaker()))
    with pytest.raises(AudioError, match="gone"), _playing(True) as hand_over:
        hand_over(bytes(2))


def test_slips_of_the_client_verb_are_one_line(tmp_path: Path):
    assert "nothing to ask" in told(["client"], code=2).stderr
    out = tmp_path / "out"
    result = told(["client", "--text", "x", "--url", "ws://127.0.0.1:9/", "--out", out], code=2)
    assert "no Realtime server answers" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not out.exists()


FIGURES = {
    *("name", "model", "sessions", "real_time_sessions", "turns", "completed", "silent", "first_audio_ms"),
    *("viability", "underruns", "underruns_per_minute", "seconds_of_audio", "busy_cores", "valid"),
}


def test_the_measuring_verbs(loaded: LoadedModel, question: Path, monkeypatch: pytest.MonkeyPatch):
    busy = iter([0.0, 0.01, 0.0, 0.9, 0.0, 0.9])
    monkeypatch.setattr("deeptalk.cli.idle.busy_cores", lambda: next(busy))

    async def script(server: Server, service: Service, url: str) -> None:
        common = [question, "--url", url, "--hurried", "--json"]
        result = await asyncio.to_thread(told, ["bench", "latency", *common, "--turns", 2])
        line = json.loads(result.stdout)
        assert set(line) == FIGURES | {"split", "paper"}
        assert (line["name"], line["sessions"], line["turns"], line["silent"]) == ("latency", 1, 2, 0)
        assert (line["busy_cores"], line["valid"], line["model"]) == ([0.0, 0.01], True, None)
        split, first = line["split"], line["first_audio_ms"]
        assert set(split) == {"first_chunk_ms", "step_ms", "network_ms"}
        assert split["step_ms"] > 0
        assert 0 < split["first_chunk_ms"] <= first["max"]
        assert split["first_chunk_ms"] + split["network_ms"] == pytest.approx((first["p50"]), abs=0.1)
        assert line["paper"]["first_chunk_ms"] == 341.7
        counts = ["--n", 1, "--n", 2, "--seconds", 0.1, "--pause", 0]
        result = await asyncio.to_thread(told, ["bench", "sessions", *common, *counts], code=3)
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert [set(line) for line in lines] == [FIGURES | {"step_ms"}] * 2
        assert [line["sessions"] for line in lines] == [1, 2]
        assert not lines[0]["valid"]
        counts = ["--n", 1, "--seconds", 0.1, "--pause", 0, "--allow-busy"]
        result = await asyncio.to_thread(told, ["bench", "sessions", *common[:-1], *counts])
        assert "real_time_sessions" in result.stdout

    serve(loaded, script)


def test_a_crowd_is_measured(loaded: LoadedModel, question: Path, monkeypatch: pytest.MonkeyPatch):
    """Three find no room, three have a wrong key and three never read; somebody else is answered."""
    monkeypatch.setattr("deeptalk.cli.idle.busy_cores", lambda: 0.0)

    async def script(server: Server, service: Service, url: str) -> None:
        asked = [
            "bench",
            "crowd",
            question,
            "--url",
            url,
            "--api-key",
            "the-right-key",
            "--hurried",
            "--json",
        ]
        result = await asyncio.to_thread(told, [*asked, "--clients", 3, "--turns", 2])
        line = json.loads(result.stdout)
        assert (line["name"], line["clients"], line["silent"], line["valid"]) == ("crowd", 3, 0, True)
        for kind in ("full", "wrong_key"):
            refused = line["refused"][kind]
            assert refused["asked"] == refused["refused"]
            assert refused["asked"] % 3 == 0
            assert 0 < refused["ms"]["p50"] <= refused["ms"]["max"]
        assert (line["deaf"]["asked"], line["deaf"]["cut"]) == (3, 3)
        assert set(line["deaf"]) == {"asked", "cut", "seconds", "memory_growth_mb"}
        assert set(line["first_audio_ms"]) == {"alone", "beside_deaf", "beside_refused"}
        assert all(waits["p50"] > 0 for waits in line["first_audio_ms"].values())
        asked_in_all = sum(refused["asked"] for refused in line["refused"].values())
        assert service.metrics.total("deeptalk_rejects_total") == asked_in_all
        slips = {
            ("the-right-key", 9): "--max-sessions",
            ("the-wrong-key", 1): "refuses",
        }
        for (key, clients), words in slips.items():
            asked = ["bench", "crowd", question, "--url", url, "--api-key", key, "--hurried"]
            result = await asyncio.to_thread(told, [*asked, "--clients", clients, "--turns", 1], code=2)
            assert words in result.stderr
            assert "Traceback" not in result.stderr

    limits = {"max_sessions": 4, "stalled_seconds": 0.5}
    serve(loaded, script, security=Security(key="the-right-key"), **limits)


def test_other_work_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of 200 ticks on two cores, 120 were idle and 20 waited for a disk: 0.6 cores were busy."""
    source = tmp_path / "stat"
    cores = "cpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 1\n"
    source.write_text("cpu  10 0 10 500 0 0 0 0 0 0\n" + cores)
    later = "cpu  60 0 20 620 20 0 0 0 0 0\n" + cores
    monkeypatch.setattr("deeptalk.cli.idle.time.sleep", lambda seconds: source.write_text(later))
    assert busy_cores(source=source) == 0.6
    assert busy_cores(source=tmp_path / "none") is None


def test_a_server_of_its_own(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The process is a stand-in that tells where a server is."""
    process = tmp_path / "python"
    monkeypatch.setattr("deeptalk.cli.served.sys.executable", str(process))

    def run_on(words: str) -> str:
        process.write_text(f"#!/bin/sh\necho '{words}'\necho \"$@\" >&2\nexec sleep 60\n")
        process.chmod(0o755)
        with served("--no-ui", log=tmp_path / "log") as url:
            return url

    async def script(server: Server, service: Service, url: str) -> None:
        base = url.replace("ws", "http").removesuffix("/realtime")
        assert await asyncio.to_thread(run_on, f"{base} (stop with Ctrl-C)") == url
        assert (tmp_path / "log").read_text() == "-m deeptalk serve --port 0 --no-ui\n"

    serve(loaded, script)
    with pytest.raises(ConfigError, match="has not started"):
        run_on("")
