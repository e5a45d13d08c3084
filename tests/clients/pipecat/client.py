"""Pipecat: a pipeline with its OpenAI Realtime service between the two halves of a context."""

import asyncio
from typing import Any

from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner
from spoken import RATE, SILENCE, Answer, pieces, read_arguments, talk


class Listener(FrameProcessor):
    """Takes what the service speaks, and lets it pass."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = Answer(False, "", b"")
        self.has_ended, self.is_told = asyncio.Event(), asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Called by the pipeline."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.answer.sound += frame.audio
        elif isinstance(frame, TTSTextFrame):
            self.answer.text += frame.text
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.has_ended.set()
        await self.push_frame(frame, direction)

    async def whole(self) -> Answer:
        """The answer once the response has ended and its item has been told."""
        await self.has_ended.wait()
        await self.is_told.wait()
        answer, self.answer = self.answer, Answer(False, "", b"")
        self.has_ended.clear()
        self.is_told.clear()
        return answer


async def main() -> None:
    """Hold one conversation."""
    given = read_arguments()
    service = OpenAIRealtimeLLMService(api_key="none", base_url=given.socket_url)
    listener = Listener()
    user, assistant = LLMContextAggregatorPair(LLMContext())
    worker = PipelineWorker(Pipeline([user, service, listener, assistant]), cancel_on_idle_timeout=False)
    has_started = asyncio.Event()
    told: set[str] = set()
    failed = asyncio.get_running_loop().create_future()

    @service.event_handler("on_conversation_item_updated")
    async def on_item(service: Any, item_id: str, item: Any) -> None:
        if item is not None and item.role == "assistant" and item.id not in told:
            told.add(item.id)  # it is told of once more with the response
            listener.answer.completed = item.status == "completed"
            listener.is_told.set()

    @worker.event_handler("on_pipeline_started")
    async def on_started(worker: Any, frame: Any) -> None:
        has_started.set()

    @worker.event_handler("on_pipeline_error")
    async def on_error(worker: Any, frame: Any) -> None:
        if not failed.done():
            failed.set_exception(RuntimeError(frame.error))

    async def ask(question: bytes) -> Answer:
        for piece in pieces(question + SILENCE):
            await worker.queue_frame(InputAudioRawFrame(audio=piece, sample_rate=RATE, num_channels=1))
        whole = asyncio.ensure_future(listener.whole())
        await asyncio.wait({whole, failed}, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            whole.cancel()
            failed.result()
        return await whole

    async def converse() -> None:
        await has_started.wait()
        try:
            await talk(given.questions, ask)
        finally:
            await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), converse())


asyncio.run(main())
