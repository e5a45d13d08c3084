"""Turns that the server finds by itself, and answers that are interrupted; the clock is the test's."""

import asyncio
import base64
import itertools
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from realtime_client import Client
from typer.testing import CliRunner

from deeptalk.cli import app as command_line
from deeptalk.decoding import DecodingOptions, Limits, LoadedModel, load
from deeptalk.errors import ConfigError
from deeptalk.evaluation.normalize import plain
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet
from deeptalk.serving import events
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.detector import Heard, Patience, TurnDetector
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread, Request
from deeptalk.serving.settings import EAGERNESS, TurnDetection, new_session, read_settings, updated
from deeptalk.serving.turns import Ear, Said
from deeptalk.serving.words import CHARACTERS_PER_SECOND

RATE = 16_000


def voice(seconds: float, *, rate: int = RATE) -> torch.Tensor:
    """A hum with overtones."""
    time = torch.arange(int(seconds * rate)) / rate
    return 0.1 * sum((torch.sin(2 * torch.pi * 180 * n * time) / n for n in range(1, 8)), torch.zeros(1))


def hush(seconds: float, *, rate: int = RATE, loud: float = 0.001) -> torch.Tensor:
    return loud * torch.randn(int(seconds * rate), generator=torch.Generator().manual_seed(0))


def still(seconds: float) -> torch.Tensor:
    """Hardly any noise, 49 dB under ``voice``."""
    return hush(seconds, loud=0.0003)


def detect(
    *parts: torch.Tensor, audible: bool = False, size: int = 777, longest: float = 5.0, **settings: int
) -> list[Heard]:
    detector = TurnDetector(TurnDetection(**settings), longest_seconds=longest)
    chunks = torch.cat(parts).split(size)
    return [heard for chunk in chunks for heard in detector.push(chunk, is_audible=audible)]


def marks(found: list[Heard]) -> list[tuple[str, int]]:
    return [(heard.kind, heard.at_ms) for heard in found if heard.kind != "sound"]


@pytest.mark.parametrize("size", [160, 4321])
def test_a_turn_has_what_led_up_to_it_and_ends_after_silence(size: int):
    sounds = [still(1.0), voice(0.8), still(0.3), voice(0.4), still(1.2)]
    found = detect(*sounds, size=size)
    [(begun, start), (ended, end)] = marks(found)
    assert (begun, ended) == ("started", "stopped")
    assert abs(start - 700) <= 20
    assert abs(end - 3000) <= 40
    samples = torch.cat([heard.samples for heard in found])
    whole = torch.cat(sounds)[start * 16 : end * 16]
    lead, tail = (ms * 16 for ms in (300 - 80, 500 - 100))  # of the quiet around it, a moment is kept
    assert abs(len(whole) - lead - tail - len(samples)) <= 640
    first = next(n for n in range(0, 8000, 320) if torch.equal(whole[n : n + 320], samples[:320]))
    assert torch.equal(samples, whole[first : first + len(samples)])


def test_sound_that_is_only_soft_is_no_quiet():
    """Hiss 33 dB under a voice is kept, as far as it belongs to the turn."""
    sounds = [hush(1.0, loud=0.002), voice(0.8), hush(1.0, loud=0.002)]
    found = detect(*sounds)
    [(_, start), (_, end)] = marks(found)
    samples = torch.cat([heard.samples for heard in found])
    assert torch.equal(samples, torch.cat(sounds)[start * 16 : end * 16])


def test_noise_and_clicks_are_no_turn():
    assert marks(detect(hush(2.0), hush(1.0, loud=0.05), hush(1.0))) == []
    assert marks(detect(hush(0.5), voice(0.04), hush(1.0))) == []


def test_a_voice_without_end_is_cut():
    found = marks(detect(hush(0.5), voice(6.0)))
    assert [kind for kind, _ in found] == ["started", "stopped", "started"]
    assert found[1][1] - found[0][1] == 5000


def test_silence_holds_no_more_than_the_padding():
    detector = TurnDetector(TurnDetection(), longest_seconds=5.0)
    for _ in range(20):
        assert detector.push(hush(1.0), is_audible=False) == []
    assert len(detector._kept) == 15


