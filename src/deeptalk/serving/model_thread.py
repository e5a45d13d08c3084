"""The one thread that owns the model: it hears, reads and answers for all sessions, step by step.

Every tick takes up what was asked, encodes a little of what is being said, reads a little of one waiting
conversation, does a piece of one job, and steps all running answers together.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Full, Queue, SimpleQueue
from threading import Event, Thread
from typing import Protocol
from weakref import WeakSet

import torch

from deeptalk.decoding import DecodingOptions, DialogueState, Limits, LoadedModel
from deeptalk.decoding.speech import Voicing
from deeptalk.errors import DeepTalkError
from deeptalk.serving.allocator import return_freed_memory
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.memory import Memory, num_positions_of
from deeptalk.serving.metrics import Metrics
from deeptalk.serving.outlet import Ended, Outlet, Piece
from deeptalk.serving.turns import Ear, Said, Turn, opening_of, tokenizer_of
from deeptalk.streams.layout import row_of

_logger = logging.getLogger(__name__)

FRAMES_PER_CHUNK = 2
"""Frames in a piece of sound after the first, which has one."""


class BusyError(DeepTalkError):
    """The server has no room for what was asked."""


class ContextFullError(DeepTalkError):
    """A conversation does not fit into the model's positions."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Request:
    """One answer that is wanted: to these turns, the last ones said, in a mode of the layout.

    A request with a ``memory`` belongs to its conversation and is remembered there; one at a time. Where
    ``may_forget``, the oldest turns are left out of what would not fit. One that ``is_patient`` is not begun
    while others wait.
    """

    turns: Sequence[Turn]
    mode: str
    options: DecodingOptions
    outlet: Outlet
    memory: Memory | None = None
    seed: int = 0
    may_forget: bool = True
    is_patient: bool = False


