"""LiveKit Agents: a session of its OpenAI ``RealtimeModel``, without a room."""

import asyncio
from typing import Any

from livekit import rtc
from livekit.agents.llm import GenerationCreatedEvent
from livekit.plugins.openai.realtime import RealtimeModel, RealtimeSession
from spoken import RATE, SILENCE, Answer, pieces, read_arguments, talk


async def heard(generation: GenerationCreatedEvent) -> tuple[str, bytes]:
    """The words and the sound of an answer."""
    text, sound = "", b""
    async for message in generation.message_stream:
        text += "".join([delta async for delta in message.text_stream])
        sound += b"".join([bytes(frame.data) async for frame in message.audio_stream])
    return text, sound


async def ask(session: RealtimeSession, question: bytes) -> Answer:
    """Say a question and take the answer."""
    begun: asyncio.Future[GenerationCreatedEvent] = asyncio.get_running_loop().create_future()
    status: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_generation(generation: GenerationCreatedEvent) -> None:
        begun.set_result(generation)

    def on_event(event: dict[str, Any]) -> None:
        if event["type"] == "response.done":
            status.set_result(event["response"]["status"])

    def on_error(error: Any) -> None:
        status.set_exception(error.error)
        begun.cancel()

    handlers = {
        "generation_created": on_generation,
        "openai_server_event_received": on_event,
        "error": on_error,
    }
    for name, handler in handlers.items():
        session.on(name, handler)
    for piece in pieces(question + SILENCE):
        session.push_audio(rtc.AudioFrame(piece, RATE, 1, len(piece) // 2))
    text, sound = await heard(await begun)
    answer = Answer(await status == "completed", text, sound)
    for name, handler in handlers.items():
        session.off(name, handler)
    return answer


async def main() -> None:
    """Hold one conversation."""
    given = read_arguments()
    model = RealtimeModel(base_url=given.url, api_key="none")
    session = model.session()
    try:
        await talk(given.questions, lambda question: ask(session, question))
    finally:
        await session.aclose()
        await model.aclose()


asyncio.run(main())
