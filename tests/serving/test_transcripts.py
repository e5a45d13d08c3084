"""What the user has said, written down by the model: where it is wanted, and behind the answer."""

import asyncio
import base64
from typing import Any

import pytest
import torch
from realtime_client import Client, sound

from deeptalk.decoding import Conversation, DecodingOptions, Limits, LoadedModel
from deeptalk.serving import events
from deeptalk.serving.audio_formats import AudioFormat, SoundIn, encode_pcm
from deeptalk.serving.model_thread import BusyError, ModelThread, Request
from deeptalk.serving.turns import Said

WRITTEN = {"model": "gpt-4o-transcribe"}
MANUAL = {"audio": {"input": {"turn_detection": None, "transcription": WRITTEN}}}


def run(thread: ModelThread, script: Any, **options: Any) -> Client:
    """Run a client's script; no task may be left behind."""

    async def main() -> Client:
        async with Client(thread, **options) as client:
            await script(client)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert {event["type"] for event in client.events} <= events.SERVER_EVENTS
        return client

    return asyncio.run(main())


async def commit(client: Client, question: str) -> str:
    await client.send("input_audio_buffer.append", audio=question)
    await client.send("input_audio_buffer.commit")
    return (await client.until(events.INPUT_COMMITTED))["item_id"]


def expected(loaded: LoadedModel, question: str) -> tuple[str, bytes]:
    """What a conversation by itself takes down, and what it answers."""
    resampler = SoundIn(AudioFormat())
    samples = torch.cat([resampler.push(base64.b64decode(question)), resampler.finish()])
    options = DecodingOptions(limits=Limits(max_frames=9, max_text_tokens=9))
    own = Conversation(loaded.engine, loaded.codec, voice="rms", options=options)
    text = own.transcribe(samples)
    own.listen(samples)
    return text, encode_pcm(torch.cat([piece.samples for piece in own.reply()]))


def test_what_was_said_is_written_down_and_the_answers_stay_the_same(
    loaded: LoadedModel, thread: ModelThread
):
    questions = [sound(0.5), sound(0.4, seed=1)]

    async def script(client: Client) -> None:
        await client.send("session.update", session=MANUAL)
        for number, question in enumerate(questions):
            item_id = await commit(client, question)
            response = await client.answer() if number == 0 else None
            while len(client.of(events.TRANSCRIPTION_COMPLETED)) <= number:
                await asyncio.sleep(0.001)
            text, answer = expected(loaded, question)
            done = client.of(events.TRANSCRIPTION_COMPLETED)[number]
            assert (done["item_id"], done["content_index"]) == (item_id, 0)
            assert done["transcript"].strip() == text
            assert text
            assert done["usage"] == {"type": "duration", "seconds": (0.5, 0.4)[number]}
            deltas = [event for event in client.of(events.TRANSCRIPTION_DELTA) if event["item_id"] == item_id]
            assert "".join(event["delta"] for event in deltas) == done["transcript"]
            await client.send("conversation.item.retrieve", item_id=item_id)
            content = (await client.until(events.ITEM_RETRIEVED))["item"]["content"]
            assert content == [{"type": "input_audio", "transcript": done["transcript"]}]
            assert response is None or client.sound_of(response["id"]) == answer

    run(thread, script, transcribes=True)


def test_an_answer_that_the_server_begins_comes_first(thread: ModelThread):
    time = torch.arange(24_000) / 24_000
    hum = 0.1 * sum((torch.sin(2 * torch.pi * 180 * n * time) / n for n in range(1, 8)), torch.zeros(1))
    quiet = 0.001 * torch.randn(24_000, generator=torch.Generator().manual_seed(0))

    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {"input": {"transcription": WRITTEN}}})
        spoken = base64.b64encode(encode_pcm(torch.cat([quiet, hum, quiet]))).decode()
        await client.send("input_audio_buffer.append", audio=spoken)
        done = await client.until(events.TRANSCRIPTION_COMPLETED)
        assert done["item_id"] == client.of(events.INPUT_COMMITTED)[0]["item_id"]
        names = [event["type"] for event in client.events]
        answered = min(names.index(name) for name in (events.TRANSCRIPT_DELTA, events.AUDIO_DELTA))
        assert answered < names.index(events.TRANSCRIPTION_DELTA)

    run(thread, script, transcribes=True)


@pytest.mark.parametrize(("is_offered", "is_wanted"), [(False, True), (True, False)])
def test_nothing_is_written_down_unless_both_sides_want_it(
    thread: ModelThread, is_offered: bool, is_wanted: bool
):
    async def script(client: Client) -> None:
        wanted = MANUAL if is_wanted else {"audio": {"input": {"turn_detection": None}}}
        await client.send("session.update", session=wanted)
        await commit(client, sound(0.3))
        await client.answer()

    client = run(thread, script, transcribes=is_offered)
    assert not [event for event in client.events if "transcription" in event["type"]]
    session = client.of(events.SESSION_UPDATED)[0]["session"]
    assert session["audio"]["input"]["transcription"] == (WRITTEN if is_wanted else None)


def test_what_can_not_be_written_down_is_told_and_the_session_lives(
    thread: ModelThread, monkeypatch: pytest.MonkeyPatch
):
    ask = thread.ask

    def refuse(request: Request) -> None:
        if request.is_patient:
            raise BusyError("The server is busy: try again in a moment.")
        ask(request)

    monkeypatch.setattr(thread, "ask", refuse)

    async def script(client: Client) -> None:
        await client.send("session.update", session=MANUAL)
        item_id = await commit(client, sound(0.3))
        failed = await client.until(events.TRANSCRIPTION_FAILED)
        assert (failed["item_id"], failed["content_index"]) == (item_id, 0)
        assert (failed["error"]["code"], failed["error"]["type"]) == ("server_busy", "server_error")
        assert (await client.answer())["status"] == "incomplete"

    client = run(thread, script, transcribes=True)
    assert not client.of(events.TRANSCRIPTION_COMPLETED)


def test_a_session_may_end_in_the_middle(thread: ModelThread):
    async def script(client: Client) -> None:
        await client.send("session.update", session=MANUAL)
        for seed in range(3):
            await commit(client, sound(0.3, seed=seed))
        await client.until(events.TRANSCRIPTION_DELTA)

    client = run(thread, script, transcribes=True)
    assert len(client.of(events.TRANSCRIPTION_COMPLETED)) < 3


def test_a_patient_request_is_not_begun_while_others_wait(still: ModelThread):
    options = DecodingOptions(limits=Limits(max_frames=2, max_text_tokens=2))

    async def main() -> list[Request]:
        asked = [
            Request(
                turns=[Said(role="user", text="x" * 30)],
                mode="text",
                options=options,
                outlet=still.new_outlet(),
                is_patient=is_patient,
            )
            for is_patient in (True, False, False)
        ]
        for request in asked:
            still.ask(request)
        begun: list[Request] = []
        while len(begun) < 3:
            still.tick()
            begun += [each.request for each in still._answering if each.request not in begun]
        assert [asked.index(request) for request in begun] == [1, 2, 0]
        return asked

    assert len(asyncio.run(main())) == 3
