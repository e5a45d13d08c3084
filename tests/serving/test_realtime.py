"""The Realtime protocol of one session over a real model thread."""

import asyncio
import base64
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import torch
from realtime_client import Client, sound

from deeptalk.decoding import Conversation, DecodingOptions, Limits, LoadedModel, Sampling
from deeptalk.serving import events
from deeptalk.serving.audio_formats import AudioFormat, SoundIn, encode_pcm
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.realtime import SessionClosed

WRITTEN = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}
Script = Callable[[Client], Coroutine[Any, Any, Any]]


def play(thread: ModelThread, script: Script, **options: Any) -> Any:
    """Run a client's script; no task may be left behind."""

    async def main() -> Any:
        async with Client(thread, **options) as client:
            result = await script(client)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert {event["type"] for event in client.events} <= events.SERVER_EVENTS or options.get("is_beta")
        return result

    return asyncio.run(main())


def dialogue(loaded: LoadedModel, *, voice: str = "rms", seed: int = 0, temperature: float = 0.0):
    options = DecodingOptions(
        codec=Sampling(temperature=temperature), limits=Limits(max_frames=9, max_text_tokens=9)
    )
    return Conversation(loaded.engine, loaded.codec, voice=voice, seed=seed, options=options)


def replied(conversation: Conversation) -> bytes:
    return encode_pcm(torch.cat([piece.samples for piece in conversation.reply()]))


def heard(data: str) -> torch.Tensor:
    resampler = SoundIn(AudioFormat())
    return torch.cat([resampler.push(base64.b64decode(data)), resampler.finish()])


def test_a_spoken_turn_has_every_event_in_its_place(loaded: LoadedModel, thread: ModelThread):
    question = sound(0.7)

    async def script(client: Client) -> None:
        created = client.events[0]
        assert created["type"] == "session.created"
        assert created["session"]["audio"]["input"]["turn_detection"]["interrupt_response"] is True
        await client.manual()
        data = base64.b64decode(question)
        for start in range(0, len(data), 5000):
            chunk = base64.b64encode(data[start : start + 5000]).decode()
            await client.send("input_audio_buffer.append", audio=chunk)
        assert len(client.events) == 2
        await client.send("input_audio_buffer.commit")
        response = await client.answer(metadata={"turn": "1"})
        names = [event["type"] for event in client.events[2:]]
        deltas = {events.AUDIO_DELTA, events.TRANSCRIPT_DELTA}
        assert [name for name in names if name not in deltas] == [
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
        ]
        assert {name for name in names if name in deltas} == deltas
        assert max(n for n, name in enumerate(names) if name in deltas) < names.index(events.AUDIO_DONE)
        committed, user, _ = client.events[2:5]
        begun = client.of(events.ITEM_ADDED)[1]
        assert committed["item_id"] == user["item"]["id"] == begun["previous_item_id"]
        assert user["item"]["content"] == [{"type": "input_audio", "transcript": None}]
        assert begun["item"] == client.of(events.OUTPUT_ITEM_ADDED)[0]["item"]
        assert begun["item"]["content"] == []
        created = client.of(events.RESPONSE_CREATED)[0]["response"]
        assert (created["status"], created["output"], created["status_details"]) == ("in_progress", [], None)
        assert created["metadata"] == response["metadata"] == {"turn": "1"}
        own = dialogue(loaded)
        own.listen(heard(question))
        assert client.sound_of(response["id"]) == replied(own)
        transcript = "".join(event["delta"] for event in client.of(events.TRANSCRIPT_DELTA))
        assert transcript.strip() == own.last_reply.text
        [item] = response["output"]
        assert item["content"] == [{"type": "output_audio", "transcript": transcript}]
        assert client.of(events.TRANSCRIPT_DONE)[0]["transcript"] == transcript
        assert (response["status"], response["status_details"]["reason"]) == (
            "incomplete",
            "max_output_tokens",
        )
        usage = response["usage"]
        assert usage["output_token_details"]["audio_tokens"] == own.last_reply.num_frames == 9
        assert usage["input_token_details"]["audio_tokens"] == 18
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]

    play(thread, script)