def test_over_an_answer_a_backchannel_is_ignored_and_a_sentence_is_not():
    brief = [hush(1.0), voice(0.2), hush(1.0)]
    assert [kind for kind, _ in marks(detect(*brief, audible=True))] == ["backchannel"]
    assert [kind for kind, _ in marks(detect(*brief, audible=False))] == ["started", "stopped"]
    [(kind, start), *_] = marks(detect(hush(1.0), voice(0.6), hush(1.0), audible=True))
    assert kind == "started"
    assert abs(start - 700) <= 20


@pytest.mark.weights
def test_the_built_in_model_understands_turns_that_were_found():
    """A spoken question of each kind: as many right, but for one, as with the recordings as they are."""
    spoken = EvalSet(Path(str(files("deeptalk"))) / "assets" / "evaluation")
    kinds = [[item for item in spoken.of(kind) if not item.text_only] for kind in FIVE_CATEGORIES]
    items = [item for kind in kinds for item in kind[:1]]
    thread = ModelThread(load("pocket"), limits=ServerLimits())
    options = DecodingOptions(limits=Limits(max_frames=1))  # the words are all that is wanted

    async def answered(samples: torch.Tensor) -> str:
        ear, outlet = Ear(), thread.new_outlet()
        ear.push(samples)
        ear.close()
        thread.hear(ear)
        thread.ask(Request(turns=[ear], mode="speaker:slt", options=options, outlet=outlet))
        while thread.tick():
            pass
        text = "".join([piece.text async for piece in outlet.pieces()])
        assert outlet.ended is not None
        assert outlet.ended.error is None
        return plain(text)

    async def main() -> list[int]:
        right = [0, 0]
        for item in items:
            sound, quiet = spoken.speech(item.turns[0]), torch.zeros(RATE)
            found = detect(quiet, sound, quiet, longest=30.0)
            assert [kind for kind, _ in marks(found)] == ["started", "stopped"]
            for number, samples in enumerate((sound, torch.cat([heard.samples for heard in found]))):
                right[number] += await answered(samples) == plain(item.answers[0])
        return right

    manual, found = asyncio.run(main())
    assert found >= manual - 1
    assert found >= 3


def test_few_of_many_backchannels_interrupt_and_every_sentence_does():
    """Fifty grunts of 60 to 300 ms and as many sentences, of any loudness and at any moment of a frame."""
    chance = random.Random(0)

    def said(shortest: float, longest: float) -> list[str]:
        lead = hush(chance.uniform(0.5, 0.6))
        speech = chance.uniform(0.3, 3.0) * voice(chance.uniform(shortest, longest))
        return [kind for kind, _ in marks(detect(lead, speech, hush(0.8), audible=True))]

    assert sum("started" in said(0.06, 0.3) for _ in range(50)) <= 2
    assert all(said(0.45, 1.0)[:1] == ["started"] for _ in range(50))


def sent(*parts: torch.Tensor) -> str:
    return base64.b64encode(encode_pcm(torch.cat(parts))).decode()


async def speak(client: Client, *parts: torch.Tensor) -> None:
    for chunk in torch.cat(parts).split(2400):
        await client.send("input_audio_buffer.append", audio=sent(chunk))


def test_turns_are_answered_and_barge_in_cuts(thread: ModelThread):
    """With a clock that stands still, all that was sent is still to be heard when the user breaks in."""
    clock = [0.0]
    counted = ("deeptalk_barge_ins_total", "deeptalk_backchannels_ignored_total")
    before = [thread.metrics.total(name) for name in counted]

    async def main() -> None:
        async with Client(thread, now=lambda: clock[0]) as client:
            await speak(client, hush(0.5, rate=24_000), voice(0.6, rate=24_000), hush(0.8, rate=24_000))
            first = (await client.until(events.RESPONSE_DONE))["response"]
            names = [event["type"] for event in client.events]
            order = ["speech_started", "speech_stopped", "committed"]
            assert [name for name in names if name.startswith("input")] == [
                f"input_audio_buffer.{name}" for name in order
            ]
            item_ids = {event["item_id"] for event in client.events if event["type"].startswith("input")}
            assert item_ids == {client.of(events.ITEM_ADDED)[0]["item"]["id"]}
            assert first["status"] == "incomplete"
            assert client.session.is_audible
            await speak(client, voice(0.2, rate=24_000), hush(0.6, rate=24_000))
            assert len(client.of(events.SPEECH_STARTED)) == 1
            said = first["output"][0]["content"][0]["transcript"]
            await speak(client, voice(0.6, rate=24_000))
            assert len(client.of(events.SPEECH_STARTED)) == 2
            assert not client.session.is_audible
            await client.send("conversation.item.retrieve", item_id=first["output"][0]["id"])
            kept = (await client.until(events.ITEM_RETRIEVED))["item"]["content"][0]["transcript"]
            assert said
            assert kept == ""
            await speak(client, hush(0.8, rate=24_000))
            second = (await client.until(events.RESPONSE_DONE))["response"]
            assert second["status"] == "incomplete"
            clock[0] += 60.0
            assert not client.session.is_audible
            assert not client.of(events.ERROR)

    asyncio.run(main())
    assert [thread.metrics.total(name) - old for name, old in zip(counted, before, strict=True)] == [1, 1]


