from threading import Thread

import pytest
import torch

from deeptalk.audio import log_mel
from deeptalk.codec import SineCodec
from deeptalk.decoding import Conversation, DecodingEngine, DecodingOptions, Limits, Sampling
from deeptalk.errors import AudioError, ConfigError
from deeptalk.model import DeepTalk
from deeptalk.shapes import Tensor
from deeptalk.streams import Prompt, Turn, encode_prompt
from deeptalk.streams.prompt import READ_ALOUD

OPTIONS = DecodingOptions(limits=Limits(max_frames=9, max_text_tokens=12))
CODEC = SineCodec()


def noise(seconds: float, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(int(16_000 * seconds), generator=torch.Generator().manual_seed(seed))


def drain(conversation: Conversation) -> list:
    return list(conversation.reply())


def offline(model: DeepTalk, turn: Turn, mode: str, samples: Tensor | None = None) -> tuple:
    """Text and codes of one turn by the engine alone, everything computed at once."""
    frames = None
    if samples is not None:
        mel = log_mel(samples[None], spec=model.mel)
        with torch.no_grad():
            frames = model.encode_speech(mel, torch.tensor([mel.shape[-1]]))[0]
        turn = Turn(role="user", num_speech_frames=len(frames))
    assert model.tokenizer is not None
    prompt = encode_prompt([turn], tokenizer=model.tokenizer, layout=model.layout, mode=mode)
    [answer] = DecodingEngine(model).generate([prompt], speech=[frames], options=OPTIONS)
    return model.tokenizer.decode(answer.text_ids).strip(), answer.codes


@pytest.mark.parametrize("size", [7777, 1600, 333])
@pytest.mark.parametrize("kind", ["model", "whole_model", "worded_model"])
def test_listening_in_chunks_equals_listening_at_once(kind: str, size: int, request: pytest.FixtureRequest):
    model = request.getfixturevalue(kind)
    samples = noise(0.63)
    conversation = Conversation(DecodingEngine(model), CODEC, options=OPTIONS)
    for chunk in samples.split(size):
        conversation.listen(chunk)
    drain(conversation)
    text, codes = offline(model, Turn(role="user", text="-"), "speaker:rms", samples)
    assert conversation.last_reply.text == text
    assert torch.equal(conversation.last_reply.codes, codes)
    other = offline(model, Turn(role="user", text="-"), "speaker:rms", 0.001 * noise(0.63, seed=1))
    assert other[0] != text or not torch.equal(other[1], codes)


def test_pieces_make_up_the_reply(model: DeepTalk):
    conversation = Conversation(DecodingEngine(model), CODEC, voice="slt", options=OPTIONS)
    conversation.say_text(" hello ")
    pieces = drain(conversation)
    reply = conversation.last_reply
    text, codes = offline(model, Turn(role="user", text="hello"), "speaker:slt")
    assert "".join(piece.text for piece in pieces).strip() == reply.text == text
    assert torch.equal(reply.codes, codes)
    torch.testing.assert_close(torch.cat([piece.samples for piece in pieces]), CODEC.decode(codes.T[None])[0])
    sizes = [len(piece.samples) // CODEC.samples_per_frame for piece in pieces if len(piece.samples)]
    assert sizes == [1, 2, 2, 2, 2]
    assert (reply.num_frames, reply.finish_reason) == (9, "length")


def test_a_dialogue_equals_one_long_prompt(model: DeepTalk, conversation: Conversation):
    samples = noise(0.5)
    conversation.listen(samples)
    drain(conversation)
    mel = log_mel(samples[None], spec=model.mel)
    with torch.no_grad():
        frames = model.encode_speech(mel, torch.tensor([mel.shape[-1]]))[0]
    tokenizer, layout = model.tokenizer, model.layout
    assert tokenizer is not None
    first = encode_prompt(
        [Turn(role="user", num_speech_frames=len(frames))], tokenizer=tokenizer, layout=layout, mode="text"
    )
    state = DecodingEngine(model).prefill([first], speech=[frames], options=OPTIONS)
    engine = DecodingEngine(model)
    while not state.is_finished:
        engine.step(state)
    said = [*state.answers[0].text_ids, layout.eos_id]
    assert tokenizer.decode(said).strip() == conversation.last_reply.text
    conversation.say_text("and then?")
    drain(conversation)
    rest = encode_prompt(
        [Turn(role="user", text="and then?")],
        tokenizer=tokenizer,
        layout=layout,
        mode="speaker:rms",
        is_continuation=True,
    )
    answered = torch.tensor(layout.pad_ids)[:, None].repeat(1, len(said))
    answered[0] = torch.tensor(said)
    grid = torch.cat([first.grid, answered, rest.grid], dim=1)
    speech_at = torch.nn.functional.pad(first.speech_at, (0, grid.shape[1] - len(first.speech_at)), value=-1)
    whole = Prompt(grid=grid, kind=torch.zeros_like(speech_at), speech_at=speech_at, row=rest.row)
    [anew] = engine.generate([whole], speech=[frames], options=OPTIONS)
    assert conversation.last_reply.text == tokenizer.decode(anew.text_ids).strip()
    assert torch.equal(conversation.last_reply.codes, anew.codes)
    conversation.listen(samples)
    assert drain(conversation)


def test_an_interrupted_reply_stays_in_the_dialogue(model: DeepTalk):
    """The next turn is answered as if the model had meant to say what it has said."""
    replies = []
    for way in ("interrupt", "leave", "listen"):
        conversation = Conversation(DecodingEngine(model), CODEC, options=OPTIONS)
        conversation.say_text("hello")
        pieces = conversation.reply()
        heard = [next(pieces) for _ in range(4)]
        if way == "interrupt":
            conversation.interrupt()
            assert list(pieces) == []
        elif way == "leave":
            pieces.close()  # pyright: ignore[reportAttributeAccessIssue]
        said = "".join(piece.text for piece in heard)
        before = conversation.num_positions
        conversation.say_text("go on")
        assert conversation.last_reply.finish_reason == "interrupted"
        assert conversation.last_reply.text == said.strip()
        assert way == "listen" or before == conversation.num_positions
        drain(conversation)
        replies.append(conversation.last_reply)
    assert replies[0].finish_reason == "length"
    assert len({reply.text for reply in replies}) == 1
    fresh = Conversation(DecodingEngine(model), CODEC, options=OPTIONS)
    fresh.say_text("go on")
    drain(fresh)
    assert fresh.last_reply.text != replies[0].text


def test_interrupting_from_inside_the_loop(conversation: Conversation):
    conversation.interrupt()
    conversation.say_text("hello")
    for piece in conversation.reply():
        if len(piece.samples):
            conversation.interrupt()
    assert conversation.last_reply.num_frames == 1
    assert conversation.last_reply.finish_reason == "interrupted"


@pytest.mark.parametrize("when", ["between pieces", "inside a step"])
def test_another_thread_may_interrupt(model: DeepTalk, monkeypatch: pytest.MonkeyPatch, when: str):
    engine = DecodingEngine(model)
    conversation = Conversation(engine, CODEC, options=OPTIONS)
    step, num_steps, interrupted_at = engine.step, 0, []

    def interrupt() -> None:
        if num_steps >= 4 and not interrupted_at:
            interrupted_at.append(num_steps)
            thread = Thread(target=conversation.interrupt)
            thread.start()
            thread.join()

    def counted(state):
        nonlocal num_steps
        num_steps += 1
        if when == "inside a step":
            interrupt()
        return step(state)

    monkeypatch.setattr(engine, "step", counted)
    conversation.say_text("hello")
    said = ""
    for piece in conversation.reply():
        said += piece.text
        if when == "between pieces":
            interrupt()
    assert interrupted_at == [num_steps]
    assert conversation.last_reply.finish_reason == "interrupted"
    assert conversation.last_reply.text == said.strip()
    conversation.say_text("go on")
    drain(conversation)
    assert conversation.last_reply.finish_reason == "length"


def test_times_count_computing_only(model: DeepTalk, monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    engine = DecodingEngine(model)
    step = engine.step

    def slow_step(state):
        clock[0] += 0.010
        return step(state)

    monkeypatch.setattr(engine, "step", slow_step)
    conversation = Conversation(engine, CODEC, options=OPTIONS, now=lambda: clock[0])
    conversation.say_text("hello")
    clock[0] += 100.0
    for _ in conversation.reply():
        clock[0] += 100.0
    reply = conversation.last_reply
    assert reply.time_to_first_audio_ms == pytest.approx(80.0)
    assert reply.real_time_factor == pytest.approx(0.16 / (9 * 2048 / 24_000))


def test_transcribing_stands_apart(model: DeepTalk, conversation: Conversation):
    samples = noise(0.4)
    conversation.say_text("hello")
    drain(conversation)
    before, reply = conversation.num_positions, conversation.last_reply
    assert conversation.transcribe(samples) == offline(model, Turn(role="user", text="-"), "asr", samples)[0]
    assert conversation.num_positions == before
    assert conversation.last_reply is reply


def test_reading_aloud_stands_apart(model: DeepTalk, conversation: Conversation):
    conversation.say_text("hello")
    drain(conversation)
    before = conversation.num_positions
    pieces = list(conversation.read_aloud("some words"))
    asked = Turn(role="user", text=READ_ALOUD.format(text="some words"))
    text, codes = offline(model, asked, "speaker:rms")
    assert "".join(piece.text for piece in pieces).strip() == text
    assert torch.equal(conversation.last_reply.codes, codes)
    assert conversation.num_positions == before


def test_a_seed_repeats_a_dialogue(model: DeepTalk):
    random = Sampling(temperature=1.0)
    options = DecodingOptions(text=random, codec=random, limits=OPTIONS.limits)
    told = []
    for seed in (1, 1, 2):
        conversation = Conversation(DecodingEngine(model), CODEC, seed=seed, options=options)
        texts = []
        for question in ("a", "a"):
            conversation.say_text(question)
            drain(conversation)
            texts.append(conversation.last_reply.text)
        told.append(texts)
    assert told[0] == told[1]
    assert told[0] != told[2]


def test_a_long_dialogue_begins_anew(model: DeepTalk, conversation: Conversation):
    sizes = []
    for _ in range(12):
        conversation.say_text("x" * 20)
        drain(conversation)
        sizes.append(conversation.num_positions)
    assert max(sizes) < model.backbone.model.config.max_position_embeddings
    assert sizes.count(sizes[0]) >= 2


def test_bad_turns_leave_the_dialogue_usable(model: DeepTalk, conversation: Conversation):
    with pytest.raises(ConfigError, match="no reply yet"):
        _ = conversation.last_reply
    with pytest.raises(ConfigError, match="Nothing has been asked"):
        conversation.reply()
    with pytest.raises(ConfigError, match="empty"):
        conversation.say_text("  ")
    with pytest.raises(AudioError, match="finite"):
        conversation.listen(torch.full((3000,), float("nan")))
    conversation.listen(torch.zeros(100))
    with pytest.raises(AudioError, match="Nothing was heard"):
        drain(conversation)
    with pytest.raises(AudioError, match=r"1\.28 s"):
        conversation.listen(noise(2.0))
    conversation.listen(noise(0.3))
    with pytest.raises(ConfigError, match="spoken or written"):
        conversation.say_text("hello")
    drain(conversation)
    heard = conversation.last_reply.text
    assert heard == offline(model, Turn(role="user", text="-"), "speaker:rms", noise(0.3))[0]


def test_bad_settings(model: DeepTalk):
    with pytest.raises(ConfigError, match="rms"):
        Conversation(DecodingEngine(model), CODEC, voice="nobody")
    with pytest.raises(ConfigError, match="frames_per_chunk"):
        Conversation(DecodingEngine(model), CODEC, frames_per_chunk=0)