def test_turns_voices_and_seeds(loaded: LoadedModel, thread: ModelThread):
    """Written and spoken turns in another voice, drawn: what a conversation by itself would answer."""

    async def script(client: Client) -> list[bytes]:
        audio = {"output": {"voice": "slt"}}
        await client.manual(temperature=1.0, seed=4)
        await client.send("session.update", session={"audio": audio})
        sounds = []
        for seed, question in ((4, "hello"), (5, sound(0.5)), (6, "and then?")):
            if len(question) > 100:
                await client.send("input_audio_buffer.append", audio=question)
                await client.send("input_audio_buffer.commit")
            else:
                await client.say(question)
            sounds.append(client.sound_of((await client.answer(seed=seed))["id"]))
        previous = [event["previous_item_id"] for event in client.of(events.ITEM_ADDED)]
        ids = [event["item"]["id"] for event in client.of(events.ITEM_ADDED)]
        assert previous == [None, *ids[:-1]]
        return sounds

    own, expected = dialogue(loaded, voice="slt", seed=4, temperature=1.0), []
    for question in ("hello", heard(sound(0.5)), "and then?"):
        (own.say_text if isinstance(question, str) else own.listen)(question)  # pyright: ignore
        expected.append(replied(own))
    assert play(thread, script) == expected


def test_written_answers(loaded: LoadedModel, thread: ModelThread):
    async def script(client: Client) -> None:
        await client.manual(output_modalities=["text"], max_output_tokens=7)
        await client.say("hello")
        response = await client.answer()
        [done] = client.of(events.TEXT_DONE)
        assert done["text"] == "".join(event["delta"] for event in client.of(events.TEXT_DELTA))
        assert response["output"][0]["content"] == [{"type": "output_text", "text": done["text"]}]
        assert response["usage"]["output_token_details"] == {"text_tokens": 7, "audio_tokens": 0}
        assert not client.of(events.AUDIO_DONE)
        own = dialogue(loaded)
        own._options = DecodingOptions(limits=Limits(max_frames=7, max_text_tokens=7))
        own._mode = "text"
        own.say_text("hello")
        list(own.reply())
        assert done["text"].strip() == own.last_reply.text

    play(thread, script)


def test_a_cancelled_answer_is_closed_and_unheard_words_are_forgotten(
    loaded: LoadedModel, thread: ModelThread
):
    """After a cut the next answer is the one to a history in which only the heard words were said."""

    async def script(client: Client) -> tuple[str, str, bytes]:
        await client.manual()
        await client.say("hello")

        def cancel_at_sound(event: dict) -> None:
            if event["type"] == events.AUDIO_DELTA:
                client.session._response.cancel("client_cancelled")  # pyright: ignore

        client.on_event = cancel_at_sound
        response = await client.answer()
        client.on_event = lambda event: None
        assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert len(client.of(events.AUDIO_DELTA)) == len(client.of(events.AUDIO_DONE)) == 1
        await client.send("response.cancel")
        error = (await client.until(events.ERROR))["error"]
        assert error["code"] == "response_cancel_not_active"
        assert error["message"].startswith("Cancellation failed")
        again = await client.answer(max_output_tokens=3)
        [item] = again["output"]
        said = item["content"][0]["transcript"]
        place = {"item_id": item["id"], "content_index": 0}
        await client.send("conversation.item.truncate", **place, audio_end_ms=2000)
        assert (await client.until(events.ERROR))["error"]["code"] == "item_truncate_invalid"
        await client.send("conversation.item.truncate", **place, audio_end_ms=100)
        assert (await client.until(events.ITEM_TRUNCATED))["audio_end_ms"] == 100
        await client.send("conversation.item.retrieve", item_id=item["id"])
        kept = (await client.until(events.ITEM_RETRIEVED))["item"]["content"][0]["transcript"]
        await client.say("go on")
        return said, kept, client.sound_of((await client.answer())["id"])

    said, kept, answer = play(thread, script)
    assert len(kept) < len(said)

    async def anew(client: Client) -> bytes:
        await client.manual()
        await client.say("hello")
        if kept:
            content = [{"type": "output_text", "text": kept}]
            await client.send(
                "conversation.item.create", item={"type": "message", "role": "assistant", "content": content}
            )
        await client.say("go on")
        return client.sound_of((await client.answer())["id"])

    assert answer == play(thread, anew)


def test_items_are_inserted_retrieved_and_deleted(thread: ModelThread):
    async def script(client: Client) -> None:
        await client.manual(output_modalities=["text"], max_output_tokens=9)
        await client.say("b", id="b")
        alone = (await client.answer(conversation="none"))["output"][0]["content"]
        first = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}
        await client.send("conversation.item.create", item={**first, "id": "a"}, previous_item_id="root")
        added = await client.until(events.ITEM_ADDED)
        assert (added["item"]["id"], added["previous_item_id"]) == ("a", None)
        tool = {"type": "function_call_output", "call_id": "x", "output": "{}"}
        await client.send("conversation.item.create", item={**tool, "id": "t"}, previous_item_id="a")
        both = (await client.answer(conversation="none"))["output"][0]["content"]
        assert both != alone
        await client.send("conversation.item.delete", item_id="a")
        assert (await client.until(events.ITEM_DELETED))["item_id"] == "a"
        assert (await client.answer(conversation="none"))["output"][0]["content"] == alone
        brought = [first, {"type": "item_reference", "id": "b"}]
        assert (await client.answer(input=brought))["output"][0]["content"] == both
        await client.send("conversation.item.retrieve", item_id="t")
        assert (await client.until(events.ITEM_RETRIEVED))["item"]["output"] == "{}"

    play(thread, script)


