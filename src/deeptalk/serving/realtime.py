"""A Realtime session: client events in, server events out; sockets are somebody else's business."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from deeptalk.errors import AudioError
from deeptalk.serving import events
from deeptalk.serving.audio_formats import SoundIn
from deeptalk.serving.detector import Heard, LoudVoice, Patience, TurnDetector, Voice
from deeptalk.serving.items import Conversation, Item, ears_of, new_id, read_item, shown
from deeptalk.serving.model_thread import BusyError, ModelThread, Request
from deeptalk.serving.outlet import Ended
from deeptalk.serving.response import Response
from deeptalk.serving.settings import Settings, kept_only, merged, new_session, read_settings, updated
from deeptalk.serving.transcripts import InputTranscripts
from deeptalk.serving.turns import HEARD_RATE, Ear, Said, Turn
from deeptalk.serving.wire import ClientError, parse_base64, parse_json
from deeptalk.shapes import Tensor

_logger = logging.getLogger(__name__)

APPEND = "input_audio_buffer.append"

SHORTEST_SECONDS = 0.1
MAX_ERRORS, ERROR_SECONDS = 20, 10.0
MAX_APPEND = 15 * 2**20
"""Characters of base64 that one event may bring to the turn."""

MAX_SESSION_CHARACTERS = 2**18
"""What the session object may have as JSON: clients may keep in it what has no effect here."""


class SessionClosed(Exception):
    """The session is over: the close code and the reason that the client is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class RealtimeSession:
    """One client's conversation. ``send`` takes one JSON text; ``receive`` is called with one at a time.

    ``begins_with`` are settings from the start, which somebody has checked. Where it ``transcribes``, clients
    may have what they say written down. Where it ``logs_transcripts``, words go to the log.
    ``new_voice`` makes what tells voice from noise, and ``patience`` is how much of it is needed.
    ``failed`` is done when an answer could not be sent: the session is then to be closed.
    """

    def __init__(
        self,
        thread: ModelThread,
        *,
        send: Callable[[str], Awaitable[None]],
        model: str,
        is_beta: bool = False,
        follows_instructions: bool = False,
        transcribes: bool = False,
        logs_transcripts: bool = False,
        begins_with: Mapping[str, Any] | None = None,
        new_voice: Callable[[float], Voice] = LoudVoice,
        patience: Patience | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._thread, self._limits = thread, thread.limits
        self._send, self._is_beta, self._now = send, is_beta, now
        self._follows_instructions = follows_instructions
        self._new_voice, self._patience = new_voice, patience
        self._logs_transcripts = logs_transcripts
        voices = thread.loaded.voices
        expires_at = int(time.time() + self._limits.session_seconds)
        fresh = new_session(
            new_id("sess"), model=model, voice=voices[0] if voices else "", expires_at=expires_at
        )
        self._session = updated(fresh, begins_with or {})
        self._settings = self._read_settings(self._session)
        codec = thread.loaded.codec
        self._conversation = Conversation(
            max_items=self._limits.max_items, frame_ms=1000.0 * codec.samples_per_frame / codec.sample_rate
        )
        self._memory = thread.new_memory()
        self._sending = asyncio.Lock()
        self._response: Response | None = None
        self._answering: asyncio.Task[None] | None = None
        self._errors: deque[float] = deque()
        self._progress = asyncio.Event()
        self._has_told_idle = False
        self._ear: Ear | None = None
        self._ears: list[Ear] = []
        self._instructions: Said | None = None
        self.failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._transcripts = (
            InputTranscripts(thread, self._emit, on_failure=self._fail, logs=logs_transcripts)
            if transcribes
            else None
        )
        self._num_appended = 0
        self._num_heard = 0
        self._turn_id = ""
        self._longest_seconds = min(self._limits.utterance_seconds, thread.longest_seconds)
        self._detect_anew()
        self._audible: Response | None = None
        self._audible_until = 0.0
        self._owes_answer = False
        self._quiet_from: int | None = None
        self._prompted_after: Response | None = None
        self._handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "session.update": self._update,
            APPEND: self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.delete": self._delete_item,
            "conversation.item.truncate": self._truncate_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
            "output_audio_buffer.clear": self._clear_output,
        }

    @property
    def is_answering(self) -> bool:
        """Whether an answer is being made or sent."""
        return self._answering is not None and not self._answering.done()

    @property
    def is_audible(self) -> bool:
        """Whether the user hears an answer, as far as one can tell from what was sent and when."""
        return self._audible_until > self._now()

    async def open(self) -> None:
        """Greet the client."""
        await self._emit(events.SESSION_CREATED, session=self._session)

    async def receive(self, text: str) -> bool:
        """Take one event of the client, whether it is sound; SessionClosed when too many were mistakes."""
        event_id, name = None, ""
        try:
            event = parse_json(text)
            event_id = event.get("event_id") if isinstance(event.get("event_id"), str) else None
            name = event.get("type")
            if not isinstance(name, str):
                raise ClientError("invalid_event", "An event needs a type.", param="type")
            if name not in self._handlers:
                raise ClientError("unknown_event", "There is no client event of this type.", param="type")
            await self._handlers[name](event)
        except ClientError as error:
            await self.refuse(error, event_id=event_id)
        except BusyError as error:
            await self.refuse(ClientError("server_busy", str(error), status=503), event_id=event_id)
        return name == APPEND

    async def refuse(self, error: ClientError, *, event_id: str | None = None) -> None:
        """Tell the client of its mistake."""
        now = self._now()
        self._errors.append(now)
        while self._errors[0] < now - ERROR_SECONDS:
            self._errors.popleft()
        told = {
            "type": "server_error" if error.status >= 500 else "invalid_request_error",
            "code": error.code,
            "message": str(error),
            "param": error.param,
            "event_id": event_id,
        }
        await self._emit(events.ERROR, error=told)
        if len(self._errors) > MAX_ERRORS:
            raise SessionClosed(1008, "too_many_errors")

    async def finish_answer(self) -> None:
        """Wait for the answer that is being sent."""
        if self._answering is not None:
            await asyncio.wait([self._answering])

    async def close(self) -> None:
        """Let go of all that the session holds on the model thread."""
        for ear in self._ears:
            ear.drop()
        if self._transcripts is not None:
            await self._transcripts.close()
        if self._answering is not None:
            if self._response is not None:
                self._response.outlet.cancel()
            self._answering.cancel()
            await asyncio.wait([self._answering])
        self._thread.forget(self._memory)

    async def _emit(self, name: str, *, unless: Callable[[], bool] = lambda: False, **fields: Any) -> None:
        event: dict[str, Any] | None = {"type": name, "event_id": new_id("event"), **fields}
        event = events.to_beta(event) if self._is_beta else event
        if event is None:
            return
        async with self._sending:
            if unless():
                return
            text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
            try:  # not wait_for, which before Python 3.12 may lose the end of the task that waits
                async with asyncio.timeout(self._limits.stalled_seconds):
                    await self._send(text)
            except TimeoutError as error:
                raise SessionClosed(1008, "output_backlog") from error

    # the session

    async def _update(self, event: dict[str, Any]) -> None:
        given = event.get("session")
        if not isinstance(given, dict):
            raise ClientError("invalid_value", "session must be an object.", param="session")
        session = updated(self._session, given)
        settings = self._read_settings(session)
        if len(json.dumps(session, ensure_ascii=False)) > MAX_SESSION_CHARACTERS:
            raise ClientError(
                "invalid_value",
                f"A session has at most {MAX_SESSION_CHARACTERS} characters.",
                param="session",
            )
        idle = kept_only(given)
        if idle and not self._has_told_idle:
            self._has_told_idle = True
            _logger.debug("session %s: kept without effect: %s", session["id"], ", ".join(idle))
        before, self._settings = self._settings, settings
        self._session = session
        if (before.audio_in, before.turn_detection) != (settings.audio_in, settings.turn_detection):
            if self._ear is not None:
                self._ear.drop()
            self._forget_turn()
            self._detect_anew()
        await self._emit(events.SESSION_UPDATED, session=session)

    def _read_settings(self, session: Mapping[str, Any], prefix: str = "session") -> Settings:
        voices = self._thread.loaded.voices
        return read_settings(session, voices=voices, limits=self._limits, prefix=prefix)

    # what the user says

    async def _append(self, event: dict[str, Any]) -> None:
        given = event.get("audio")
        if isinstance(given, str) and len(given) > MAX_APPEND:
            raise ClientError("invalid_audio", "An event brings at most 15 MiB of base64.", param="audio")
        data = parse_base64(given, param="audio")
        try:
            samples = self._sound_in.push(data)
        except AudioError as error:
            raise ClientError("invalid_audio", str(error), param="audio") from error
        if self._detector is None:
            self._hear(samples)
        else:
            self._num_appended += len(samples)
            for second in samples.split(HEARD_RATE):  # minutes at once would hold up every other session
                for heard in self._detector.push(second, is_audible=self.is_audible):
                    await self._follow(heard)
                await self._end_silence()
                await asyncio.sleep(0)
        if self._ear is not None:
            await self._wait_for(self._ear)

    def _hear(self, samples: Tensor) -> None:
        """Sound of a turn that the client will commit."""
        self._check_length((self._num_heard + len(samples)) / HEARD_RATE)
        self._push(self._ear or self._open_ear(), samples)
        self._num_appended += len(samples)

    def _check_length(self, seconds: float) -> None:
        longest = self._longest_seconds
        if seconds > longest:
            raise ClientError(
                "input_audio_too_long", f"A turn has at most {longest:g} s of sound.", param="audio"
            )

    async def _follow(self, heard: Heard) -> None:
        """What the detector has found: turns begin, interrupt, go on, and are answered."""
        detection = self._settings.turn_detection
        assert detection is not None
        if heard.kind == "started":
            if detection.interrupt_response and (self.is_audible or self.is_answering):
                self._interrupt()
                self._thread.metrics.count("deeptalk_barge_ins_total")
            self._push(self._open_ear(), heard.samples)
            self._turn_id = new_id("item")
            await self._emit(events.SPEECH_STARTED, audio_start_ms=heard.at_ms, item_id=self._turn_id)
        elif heard.kind == "backchannel":
            self._thread.metrics.count("deeptalk_backchannels_ignored_total")
        elif heard.kind == "sound" and self._ear is not None:
            self._push(self._ear, heard.samples)
        elif heard.kind == "stopped" and self._ear is not None:
            await self._emit(events.SPEECH_STOPPED, audio_end_ms=heard.at_ms, item_id=self._turn_id)
            await self._commit_found()

    async def _end_silence(self) -> None:
        """After an answer and the silence that the client has named, end a turn in which nothing was said."""
        detector, detection = self._detector, self._settings.turn_detection
        if detector is None or detection is None or detection.idle_timeout_ms is None:
            return
        has_answered = self._response is not None and self._response is not self._prompted_after
        if not has_answered or self.is_answering or self.is_audible or detector.is_speaking:
            self._quiet_from = None
            return
        if self._quiet_from is None:
            self._quiet_from = detector.num_samples
        start_ms, end_ms = (1000 * at // HEARD_RATE for at in (self._quiet_from, detector.num_samples))
        if end_ms - start_ms < detection.idle_timeout_ms:
            return
        self._quiet_from, self._prompted_after = None, self._response
        kept = detector.take_kept()
        missing = max(0, int(SHORTEST_SECONDS * HEARD_RATE) - len(kept))
        self._push(self._open_ear(), torch.nn.functional.pad(kept, (missing, 0)))
        self._turn_id = new_id("item")
        place = {"audio_start_ms": start_ms, "audio_end_ms": end_ms, "item_id": self._turn_id}
        await self._emit(events.TIMEOUT_TRIGGERED, **place)
        await self._commit_found()

    async def _commit_found(self) -> None:
        """End a turn that the server has found, and have it answered and written down."""
        committed = await self._commit_ear(self._turn_id)
        detection = self._settings.turn_detection
        if detection is not None and detection.create_response:
            self._answer_soon()
        self._write_down(*committed)

    def _interrupt(self) -> None:
        """Stop the answer that is made or heard; the words up to here stay."""
        left_ms = 1000.0 * max(0.0, self._audible_until - self._now())
        self._audible_until = self._now()
        made = self._response if self.is_answering else None
        if made is not None:
            made.cancel("turn_detected", heard_ms=max(0.0, made.item.sound_ms - left_ms))
        if left_ms and self._audible is not None and self._audible is not made:
            self._audible.item.cut(heard_ms=max(0.0, self._audible.item.sound_ms - left_ms))

    def _push(self, ear: Ear, samples: Tensor) -> None:
        ear.push(samples)
        self._num_heard += len(samples)
        self._thread.wake()

    def _open_ear(self) -> Ear:
        """A turn that begins; BusyError where the model thread does not take it."""
        ear = self._new_ear()
        turns = self._turns(self._settings)
        self._thread.hear(ear, self._memory, turns, may_forget=self._settings.may_forget)
        self._ear = ear
        return ear

    def _new_ear(self) -> Ear:
        loop = asyncio.get_running_loop()

        def tell_progress() -> None:
            with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(self._progress.set)

        ear = Ear(tell_progress)
        self._ears = [*(each for each in self._ears if not each.is_finished), ear]
        return ear

    async def _wait_for(self, ear: Ear) -> None:
        """Take nothing more from the client while too much sound is not encoded."""
        while ear.backlog_seconds > self._limits.unheard_seconds and not ear.is_finished:
            self._progress.clear()
            if ear.backlog_seconds > self._limits.unheard_seconds:
                await self._progress.wait()

    async def _commit(self, event: dict[str, Any]) -> None:
        if self._ear is None or self._num_heard < SHORTEST_SECONDS * HEARD_RATE:
            raise ClientError(
                "input_audio_buffer_commit_empty", "A turn needs at least 100 ms of sound before its commit."
            )
        if self._detector is None:
            rest = self._sound_in.finish()
            self._push(self._ear, rest)
            self._num_appended += len(rest)
        self._detect_anew()
        self._write_down(*await self._commit_ear(self._turn_id or new_id("item")))

    async def _commit_ear(self, item_id: str) -> tuple[Item, float]:
        """Close the turn. Its item, and its seconds."""
        ear = self._ear
        assert ear is not None
        seconds = self._num_heard / HEARD_RATE
        ear.close()
        self._thread.wake()
        self._forget_turn()
        item = Item(id=item_id, role="user", content=[shown({"type": "input_audio"})], turns=[ear])
        previous = self._conversation.add(item)
        await self._emit(events.INPUT_COMMITTED, item_id=item.id, previous_item_id=previous)
        await self._emit_item(item, previous)
        return item, seconds

    def _write_down(self, item: Item, seconds: float) -> None:
        """Have a spoken turn written down where that is wanted, behind the beginning of its answer."""
        if self._transcripts is not None and self._settings.transcribes:
            [ear] = ears_of(item.turns)
            after = self._response if self.is_answering else None
            self._transcripts.add(item, ear, seconds=seconds, after=after)

    async def _clear(self, event: dict[str, Any]) -> None:
        if self._ear is not None:
            self._ear.drop()
        self._forget_turn()
        self._detect_anew()
        await self._emit(events.INPUT_CLEARED)

    def _forget_turn(self) -> None:
        self._ear, self._num_heard, self._turn_id = None, 0, ""

    def _detect_anew(self) -> None:
        """Wait for a turn to begin."""
        self._sound_in = SoundIn(self._settings.audio_in)
        detection = self._settings.turn_detection
        self._detector: TurnDetector | None = None
        if detection is not None:
            self._detector = TurnDetector(
                detection,
                longest_seconds=self._longest_seconds,
                first_sample=self._num_appended,
                patience=self._patience,
                new_voice=self._new_voice,
            )

    # items

    async def _create_item(self, event: dict[str, Any]) -> None:
        item, ears = read_item(event.get("item"), audio_in=self._settings.audio_in, new_ear=self._new_ear)
        self._hear_all(ears)
        try:
            previous = self._conversation.add(item, after=event.get("previous_item_id"))
        except ClientError:
            for ear in ears:
                ear.drop()
            raise
        await self._emit_item(item, previous)
        for ear in ears:
            await self._wait_for(ear)

    def _hear_all(self, ears: list[Ear]) -> None:
        """Have whole turns encoded."""
        for ear in ears:
            self._check_length(ear.backlog_seconds)
            self._thread.hear(ear)

    async def _emit_item(self, item: Item, previous: str | None) -> None:
        await self._emit(events.ITEM_ADDED, previous_item_id=previous, item=item.to_json())
        await self._emit(events.ITEM_DONE, previous_item_id=previous, item=item.to_json())

    async def _retrieve_item(self, event: dict[str, Any]) -> None:
        item = self._conversation.get(event.get("item_id"), code="item_retrieve_invalid_item_id")
        await self._emit(events.ITEM_RETRIEVED, item=item.to_json())

    async def _delete_item(self, event: dict[str, Any]) -> None:
        item = self._conversation.delete(event.get("item_id"))
        await self._emit(events.ITEM_DELETED, item_id=item.id)

    async def _truncate_item(self, event: dict[str, Any]) -> None:
        item_id, index, end_ms = (event.get(name) for name in ("item_id", "content_index", "audio_end_ms"))
        self._conversation.truncate(item_id, content_index=index, audio_end_ms=end_ms)
        await self._emit(events.ITEM_TRUNCATED, item_id=item_id, content_index=index, audio_end_ms=end_ms)

    # answers

    async def _create_response(self, event: dict[str, Any]) -> None:
        given = event.get("response") or {}
        if not isinstance(given, dict):
            raise ClientError("invalid_value", "response must be an object.", param="response")
        settings = self._read_settings(merged(self._session, events.nested(given)), "response")
        if self._response is not None and self._response.is_cancelled:
            await self.finish_answer()
        if self.is_answering:
            raise ClientError(
                "conversation_already_has_active_response", "Wait for response.done, or cancel the answer."
            )
        apart = self._turns_apart(given)
        self._respond(settings, metadata=given.get("metadata"), apart=apart)

    def _turns_apart(self, given: Mapping[str, Any]) -> list[Turn] | None:
        """What a response that stays out of the conversation answers; None for one that belongs to it."""
        brought = given.get("input")
        if brought is None:
            return list(self._conversation.turns) if given.get("conversation") == "none" else None
        if not isinstance(brought, list):
            raise ClientError("invalid_value", "response.input must be a list.", param="response.input")
        turns: list[Turn] = []
        for each in brought:
            if isinstance(each, dict) and each.get("type") == "item_reference":
                turns += self._conversation.get(each.get("id")).turns
                continue
            item, ears = read_item(each, audio_in=self._settings.audio_in, new_ear=self._new_ear)
            self._hear_all(ears)
            turns += item.turns
        return turns

    def _turns(self, settings: Settings) -> list[Turn]:
        """What the model reads before it answers."""
        turns = self._conversation.turns
        if self._follows_instructions and settings.instructions.strip():
            return [self._instructions_turn(settings.instructions.strip()), *turns]
        return turns

    def _instructions_turn(self, text: str) -> Said:
        """The same object for the same words, so that they are read once."""
        if self._instructions is None or self._instructions.text != text:
            self._instructions = Said(role="system", text=text)
        return self._instructions

    def _respond(self, settings: Settings, *, metadata: Any, apart: list[Turn] | None) -> None:
        """Ask for an answer and begin to send it."""
        turns = self._turns(settings) if apart is None else apart
        thread = self._thread
        outlet = thread.new_outlet()
        kind = "output_audio" if settings.speaks else "output_text"
        content = {"type": kind, "transcript" if settings.speaks else "text": ""}
        item = Item(id=new_id("item"), role="assistant", content=[content], status="in_progress")
        previous = self._conversation.add(item) if apart is None else None
        mode = "answer" if settings.voice == "" else f"speaker:{settings.voice}"
        request = Request(
            turns=turns,
            mode=mode if settings.speaks else "text",
            options=settings.options(thread.answer_limits),
            outlet=outlet,
            memory=self._memory if apart is None else None,
            seed=settings.seed,
            may_forget=settings.may_forget,
        )
        try:
            if not turns or (isinstance(turns[-1], Said) and turns[-1].role != "user"):
                raise ClientError(
                    "invalid_value", "There is nothing to answer: say or write something first."
                )
            thread.ask(request)
        except (ClientError, BusyError) as error:
            outlet.put(Ended(reason="interrupted", error=error))
        self._response = Response(
            outlet=outlet,
            item=item,
            settings=settings,
            metadata=metadata,
            heard=ears_of(turns),
            sample_rate=thread.loaded.codec.sample_rate,
            on_sound=self._note_sound,
        )
        self._answering = asyncio.create_task(self._send_answer(self._response, previous))

    async def _send_answer(self, response: Response, previous: str | None) -> None:
        """Send an answer to its end; where that fails, ``failed`` tells whoever holds the socket."""
        began = self._now()
        try:
            self._tell_of(await response.run(self._emit, previous_item_id=previous), began=began)
        except Exception as error:
            response.outlet.cancel()
            self._fail(error)
        if self._owes_answer and not self.failed.done():
            self._owes_answer = False
            try:
                self._respond(self._settings, metadata=None, apart=None)
            except ClientError as error:
                await self._tell_late(error)

    async def _tell_late(self, error: ClientError) -> None:
        """Tell of a mistake that showed when the client's event had long been taken."""
        try:
            await self.refuse(error)
        except SessionClosed as closed:
            self._fail(closed)

    def _fail(self, error: Exception) -> None:
        """Tell whoever holds the socket that something could not be sent."""
        if not self.failed.done():
            self.failed.set_result(error)

    def _tell_of(self, done: Mapping[str, Any], *, began: float) -> None:
        """Count an answer that has ended, and log it, what was said only where that is wanted."""
        self._thread.metrics.count("deeptalk_turns_total", done["status"])
        ids = {"session": self._session["id"], "response": done["id"], "status": done["status"]}
        times = {"seconds": round(self._now() - began, 3), "usage": done["usage"]}
        said = {"output": done["output"]} if self._logs_transcripts else {}
        _logger.info("turn %s", json.dumps(ids | times | said, ensure_ascii=False))

    def _answer_soon(self) -> None:
        """Answer now, or when the answer that is being sent has ended."""
        if self.is_answering:
            self._owes_answer = True
        else:
            self._respond(self._settings, metadata=None, apart=None)

    def _note_sound(self, seconds: float) -> None:
        if seconds and self._audible is self._response and not self.is_audible:
            self._thread.metrics.count("deeptalk_underruns_total")
        self._audible = self._response
        self._audible_until = max(self._audible_until, self._now()) + seconds

    async def _cancel_response(self, event: dict[str, Any]) -> None:
        response, named = self._response, event.get("response_id")
        is_other = response is not None and named is not None and named != response.id
        if response is None or not self.is_answering or response.is_cancelled or is_other:
            raise ClientError(
                "response_cancel_not_active",
                "Cancellation failed: no answer is being made.",
                param="response_id",
            )
        response.cancel("client_cancelled")

    async def _clear_output(self, event: dict[str, Any]) -> None:
        if self._response is not None and self.is_answering:
            self._response.cancel("client_cancelled")
        response_id = None if self._response is None else self._response.id
        await self._emit(events.OUTPUT_CLEARED, response_id=response_id)
