"""The ``openai`` package: ``AsyncOpenAI(...).realtime.connect``, turns ended by the client or the server."""

import asyncio
import base64

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from spoken import SILENCE, Answer, pieces, read_arguments, talk


async def ask(connection: AsyncRealtimeConnection, question: bytes, *, is_manual: bool) -> Answer:
    """Say a question and take the answer."""
    for piece in pieces(question if is_manual else question + SILENCE):
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
    if is_manual:
        await connection.input_audio_buffer.commit()
        await connection.response.create()
    text, sound = "", b""
    async for event in connection:
        if event.type == "response.output_audio_transcript.delta":
            text += event.delta
        elif event.type == "response.output_audio.delta":
            sound += base64.b64decode(event.delta)
        elif event.type == "error":
            raise RuntimeError(event.error.message)
        elif event.type == "response.done":
            return Answer(event.response.status == "completed", text, sound)
    raise RuntimeError("the server has closed the session")


async def main() -> None:
    """Hold one conversation."""
    given = read_arguments()
    is_manual = given.turns == "manual"
    detection = None if is_manual else {"type": given.turns}
    client = AsyncOpenAI(base_url=given.url, api_key="none")
    async with client.realtime.connect(model="pocket") as connection:
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
        )
        await talk(given.questions, lambda question: ask(connection, question, is_manual=is_manual))


asyncio.run(main())