PCM = {"type": "audio/pcm", "rate": 24_000}
MISTAKES: list[tuple[str, str]] = [
    ("{", "invalid_json"),
    ("[]", "invalid_json"),
    ('{"type": NaN}', "invalid_json"),
    ('{"type": "\\ud800"}', "invalid_json"),
    ('{"type": ' + "[" * 100 + "]" * 100 + "}", "invalid_json"),
    ('{"type": "response.create", "x": ' + "1" * 41 + "}", "invalid_json"),
    ('{"type": "response.create", "x": 1e999}', "invalid_json"),
    ("{}", "invalid_event"),
    ('{"type": 3}', "invalid_event"),
    ('{"type": "transcription_session.update"}', "unknown_event"),
    ('{"type": "session.update"}', "invalid_value"),
    ('{"type": "session.update", "session": {"output_modalities": ["smell"]}}', "invalid_value"),
    ('{"type": "session.update", "session": {"max_output_tokens": 0}}', "invalid_value"),
    ('{"type": "session.update", "session": {"temperature": 9}}', "invalid_value"),
    ('{"type": "session.update", "session": {"seed": -1}}', "invalid_value"),
    ('{"type": "session.update", "session": {"audio": 3}}', "invalid_value"),
    (
        '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "x"}}}}}',
        "invalid_value",
    ),
    ('{"type": "session.update", "session": {"input_audio_format": "mp3"}}', "invalid_value"),
    ('{"type": "session.update", "session": {"turn_detection": {"type": "magic"}}}', "invalid_value"),
    ('{"type": "session.update", "session": {"turn_detection": {"threshold": "x"}}}', "invalid_value"),
    ('{"type": "input_audio_buffer.append"}', "invalid_audio"),
    ('{"type": "input_audio_buffer.append", "audio": "§"}', "invalid_audio"),
    ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "invalid_audio"),
    ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty"),
    ('{"type": "conversation.item.create", "item": 3}', "invalid_value"),
    ('{"type": "conversation.item.create", "item": {"role": "cat", "content": []}}', "invalid_value"),
    ('{"type": "conversation.item.create", "item": {"role": "user"}}', "invalid_value"),
    ('{"type": "conversation.item.delete", "item_id": "none"}', "item_not_found"),
    ('{"type": "conversation.item.delete", "item_id": {}}', "item_not_found"),
    ('{"type": "conversation.item.retrieve", "item_id": "none"}', "item_retrieve_invalid_item_id"),
    ('{"type": "conversation.item.truncate", "item_id": "u"}', "item_truncate_invalid"),
    ('{"type": "response.create", "response": {"output_modalities": "text"}}', "invalid_value"),
    ('{"type": "response.create", "response": {"input": 3}}', "invalid_value"),
    ('{"type": "response.cancel"}', "response_cancel_not_active"),
]


def test_every_mistake_has_its_code_and_the_session_lives(thread: ModelThread):
    moment = iter(range(0, 10**6, 1000))

    async def script(client: Client) -> None:
        await client.manual(output_modalities=["text"], max_output_tokens=2)
        await client.say("hello", id="u")
        for text, code in MISTAKES:
            await client.session.receive(text)
            error = (await client.until(events.ERROR))["error"]
            assert (error["code"], text) == (code, text)
            assert error["type"] == "invalid_request_error"
        await client.session.receive('{"type": "x", "event_id": "mine"}')
        assert (await client.until(events.ERROR))["error"]["event_id"] == "mine"
        assert (await client.answer())["status"] == "incomplete"

    play(thread, script, now=lambda: float(next(moment)))


