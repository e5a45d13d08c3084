"""The OpenAI Agents SDK: a ``RealtimeAgent`` whose OpenAI model is pointed at the server."""

import asyncio

from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from spoken import SILENCE, Answer, pieces, read_arguments, talk


async def ask(session: RealtimeSession, question: bytes) -> Answer:
    """Say a question and take the answer."""
    for piece in pieces(question + SILENCE):
        await session.send_audio(piece)
    text, sound = "", b""
    async for event in session:
        if event.type == "error":
            raise RuntimeError(str(event.error))
        if event.type == "audio":
            sound += event.audio.data
        elif event.type == "raw_model_event":
            raw = event.data
            if raw.type == "transcript_delta":
                text += raw.delta
            elif raw.type == "raw_server_event" and raw.data["type"] == "response.done":
                return Answer(raw.data["response"]["status"] == "completed", text, sound)
    raise RuntimeError("the session is over")


async def main() -> None:
    """Hold one conversation."""
    given = read_arguments()
    settings = {"audio": {"input": {"turn_detection": {"type": given.turns, "interrupt_response": True}}}}
    runner = RealtimeRunner(
        RealtimeAgent(name="pocket", instructions="Answer in one sentence."),
        config={"tracing_disabled": True, "model_settings": settings},
    )
    connection = {"url": given.socket_url, "api_key": "none"}
    async with await runner.run(model_config=connection) as session:
        await talk(given.questions, lambda question: ask(session, question))


asyncio.run(main())