def test_how_much_voice_interrupts_is_for_the_operator_to_say(thread: ModelThread):
    async def main() -> None:
        async with Client(thread, now=lambda: 0.0, patience=Patience(barge_in_ms=100)) as client:
            await speak(client, hush(0.5, rate=24_000), voice(0.6, rate=24_000), hush(0.8, rate=24_000))
            await client.until(events.RESPONSE_DONE)
            assert client.session.is_audible
            await speak(client, voice(0.2, rate=24_000), hush(0.8, rate=24_000))
            assert len(client.of(events.SPEECH_STARTED)) == 2
            await client.until(events.RESPONSE_DONE)

    asyncio.run(main())
    for wrong in ({"onset_ms": 0}, {"barge_in_ms": 700}, {"silence_ms": 0}, {"louder_db": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Patience(**wrong)  # pyright: ignore[reportArgumentType]
    result = CliRunner().invoke(command_line, ["serve", "--barge-in-ms", "700"])
    assert (result.exit_code, "barge_in_ms" in result.output) == (2, True)


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_no_delta_follows_the_start_of_speech(still: ModelThread, nth: int):
    """The user breaks in at a piece of sound: the answer is cancelled, and the turn answered."""

    async def drive(is_running: asyncio.Event) -> None:
        while True:
            await is_running.wait()
            still.tick()
            await asyncio.sleep(0)

    async def main() -> None:
        is_running = asyncio.Event()
        is_running.set()
        driving = asyncio.create_task(drive(is_running))
        async with Client(still, now=lambda: 0.0) as client:
            client.on_event = lambda event: (
                is_running.clear() if len(client.of(events.AUDIO_DELTA)) == nth else None
            )
            content = [{"type": "input_text", "text": "hello"}]
            item = {"type": "message", "role": "user", "content": content}
            await client.send("conversation.item.create", item=item)
            await client.send("response.create")
            for _ in range(nth):
                await client.until(events.AUDIO_DELTA)
            client.on_event = lambda event: None
            await client.send("input_audio_buffer.append", audio=sent(voice(0.7, rate=24_000)))
            is_running.set()
            names = [event["type"] for event in client.events]
            start = names.index(events.SPEECH_STARTED)
            await speak(client, hush(0.8, rate=24_000))
            first = (await client.until(events.RESPONSE_DONE))["response"]
            assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            after = [event for event in client.events[start:] if event.get("response_id") == first["id"]]
            assert not {events.AUDIO_DELTA, events.TRANSCRIPT_DELTA} & {event["type"] for event in after}
            assert (await client.until(events.RESPONSE_DONE))["response"]["status"] == "incomplete"
        driving.cancel()

    asyncio.run(main())


@pytest.mark.slow
def test_a_hundred_times_the_user_breaks_in(loaded: LoadedModel):
    """At any moment of an answer: no piece of it follows, it ends once, and no unheard word stays."""
    still = ModelThread(loaded, limits=ServerLimits(answer_seconds=0.8, context_positions=60))
    chance, clock = random.Random(0), 0.0

    async def work(ticks: int) -> None:
        for _ in range(ticks):
            still.tick()
            await asyncio.sleep(0)

    async def until(client: Client, name: str) -> dict[str, Any]:
        coming = asyncio.create_task(client.until(name))
        while not coming.done():
            await work(1)
        return await coming

    async def break_in(client: Client) -> tuple[str, int]:
        """Hear some of the answer and say a sentence; how the answer ended, and where in the events."""
        nonlocal clock
        response = client.session._response
        assert response is not None
        await work(chance.randint(0, 24))
        heard_seconds = chance.uniform(0.0, 0.9) * response.item.sound_ms / 1000
        clock += heard_seconds
        begun = len(client.of(events.SPEECH_STARTED))
        sentence = [voice(chance.uniform(0.45, 0.9), rate=24_000), hush(0.8, rate=24_000)]
        for chunk in torch.cat(sentence).split(2400):
            await client.send("input_audio_buffer.append", audio=sent(chunk))
            await work(chance.randint(0, 1))
        assert len(client.of(events.SPEECH_STARTED)) == begun + 1
        done = (await until(client, events.RESPONSE_DONE))["response"]
        kept = "".join(turn.text for turn in response.item.turns if isinstance(turn, Said))
        assert len(kept) <= CHARACTERS_PER_SECOND * heard_seconds
        assert response.item.said.startswith(kept)
        assert done["id"] == response.id
        return done["status"], done["id"]

    async def main() -> list[str]:
        statuses: list[str] = []
        async with Client(still, now=lambda: clock) as client:
            await client.say("hello")
            await client.send("response.create")
            for _ in range(100):
                await until(client, events.RESPONSE_CREATED)
                status, response_id = await break_in(client)
                statuses.append(status)
                names = [event["type"] for event in client.events]
                start = len(names) - names[::-1].index(events.SPEECH_STARTED)
                after = [event for event in client.events[start:] if event.get("response_id") == response_id]
                assert not {events.AUDIO_DELTA, events.TRANSCRIPT_DELTA} & {event["type"] for event in after}
            ids = [event["response"]["id"] for event in client.of(events.RESPONSE_DONE)]
            assert len(set(ids)) == len(ids) == 100
        return statuses

    statuses = asyncio.run(main())
    assert min(statuses.count(status) for status in ("cancelled", "incomplete")) > 10


def test_a_long_silence_after_an_answer_is_a_turn(thread: ModelThread):
    """It counts from the end of the sound, once for each answer, and not while the user speaks."""
    clock = [0.0]
    still_air = hush(1.0, rate=24_000)

    async def main() -> None:
        async with Client(thread, now=lambda: clock[0]) as client:
            idle = {"type": "server_vad", "idle_timeout_ms": 5000, "silence_duration_ms": 200}
            await client.send("session.update", session={"audio": {"input": {"turn_detection": idle}}})
            for _ in range(7):  # nothing has been answered yet
                await speak(client, still_air)
            assert not client.of(events.TIMEOUT_TRIGGERED)
            await speak(client, voice(0.5, rate=24_000), hush(0.5, rate=24_000))
            await client.until(events.RESPONSE_DONE)
            for _ in range(7):  # the answer is still to be heard
                await speak(client, still_air)
            assert not client.of(events.TIMEOUT_TRIGGERED)
            clock[0] += 60.0
            for _ in range(4):
                await speak(client, still_air)
            await speak(client, voice(0.5, rate=24_000), hush(0.5, rate=24_000))
            await client.until(events.RESPONSE_DONE)
            clock[0] += 60.0
            assert not client.of(events.TIMEOUT_TRIGGERED)
            for _ in range(6):
                await speak(client, still_air)
            [event] = client.of(events.TIMEOUT_TRIGGERED)
            assert event["audio_start_ms"] == pytest.approx(7000 + 1000 + 7000 + 4000 + 1000, abs=200)
            assert 5000 <= event["audio_end_ms"] - event["audio_start_ms"] < 5200
            assert client.of(events.INPUT_COMMITTED)[-1]["item_id"] == event["item_id"]
            assert len(client.of(events.SPEECH_STARTED)) == 2
            response = (await client.until(events.RESPONSE_DONE))["response"]
            assert response["status"] == "incomplete"
            assert len(client.of(events.TIMEOUT_TRIGGERED)) == 1
            assert not client.of(events.ERROR)

    asyncio.run(main())


@pytest.mark.parametrize("padding", [300, 0])
def test_a_silence_is_committed_once_where_the_client_answers(thread: ModelThread, padding: int):
    moments = itertools.count(step=1000)

    async def main() -> None:
        async with Client(thread, now=lambda: float(next(moments))) as client:
            idle = {"idle_timeout_ms": 5000, "create_response": False, "prefix_padding_ms": padding}
            await client.send("session.update", session={"audio": {"input": {"turn_detection": idle}}})
            await client.say("hello")
            await client.answer()
            for _ in range(3):
                await speak(client, hush(6.0, rate=24_000))
            assert len(client.of(events.TIMEOUT_TRIGGERED)) == len(client.of(events.INPUT_COMMITTED)) == 1
            usage = (await client.answer())["usage"]
            assert usage["input_token_details"]["audio_tokens"] > 0

    asyncio.run(main())


@pytest.mark.parametrize("given", [4999, 30_001, "long", True])
def test_a_silence_that_can_not_be_waited_for(thread: ModelThread, given: object):
    async def main() -> None:
        async with Client(thread) as client:
            idle = {"idle_timeout_ms": given}
            await client.send("session.update", session={"audio": {"input": {"turn_detection": idle}}})
            error = (await client.until(events.ERROR))["error"]
            assert error["code"] == "invalid_value"
            assert error["param"] == "session.audio.input.turn_detection.idle_timeout_ms"

    asyncio.run(main())


def test_minutes_of_sound_at_once_hold_up_nobody(still: ModelThread):
    """While turns are looked for in them, others have their turn in every second."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        async with Client(still) as client:
            beside = asyncio.create_task(others())
            await speak(client, hush(12.0, rate=24_000))
            beside.cancel()

    asyncio.run(main())
    assert turns >= 12


def test_times_count_from_the_first_sound_of_the_session(thread: ModelThread):
    """Whoever ended the turns before: what was answered, what was thrown away, and other settings."""

    async def main() -> None:
        async with Client(thread, now=lambda: 0.0) as client:
            await client.manual(output_modalities=["text"])
            await speak(client, voice(1.0, rate=24_000))
            await client.send("input_audio_buffer.commit")
            await client.answer()
            await speak(client, voice(0.5, rate=24_000))
            await client.send("input_audio_buffer.clear")
            await client.send("session.update", session={"turn_detection": {"type": "server_vad"}})
            await speak(client, hush(0.8, rate=24_000), voice(0.6, rate=24_000), hush(0.8, rate=24_000))
            [start] = [event["audio_start_ms"] for event in client.of(events.SPEECH_STARTED)]
            assert abs(start - (1000 + 500 + 800 - 300)) <= 40
            await client.until(events.RESPONSE_DONE)

    asyncio.run(main())


def test_answers_may_be_left_to_the_client(thread: ModelThread):
    async def main() -> None:
        async with Client(thread, now=lambda: 0.0) as client:
            quiet = {"type": "server_vad", "create_response": False, "silence_duration_ms": 200}
            await client.send("session.update", session={"audio": {"input": {"turn_detection": quiet}}})
            await speak(client, hush(0.3, rate=24_000), voice(0.4, rate=24_000), hush(0.5, rate=24_000))
            assert client.of(events.INPUT_COMMITTED)
            assert not client.of(events.RESPONSE_CREATED)
            await client.answer()
            assert not client.of(events.ERROR)

    asyncio.run(main())


def test_clicks_keep_a_turn_open_no_longer_than_its_forced_end():
    """A click in every 500 ms breaks each silence of 600 ms; only the first belongs to the voice."""
    clicks = [part for _ in range(20) for part in (hush(0.48), voice(0.02))]
    sounds = [hush(0.5), voice(0.6), *clicks, hush(1.0)]
    for eagerness, expected in (("low", 1600 + 8000), ("auto", 1600 + 4000), ("high", 1100 + 350)):
        silence, forced = EAGERNESS[eagerness]
        found = detect(*sounds, silence_duration_ms=silence, forced_end_ms=forced, longest=20.0)
        [(begun, _), (ended, end), *_] = marks(found)
        assert (begun, ended) == ("started", "stopped")
        assert abs(end - expected) <= 80
    [_, (_, end)] = marks(detect(*sounds, silence_duration_ms=600, longest=20.0))
    assert abs(end - (1100 + 10_000 + 600)) <= 80


def test_eagerness_is_mapped():
    session = new_session("s", model="m", voice="", expires_at=0)
    for given, silence, forced in (("low", 1000, 8000), ("medium", 600, 4000), (None, 600, 4000)):
        detection = {"type": "semantic_vad", "eagerness": given}
        asked = updated(session, {"audio": {"input": {"turn_detection": detection}}})
        got = read_settings(asked, voices=(), limits=ServerLimits()).turn_detection
        assert got is not None
        assert (got.silence_duration_ms, got.forced_end_ms) == (silence, forced)