class Job(Protocol):
    """Work of the model that is no answer to a conversation, done in pieces."""

    def advance(self, *, most: int) -> bool:
        """Do a piece, of at most so many positions; whether that was all."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Working:
    job: Job
    done: asyncio.Future[None]

    def tell(self, error: Exception | None) -> None:
        """Tell whoever waits for the job that it is over."""
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self.done.get_loop().call_soon_threadsafe(self._conclude, error)

    def _conclude(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class _Waiting:
    request: Request
    memory: Memory
    turns: list[Turn] = field(default_factory=list)
    is_fitted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Answering:
    request: Request
    memory: Memory
    state: DialogueState
    voicing: Voicing
    num_input_positions: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Hearing:
    ear: Ear
    memory: Memory | None
    before: tuple[Turn, ...]
    may_forget: bool


class ModelThread:
    """Sessions hand over what they want; it is done between two steps. Public methods are for any thread.

    Memories and outlets are made, and gauges taken, on one thread: the event loop's. After an error that
    leaves the accelerator unusable the thread ends, and tells ``on_broken``.
    """

    def __init__(
        self, loaded: LoadedModel, *, limits: ServerLimits, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.loaded, self.limits = loaded, limits
        self._engine, self._now = loaded.engine, now
        self._tokenizer = tokenizer_of(loaded.engine)
        self.max_positions: int = loaded.model.backbone.model.config.max_position_embeddings
        self.metrics = Metrics()
        self._memories: WeakSet[Memory] = WeakSet()
        self._outlets: WeakSet[Outlet] = WeakSet()
        self._over: SimpleQueue[Memory] = SimpleQueue()
        self._commands: Queue[_Waiting | _Hearing | _Working] = Queue(limits.max_commands)
        self._wake = Event()
        self._is_stopping = False
        self._is_ready = False
        self._is_broken = False
        self.on_broken: Callable[[], object] = lambda: None
        self._ears: deque[_Hearing] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._answering: list[_Answering] = []
        self._jobs: deque[_Working] = deque()
        self._thread = Thread(target=self._run, name="model", daemon=True)
        self.last_beat = now()

    @property
    def answer_limits(self) -> Limits:
        """The longest answer; half of the positions are left to what it answers."""
        longest = int(self.limits.answer_seconds * self.loaded.codec.frame_rate)
        frames = min(longest, self.max_positions // 2)
        return Limits(max_frames=frames, max_text_tokens=min(frames, Limits().max_text_tokens))

    @property
    def longest_seconds(self) -> float:
        """How much speech the encoder can hear at a time."""
        return self.loaded.model.config.longest_clip_seconds

    @property
    def num_answering(self) -> int:
        """Answers that wait or run."""
        return len(self._waiting) + len(self._answering)

    @property
    def is_ready(self) -> bool:
        """Whether the thread runs and has answered once."""
        return self._is_ready and self._thread.is_alive()

    def is_alive(self, *, within_seconds: float) -> bool:
        """Whether the thread runs and has begun a tick so lately."""
        return self._thread.is_alive() and self.silent_seconds <= within_seconds

    @property
    def silent_seconds(self) -> float:
        """For how long no tick has begun; 0 while the first turn lasts, and after the thread was stopped."""
        if not self._is_ready or (self._is_stopping and not self._thread.is_alive()):
            return 0.0
        return self._now() - self.last_beat

    def start(self) -> None:
        """Begin; ``is_ready`` tells when the first turn, which warms up, is over."""
        self._thread.start()

    def stop(self) -> None:
        """End every answer and the thread."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join()

    def new_memory(self) -> Memory:
        """The cache of a new conversation."""

        def note_positions(count: int) -> None:
            self.metrics.count("deeptalk_prefill_positions_total", by=count)

        memory = Memory(self._engine, note_positions)
        self._memories.add(memory)
        return memory

    def forget(self, memory: Memory) -> None:
        """Free a conversation's cache when nothing is made of it any more: its session is over."""
        self._over.put(memory)
        self._wake.set()

    def new_outlet(self) -> Outlet:
        """Where the pieces of an answer will come out, on the running event loop."""
        asked_at = self._now()

        def note_first_sound() -> None:
            self.metrics.observe("deeptalk_server_ttfa_seconds", self._now() - asked_at)

        outlet = Outlet(
            sample_rate=self.loaded.codec.sample_rate,
            limits=self.limits,
            on_room=self._wake.set,
            on_first_sound=note_first_sound,
            now=self._now,
        )
        self._outlets.add(outlet)
        return outlet

    @property
    def _num_positions(self) -> int:
        return sum(memory.num_positions for memory in self._memories)

    def gauges(self) -> dict[str, float]:
        """How full caches and queues are at the moment, by the names of ``METRICS``."""
        return {
            "deeptalk_cache_positions_used": self._num_positions,
            "deeptalk_cache_positions_limit": self.max_positions * self.limits.max_sessions,
            "deeptalk_out_queue_seconds": max((each.waiting_seconds for each in self._outlets), default=0.0),
        }

    def ask(self, request: Request) -> None:
        """Have a request answered; BusyError where too many wait."""
        self._hand_over(_Waiting(request=request, memory=request.memory or self.new_memory()))

    async def work(self, job: Job) -> None:
        """Have a job done, an error of which is raised here; it ends with the task that waits for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hand_over(_Working(job, done))
        await done

    def hear(
        self, ear: Ear, memory: Memory | None = None, before: Sequence[Turn] = (), *, may_forget: bool = True
    ) -> None:
        """Encode what an ear is given, and read it behind the turns ``before`` while nothing is answered.

        Where it ``may_forget``, behind those that the answer will be given to.
        """
        self._hand_over(_Hearing(ear=ear, memory=memory, before=tuple(before), may_forget=may_forget))

    def wake(self) -> None:
        """Something has changed: an ear has samples."""
        self._wake.set()

    def _hand_over(self, command: _Waiting | _Hearing | _Working) -> None:
        try:
            self._commands.put_nowait(command)
        except Full as full:
            self.metrics.count("deeptalk_rejects_total", "server_busy")
            raise BusyError("The server is busy: try again in a moment.") from full
        self._wake.set()

    def _run(self) -> None:
        self._warm_up()
        is_tidy = False
        while not self._is_stopping and not self._is_broken:
            self.last_beat = self._now()
            self._wake.clear()
            try:
                has_worked = self.tick()
            except Exception as error:
                self._fail_all(error)
                continue
            if has_worked:
                is_tidy = False
            elif not self._wake.wait(timeout=1.0) and not is_tidy and not self._num_positions:
                return_freed_memory()
                is_tidy = True
        self._take_commands()
        for each in (*self._waiting, *self._answering):
            each.request.outlet.put(Ended(reason="interrupted"))
        for working in self._jobs:
            working.tell(BusyError("The server is going down."))
        if self._is_broken:
            self.on_broken()

    def _warm_up(self) -> None:
        try:
            conversation = self.loaded.conversation()
            conversation.say_text("hello")
            pieces = conversation.reply()
            next(pieces, None)
            conversation.interrupt()
            self.last_beat, self._is_ready = self._now(), True
        except Exception:
            _logger.exception("The first turn failed: the server does not become ready.")

    def tick(self) -> bool:
        """One round; whether there was anything to do. Called by the thread, and by tests without one."""
        self._take_commands()
        has_heard = self._hear()
        has_read = self._read()
        has_worked = self._work()
        has_stepped = self._step()
        self._forget_what_is_over()
        return has_stepped or has_worked or has_read or has_heard

    def _busy(self) -> set[Memory]:
        """What answers are made of."""
        return {each.memory for each in (*self._waiting, *self._answering)}

    def _forget_what_is_over(self) -> None:
        for _ in range(self._over.qsize()):
            memory = self._over.get_nowait()
            if memory in self._busy():
                self._over.put(memory)  # its answer ends in the next tick
            else:
                memory.end()

    def _take_commands(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            if isinstance(command, _Hearing):
                self._ears.append(command)
            elif isinstance(command, _Working):
                self._jobs.append(command)
            else:
                self._waiting.append(command)

    def _hear(self) -> bool:
        """Encode some sound of one ear and read it; ears take turns."""
        for _ in range(len(self._ears)):
            hearing = self._ears.popleft()
            has_done = hearing.ear.digest(self._engine, most_seconds=self.limits.encoded_per_tick)
            if not hearing.ear.is_finished:
                self._ears.append(hearing)
            if has_done:
                self._read_along(hearing)
                return True
        return False

    def _read_along(self, hearing: _Hearing) -> None:
        """Read what was heard so far while the user still speaks, behind the turns that will be kept."""
        memory = hearing.memory
        if memory is None or memory.is_over or memory in self._busy():
            return
        if hearing.ear.error or not hearing.ear.num_frames:
            return
        turns = (*hearing.before, hearing.ear)
        if not memory.holds_only(turns):
            return
        try:
            kept = self._last_of(turns, mode="text", limits=self.answer_limits, may_forget=hearing.may_forget)
            memory.read(kept, most=self.limits.positions_per_tick)
        except ContextFullError:  # told when an answer is asked for
            return
        except Exception as error:  # it is read again, and told, when an answer is asked for
            _logger.error("Reading along failed: %s", type(error).__name__, exc_info=error)
            self._note_device(error)
            memory.clear()

    def _read(self) -> bool:
        """Read some positions for the first request that can go on, and let it answer when all are read."""
        for waiting in sorted(self._waiting, key=lambda waiting: waiting.request.is_patient):
            request = waiting.request
            if request.outlet.is_cancelled:
                self._waiting.remove(waiting)
                request.outlet.put(Ended(reason="interrupted"))
                return True
            if all(turn.is_finished for turn in request.turns if isinstance(turn, Ear)):
                self._read_for(waiting)
                return True
        return False

    def _read_for(self, waiting: _Waiting) -> None:
        try:
            if not waiting.is_fitted:
                waiting.turns, waiting.is_fitted = self._fitting(waiting.request), True
            if waiting.memory.read(waiting.turns, most=self.limits.positions_per_tick):
                self._waiting.remove(waiting)
                self._answering.append(self._begin(waiting))
        except Exception as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            waiting.memory.clear()
            self._fail(waiting.request, error)

    def _fitting(self, request: Request) -> list[Turn]:
        """The turns; the oldest are left out where the answer would not fit behind them."""
        for turn in request.turns:
            if isinstance(turn, Ear) and turn.error is not None:
                raise turn.error
        return self._last_of(
            request.turns, mode=request.mode, limits=request.options.limits, may_forget=request.may_forget
        )

    def _last_of(self, turns: Sequence[Turn], *, mode: str, limits: Limits, may_forget: bool) -> list[Turn]:
        """The turns that are read before an answer; ContextFullError where they don't fit.

        The ones before a spoken turn have three quarters of the positions: so its own length, which shows
        late, seldom changes what is to be read before it.
        """
        engine = self._engine
        longest = max(limits.max_text_tokens, limits.max_frames + engine.layout.num_codebooks + 1)
        room = self.max_positions - longest - opening_of(engine, mode).shape[1]
        wanted = min(room, self.limits.context_positions)
        first = 1 if len(turns) > 1 and _is_of(turns[0], "system") else 0
        size = num_positions_of(engine, turns[:first], is_start=False) + int(engine.layout.template.bos)
        last = num_positions_of(engine, turns[-1:], is_start=False)
        most = wanted - (max(last, wanted // 4) if isinstance(turns[-1], Ear) else last)
        at = len(turns) - 1
        while at > first:
            longer = size + num_positions_of(engine, turns[at - 1 : at], is_start=False)
            if may_forget and longer > most:
                while _is_of(turns[at], "assistant"):
                    at += 1
                break
            at, size = at - 1, longer
        if size + last > room:
            raise ContextFullError(
                f"The conversation needs more than the {room} positions that the model has for it."
            )
        return [*turns[:first], *turns[at:]]

    def _begin(self, waiting: _Waiting) -> _Answering:
        request = waiting.request
        opening = opening_of(self._engine, request.mode)
        history = waiting.memory.opened(opening)
        state = self._engine.start(
            history, opening[:, -1], row=row_of(request.mode), options=request.options, seed=request.seed
        )
        voicing = Voicing(self.loaded.codec, self._tokenizer, frames_per_chunk=FRAMES_PER_CHUNK)
        return _Answering(
            request=request,
            memory=waiting.memory,
            state=state,
            voicing=voicing,
            num_input_positions=history.num_positions + 1,
        )

    def _work(self) -> bool:
        """Do a piece of one job that somebody waits for; jobs take turns."""
        if not self._jobs:
            return False
        working = self._jobs.popleft()
        if working.done.done():
            return True
        try:
            if working.job.advance(most=self.limits.positions_per_tick):
                working.tell(None)
            else:
                self._jobs.append(working)
        except Exception as error:
            self._note_fault(error)
            working.tell(error)
        return True

    def _step(self) -> bool:
        """One step of every answer that is wanted and has room for its sound.

        One that is far ahead of its listener waits while others are not.
        """
        for answering in [each for each in self._answering if each.request.outlet.is_cancelled]:
            self._end(answering)
        running = [each for each in self._answering if not each.request.outlet.is_paused]
        urgent = [each for each in running if each.request.outlet.lead_seconds < self.limits.lead_seconds]
        running = urgent or running
        if not running:
            return False
        began = self._now()
        try:
            frames = self._engine.step_together([each.state for each in running])
        except Exception as error:
            for answering in running:
                self._fail_answer(answering, error)
            return True
        self.metrics.observe("deeptalk_step_seconds", self._now() - began)
        self.metrics.observe("deeptalk_batch_rows", len(running))
        for answering, frame in zip(running, frames, strict=True):
            try:
                piece = answering.voicing.take(frame, answering.state.answers[0])
                if piece.text or len(piece.samples):
                    answering.request.outlet.put(Piece(text=piece.text, samples=piece.samples))
                if answering.state.is_finished:
                    self._end(answering)
            except Exception as error:
                self._fail_answer(answering, error)
        return True

    def _end(self, answering: _Answering) -> None:
        """Remember what was said and tell that no more comes."""
        self._answering.remove(answering)
        answer, voicing = answering.state.answers[0], answering.voicing
        turn = Said(role="assistant", text=voicing.text.strip(), ids=tuple(answer.text_ids))
        answering.memory.remember(self._engine.stop(answering.state), turn)
        answering.request.outlet.put(
            Ended(
                reason=answer.finish_reason,
                turn=turn,
                num_input_positions=answering.num_input_positions,
                num_text_tokens=len(answer.text_ids),
                num_frames=len(answer.frames),
            )
        )

    def _fail_all(self, error: Exception) -> None:
        """A tick has failed as a whole: nothing that was under way is to be trusted."""
        for hearing in self._ears:
            hearing.ear.drop()
        requests = [each.request for each in (*self._waiting, *self._answering)]
        self._ears.clear()
        self._waiting.clear()
        self._answering.clear()
        _logger.error("A tick failed: %s", type(error).__name__, exc_info=error)
        self._note_device(error)
        for request in requests:
            self._fail(request, error)

    def _fail_answer(self, answering: _Answering, error: Exception) -> None:
        self._answering.remove(answering)
        self._fail(answering.request, error)

    def _note_fault(self, error: Exception) -> None:
        """What is no mistake of the caller is counted and goes to the log, without what was said."""
        if not isinstance(error, DeepTalkError):
            _logger.error("An answer failed: %s", type(error).__name__, exc_info=error)
            self.metrics.count("deeptalk_engine_faults_total")
        self._note_device(error)

    def _note_device(self, error: Exception) -> None:
        """After some errors every later call would fail as well."""
        self._is_broken = self._is_broken or isinstance(error, torch.AcceleratorError)

    def _fail(self, request: Request, error: Exception) -> None:
        """Tell the session."""
        self._note_fault(error)
        request.outlet.put(Ended(reason="interrupted", error=error))


def _is_of(turn: Turn, role: str) -> bool:
    return isinstance(turn, Said) and turn.role == role
