"""Sessions share one model thread, and each is answered as if it were alone."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import torch

from deeptalk.decoding import Conversation, DecodingOptions, History, Limits, LoadedModel, Sampling
from deeptalk.decoding.listening import prompt_of
from deeptalk.errors import AudioError
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.memory import Memory, num_positions_of
from deeptalk.serving.model_thread import BusyError, ContextFullError, ModelThread, Request
from deeptalk.serving.outlet import Ended, Outlet, Piece
from deeptalk.serving.turns import Ear, Said, columns_of, opening_of
from deeptalk.serving.turns import Turn as SomeTurn
from deeptalk.shapes import Tensor
from deeptalk.streams import Turn, encode_prompt

OPTIONS = DecodingOptions(limits=Limits(max_frames=4, max_text_tokens=8))
DRAWN = replace(OPTIONS, codec=Sampling(temperature=1.0), text=Sampling(temperature=1.0))


def noise(seconds: float, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(int(16_000 * seconds), generator=torch.Generator().manual_seed(seed))


def user(text: str) -> Said:
    return Said(role="user", text=text)


def spoken(samples: Tensor) -> Ear:
    ear = Ear()
    ear.push(samples)
    ear.close()
    return ear


async def collect(outlet: Outlet) -> tuple[str, Tensor, Ended]:
    pieces = [piece async for piece in outlet.pieces()]
    assert outlet.ended is not None
    samples = torch.cat([torch.zeros(0), *(piece.samples for piece in pieces)])
    return "".join(piece.text for piece in pieces).strip(), samples, outlet.ended


def run_dry(thread: ModelThread) -> None:
    while thread.tick():
        pass


def alone(loaded: LoadedModel, questions: list[str | Tensor], *, voice: str, options=OPTIONS, seed=0) -> list:
    """What a conversation by itself answers, turn by turn."""
    dialogue = Conversation(loaded.engine, loaded.codec, voice=voice, options=options, seed=seed)
    replies = []
    for question in questions:
        (dialogue.say_text if isinstance(question, str) else dialogue.listen)(question)  # pyright: ignore
        sound = torch.cat([piece.samples for piece in dialogue.reply()])
        replies.append((dialogue.last_reply.text, sound))
    return replies


def test_turns_are_written_as_prompts_are(loaded: LoadedModel):
    engine = loaded.engine
    ear = spoken(noise(0.5))
    while ear.digest(engine, most_seconds=0.1):
        pass
    turns = [Said(role="system", text="be kind"), user("hello"), Said(role="assistant", text="hi"), ear]
    plain = [Turn(role=turn.role, text=turn.text) for turn in turns[:3]]
    plain.append(Turn(role="user", num_speech_frames=ear.num_frames))
    assert loaded.model.tokenizer is not None
    prompt = encode_prompt(plain, tokenizer=loaded.model.tokenizer, layout=engine.layout, mode="speaker:slt")
    parts = [columns_of(engine, turn, is_first=turn is turns[0]) for turn in turns]
    opening = opening_of(engine, "speaker:slt")
    assert torch.equal(torch.cat([*(part.grid for part in parts), opening], dim=1), prompt.grid)
    speech_at = torch.cat([part.speech_at for part in parts])
    assert torch.equal(speech_at, prompt.speech_at[: len(speech_at)])


def test_memory_of_edited_turns_equals_reading_them_anew(loaded: LoadedModel):
    engine, ear = loaded.engine, spoken(noise(0.4))
    while ear.digest(engine, most_seconds=1.0):
        pass
    a, b, c = user("one"), Said(role="assistant", text="two and more"), user("three")
    memory = Memory(engine)
    for turns in (
        [a, ear, b],
        [a, ear, b, c],
        [a, Said(role="assistant", text="two"), c],
        [ear],
        [a, c, ear],
    ):
        while not memory.read(turns, most=5):
            pass
        fresh = Memory(engine)
        assert fresh.read(turns)
        assert memory.num_positions == fresh.num_positions
        opening = opening_of(engine, "text")
        kept, anew = memory.opened(opening), fresh.opened(opening)
        for one, other in zip(kept.cache.layers, anew.cache.layers, strict=True):
            torch.testing.assert_close(one.keys, other.keys, rtol=1e-4, atol=1e-5)  # routers are float32
    prompt = prompt_of(engine, Turn(role="user", text="one"), mode="text", is_continuation=False)
    assert memory.read([a])
    assert memory.num_positions + opening.shape[1] == prompt.grid.shape[1]


def test_interleaved_sessions_are_answered_as_alone(loaded: LoadedModel, still: ModelThread):
    """Four dialogues of two turns, asked at different ticks, in voices and seeds of their own."""
    asked: list[tuple[list, str, DecodingOptions, int]] = [
        (["hello", "and then?"], "rms", OPTIONS, 0),
        ([noise(0.5), noise(0.3, seed=1)], "slt", OPTIONS, 0),
        (["who are you?", noise(0.3, seed=2)], "slt", DRAWN, 7),
        ([noise(0.4, seed=3), "no"], "rms", replace(OPTIONS, limits=Limits(max_frames=2)), 1),
    ]

    async def session(number: int) -> list:
        questions, voice, options, seed = asked[number]
        memory, turns, replies = still.new_memory(), [], []
        for turn_number, question in enumerate(questions):
            for _ in range(3 * number):
                await asyncio.sleep(0)
            turn = user(question) if isinstance(question, str) else Ear()
            if isinstance(turn, Ear):
                still.hear(turn, memory, turns)
                for chunk in question.split(3000):
                    turn.push(chunk)
                    await asyncio.sleep(0)
                turn.close()
            turns.append(turn)
            outlet = still.new_outlet()
            still.ask(
                Request(
                    turns=tuple(turns),
                    mode=f"speaker:{voice}",
                    options=options,
                    outlet=outlet,
                    memory=memory,
                    seed=seed + turn_number,
                )
            )
            text, samples, ended = await collect(outlet)
            assert ended.turn is not None
            turns.append(ended.turn)
            replies.append((text, samples))
        return replies

    async def main() -> tuple[list, int]:
        sessions = [asyncio.create_task(session(number)) for number in range(len(asked))]
        most = 0
        while not all(task.done() for task in sessions):
            still.tick()
            most = max(most, still.num_answering)
            await asyncio.sleep(0)
        return [task.result() for task in sessions], most

    replies, most = asyncio.run(main())
    assert most >= 3
    for (questions, voice, options, seed), got in zip(asked, replies, strict=True):
        expected = alone(loaded, questions, voice=voice, options=options, seed=seed)
        assert [text for text, _ in got] == [text for text, _ in expected]
        for (_, sound), (_, expected_sound) in zip(got, expected, strict=True):
            torch.testing.assert_close(sound, expected_sound)


def test_a_cancelled_answer_ends_at_the_next_tick_and_what_was_said_stays(
    loaded: LoadedModel, still: ModelThread
):
    async def main() -> tuple[Ended, Ended, Ended]:
        memory, outlet = still.new_memory(), still.new_outlet()
        hello = user("hello")
        still.ask(Request(turns=[hello], mode="answer", options=OPTIONS, outlet=outlet, memory=memory))
        while not outlet.waiting_seconds:
            still.tick()
        outlet.cancel()
        still.tick()
        assert still.num_answering == 0
        *_, ended = await collect(outlet)
        unbegun = still.new_outlet()
        assert ended.turn is not None
        turns = [hello, ended.turn, user("go on")]
        still.ask(Request(turns=turns, mode="answer", options=OPTIONS, outlet=unbegun, memory=memory))
        unbegun.cancel()
        run_dry(still)
        *_, nothing = await collect(unbegun)
        outlet = still.new_outlet()
        still.ask(Request(turns=turns, mode="answer", options=OPTIONS, outlet=outlet, memory=memory))
        run_dry(still)
        return ended, nothing, (await collect(outlet))[2]

    ended, nothing, last = asyncio.run(main())
    assert (ended.reason, nothing.reason, nothing.turn) == ("interrupted", "interrupted", None)
    dialogue = Conversation(loaded.engine, loaded.codec, options=OPTIONS)
    dialogue._mode = "answer"
    dialogue.say_text("hello")
    pieces = dialogue.reply()
    for piece in pieces:
        if len(piece.samples):
            break
    dialogue.interrupt()
    assert ended.turn is not None
    assert last.turn is not None
    assert ended.turn.text == dialogue.last_reply.text
    dialogue.say_text("go on")
    list(dialogue.reply())
    assert last.turn.text == dialogue.last_reply.text


def test_an_answer_waits_for_its_listener(loaded: LoadedModel):
    """With room for a fifth of a second an unread answer stops; once read, it goes on to its end."""
    still = ModelThread(loaded, limits=ServerLimits(out_high=0.2, out_low=0.1))

    async def main() -> tuple[float, Tensor]:
        outlet = still.new_outlet()
        still.ask(Request(turns=[user("hello")], mode="answer", options=OPTIONS, outlet=outlet))
        run_dry(still)
        held = outlet.waiting_seconds
        assert outlet.is_paused
        reading = asyncio.create_task(collect(outlet))
        while not reading.done():
            still.tick()
            await asyncio.sleep(0)
        return held, reading.result()[1]

    held, samples = asyncio.run(main())
    frame = loaded.codec.samples_per_frame / loaded.codec.sample_rate
    assert 0.2 <= held < 0.2 + 3 * frame
    assert len(samples) == 4 * loaded.codec.samples_per_frame


def test_who_is_far_ahead_waits_for_those_who_are_not(loaded: LoadedModel):
    """Two frames ahead of its listener an answer stands still while another has less; then both end."""
    frame = loaded.codec.samples_per_frame / loaded.codec.sample_rate
    clock = [0.0]
    still = ModelThread(loaded, limits=ServerLimits(lead_seconds=1.5 * frame), now=lambda: clock[0])

    def ask(outlet: Outlet) -> Outlet:
        still.ask(Request(turns=[user("hello")], mode="answer", options=OPTIONS, outlet=outlet))
        return outlet

    async def main() -> list[int]:
        first = ask(still.new_outlet())
        while first.lead_seconds < 1.5 * frame:
            still.tick()
        second, held = ask(still.new_outlet()), first.waiting_seconds
        while second.lead_seconds < 1.5 * frame:
            still.tick()
            assert first.waiting_seconds == held or second.lead_seconds >= 1.5 * frame
        clock[0] += frame
        still.tick()
        assert first.waiting_seconds > held
        run_dry(still)
        return [len((await collect(outlet))[1]) for outlet in (first, second)]

    assert asyncio.run(main()) == [4 * loaded.codec.samples_per_frame] * 2


def test_one_failing_answer_leaves_the_others(loaded: LoadedModel, still: ModelThread):
    async def main() -> list[Ended]:
        deaf, long, good = (still.new_outlet() for _ in range(3))
        ear = spoken(torch.full((9000,), float("nan")))
        still.hear(ear)
        still.ask(Request(turns=[ear], mode="answer", options=OPTIONS, outlet=deaf))
        turns = [user("x" * 300), user("y" * 250)]
        still.ask(Request(turns=turns, mode="text", options=OPTIONS, outlet=long, may_forget=False))
        still.ask(Request(turns=[*turns, user("hello")], mode="text", options=OPTIONS, outlet=good))
        run_dry(still)
        return [(await collect(outlet))[2] for outlet in (deaf, long, good)]

    deaf, long, good = asyncio.run(main())
    assert isinstance(deaf.error, AudioError)
    assert isinstance(long.error, ContextFullError)
    assert (good.error, good.reason) == (None, "length")
    assert 250 < good.num_input_positions < 512


def test_of_a_long_conversation_the_last_turns_are_read(loaded: LoadedModel):
    """The instructions stay; an answer whose question is forgotten is forgotten too."""
    still = ModelThread(loaded, limits=ServerLimits(context_positions=60))
    system, last = Said(role="system", text="be kind"), user("what did I say?")
    answer = Said(role="assistant", text="four and five")

    async def main() -> list[Ended]:
        given = []
        for turns in ([system, user("one two three"), answer, last], [system, last]):
            outlet = still.new_outlet()
            still.ask(Request(turns=turns, mode="text", options=OPTIONS, outlet=outlet))
            run_dry(still)
            given.append((await collect(outlet))[2])
        return given

    long, short = asyncio.run(main())
    assert short.turn is not None
    assert long.turn is not None
    assert (long.num_input_positions, long.turn.ids) == (short.num_input_positions, short.turn.ids)


def test_in_a_long_conversation_only_the_end_of_a_turn_is_left_to_read(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    """Whatever is forgotten is so while the user speaks, and the answer is that to the last turns alone."""
    still = ModelThread(loaded, limits=ServerLimits(context_positions=90))
    read: list[int] = []
    extend = loaded.engine.extend

    def counted(history: History, grid: Tensor, **speech: Any) -> None:
        read.append(grid.shape[1])
        extend(history, grid, **speech)

    monkeypatch.setattr(loaded.engine, "extend", counted)

    async def answer(turns: list[SomeTurn], memory: Memory | None = None) -> Ended:
        outlet = still.new_outlet()
        request = Request(turns=turns, mode="answer", options=OPTIONS, outlet=outlet, memory=memory)
        still.ask(request)
        run_dry(still)
        return (await collect(outlet))[2]

    async def main() -> tuple[Ended, list[SomeTurn]]:
        memory, turns, given = still.new_memory(), list[SomeTurn](), list[Ended]()
        for number in range(6):
            ear = Ear()
            still.hear(ear, memory, turns)
            for chunk in noise(0.9, seed=number).split(1600):
                ear.push(chunk)
                run_dry(still)
            ear.close()
            turns.append(ear)
            read.clear()
            given.append(await answer(turns, memory))
            assert len(read) == 1
            assert read[0] < 16 + opening_of(loaded.engine, "answer").shape[1]
            assert given[-1].turn is not None
            turns.append(given[-1].turn)
        return given[-1], turns

    ended, turns = asyncio.run(main())
    assert num_positions_of(loaded.engine, turns) > 2 * 90
    assert ended.turn is not None
    last = ended.num_input_positions
    shorter = [turns[start:-1] for start in range(0, len(turns), 2)]
    sizes = [
        num_positions_of(loaded.engine, each) + opening_of(loaded.engine, "answer").shape[1]
        for each in shorter
    ]
    anew = asyncio.run(answer(shorter[sizes.index(last)]))
    assert anew.turn is not None
    assert anew.turn.ids == ended.turn.ids


def test_a_full_queue_answers_busy(loaded: LoadedModel):
    still = ModelThread(loaded, limits=ServerLimits(max_commands=2))
    still.hear(Ear())
    still.hear(Ear())
    with pytest.raises(BusyError, match="busy"):
        still.hear(Ear())


def test_the_thread_runs_and_ends(loaded: LoadedModel):
    thread = ModelThread(loaded, limits=ServerLimits())
    thread.start()

    async def main() -> Ended:
        outlet = thread.new_outlet()
        thread.ask(Request(turns=[user("hello")], mode="text", options=OPTIONS, outlet=outlet))
        return (await collect(outlet))[2]

    ended = asyncio.run(main())
    assert ended.turn is not None
    assert ended.num_text_tokens == 8
    assert thread.is_ready
    thread.stop()
    assert not thread.is_ready


def test_dropped_pieces_are_not_heard():
    async def main() -> list:
        outlet = Outlet(sample_rate=10, limits=ServerLimits(), on_room=lambda: None)
        outlet.put(Piece(text="a", samples=torch.zeros(5)))
        outlet.cancel()
        outlet.put(Piece(text="b", samples=torch.zeros(5)))
        outlet.put(Ended(reason="interrupted"))
        return [piece async for piece in outlet.pieces()]

    assert asyncio.run(main()) == []