def test_too_much_sound_is_dropped_and_the_rest_kept(thread: ModelThread):
    async def script(client: Client) -> None:
        await client.manual()
        most = thread.longest_seconds
        await client.send("input_audio_buffer.append", audio=sound(0.2))
        await client.send("input_audio_buffer.append", audio=sound(most))
        assert (await client.until(events.ERROR))["error"]["code"] == "input_audio_too_long"
        content = [{"type": "input_audio", "audio": sound(most + 1)}]
        item = {"type": "message", "role": "user", "content": content}
        await client.send("conversation.item.create", item=item)
        assert (await client.until(events.ERROR))["error"]["code"] == "input_audio_too_long"
        item["content"] = [{"type": "input_audio", "audio": sound(0.2)}]
        await client.send("conversation.item.create", item=item)
        shown = (await client.until(events.ITEM_DONE))["item"]["content"]
        assert shown == [{"type": "input_audio", "transcript": None}]
        await client.send("input_audio_buffer.commit")
        assert (await client.answer())["usage"]["output_token_details"]["audio_tokens"] == 9
        await client.send("input_audio_buffer.append", audio=sound(0.2))
        await client.send("input_audio_buffer.clear")
        await client.until(events.INPUT_CLEARED)
        await client.send("input_audio_buffer.commit")
        assert (await client.until(events.ERROR))["error"]["code"] == "input_audio_buffer_commit_empty"

    play(thread, script)


def test_one_answer_at_a_time_and_nothing_to_answer(thread: ModelThread):
    async def script(client: Client) -> None:
        await client.manual()
        nothing = await client.answer()
        assert (nothing["status"], nothing["status_details"]["error"]["code"]) == ("failed", "invalid_value")
        await client.say("hello")
        await client.send("response.create")
        await client.send("response.create")
        code = (await client.until(events.ERROR))["error"]["code"]
        assert code == "conversation_already_has_active_response"
        await client.send("response.cancel")
        await client.send("response.create")
        await client.until(events.RESPONSE_DONE)
        second = (await client.until(events.RESPONSE_DONE))["response"]
        assert second["status"] == "incomplete"
        ids = [event["response"]["id"] for event in client.of(events.RESPONSE_DONE)]
        assert ids == [event["response"]["id"] for event in client.of(events.RESPONSE_CREATED)]

    play(thread, script)


def test_a_session_of_mistakes_is_closed(thread: ModelThread):
    async def script(client: Client) -> None:
        for _ in range(20):
            await client.session.receive("{")
        with pytest.raises(SessionClosed) as closed:
            await client.session.receive("{")
        assert (closed.value.code, closed.value.reason) == (1008, "too_many_errors")

    play(thread, script, now=lambda: 0.0)


def test_fields_without_effect_are_kept(thread: ModelThread, caplog: pytest.LogCaptureFixture):
    """And told of, once and by name, in the log at DEBUG."""
    caplog.set_level(logging.DEBUG)

    async def script(client: Client) -> None:
        given = {
            "tracing": None,
            "tools": [{"name": "x"}],
            "new": 1,
            "audio": {"output": {"voice": "nobody"}},
        }
        given["audio"]["input"] = {"noise_reduction": None}
        given["output_modalities"] = ["text", "audio"]
        semantic = {"type": "semantic_vad", "eagerness": "low"}
        await client.send("session.update", session=given | {"turn_detection": semantic})
        session = (await client.until(events.SESSION_UPDATED))["session"]
        assert (session["new"], session["audio"]["output"]["voice"]) == (1, "nobody")
        assert session["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
        assert session["audio"]["input"]["format"] == PCM
        await client.send("session.update", session={"tools": []})
        assert not client.of(events.ERROR)
        assert (await client.answer(input=[WRITTEN]))["output_modalities"] == ["audio"]

    play(thread, script)
    [told] = [each for each in caplog.messages if "kept without effect" in each]
    assert told.endswith("tools, tracing, audio.input.noise_reduction")


def test_the_beta_dialect(thread: ModelThread):
    async def script(client: Client) -> None:
        session = client.events[0]["session"]
        assert session["modalities"] == ["text", "audio"]
        assert session["input_audio_format"] == "pcm16"
        assert "audio" not in session
        await client.send(
            "session.update",
            session={"turn_detection": None, "output_audio_format": "g711_ulaw", "voice": "slt"},
        )
        session = (await client.until(events.SESSION_UPDATED))["session"]
        assert (session["output_audio_format"], session["voice"]) == ("g711_ulaw", "slt")
        await client.send(
            "conversation.item.create",
            item=WRITTEN,
        )
        response = await client.answer()
        assert response["output"][0]["content"][0]["type"] == "audio"
        names = {event["type"] for event in client.events}
        assert {
            "response.audio.delta",
            "response.audio_transcript.done",
            "conversation.item.created",
        } <= names
        assert not names & set(events.BETA_NAMES)
        deltas = [event["delta"] for event in client.of("response.audio.delta")]
        num_bytes = sum(len(base64.b64decode(delta)) for delta in deltas)
        assert abs(num_bytes - 9 * 2048 / 3) <= 2

    play(thread, script, is_beta=True)
