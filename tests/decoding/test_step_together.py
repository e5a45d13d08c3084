"""Dialogues that are stepped in one forward, joining and leaving at any time, go on as they would alone."""

from dataclasses import replace

import pytest
import torch

from deeptalk.decoding import DecodingEngine, DecodingOptions, DialogueState, Limits, Sampling
from deeptalk.errors import ConfigError
from deeptalk.experts.mask import Routing
from deeptalk.model import DeepTalk
from deeptalk.streams import Prompt, Turn, encode_prompt

SHORT = DecodingOptions(limits=Limits(max_frames=5, max_text_tokens=12))
LONG = DecodingOptions(limits=Limits(max_frames=9, max_text_tokens=4))
DRAWN = replace(SHORT, text=Sampling(temperature=1.0), codec=Sampling(temperature=1.0))
ASKED = (
    ("hello there", "answer", SHORT, 0),
    ("b", "speaker:slt", LONG, 0),
    ("and a longer question than that", "text", LONG, 1),
    ("what", "asr", SHORT, 2),
    ("who is drawn?", "answer", DRAWN, 3),
)
JOINS = (0, 2, 2, 5, 7)
"""The step before which each of them comes."""


def start(engine: DecodingEngine, number: int) -> DialogueState:
    question, mode, options, seed = ASKED[number]
    return engine.prefill([_prompt(engine.model, question, mode)], options=options, seeds=[seed])


def _prompt(model: DeepTalk, question: str, mode: str) -> Prompt:
    assert model.tokenizer is not None
    turn = Turn(role="user", text=question)
    return encode_prompt([turn], tokenizer=model.tokenizer, layout=model.layout, mode=mode)


def outcome(engine: DecodingEngine, state: DialogueState) -> tuple:
    answer, history = state.answers[0], engine.stop(state)
    return answer.text_ids, answer.frames, answer.finish_reason, history.num_positions, history.pending


@pytest.mark.parametrize("routing", [Routing(), Routing(text="text", audio="audio")])
def test_each_dialogue_equals_itself_alone(
    model: DeepTalk, routing: Routing, monkeypatch: pytest.MonkeyPatch
):
    is_audio = ((0, 2, 4), (1, 2, 3))
    config = replace(
        model.config, audio_experts=is_audio, routing={"text": routing.text, "audio": routing.audio}
    )
    monkeypatch.setattr(model, "config", config)
    engine = DecodingEngine(model)
    alone, after = [], []
    for number in range(len(ASKED)):
        state = start(engine, number)
        while not state.is_finished:
            engine.step(state)
        alone.append(outcome(engine, state))
        after.append(_next_hidden(engine, state))
    states: dict[int, DialogueState] = {}
    widths, step = [], 0
    while len(states) < len(ASKED) or not all(state.is_finished for state in states.values()):
        states |= {number: start(engine, number) for number, at in enumerate(JOINS) if at == step}
        running = [state for state in states.values() if not state.is_finished]
        frames = engine.step_together(running)
        assert [frame.is_last for frame in frames] == [state.is_finished for state in running]
        widths.append(len(running))
        step += 1
    assert max(widths) >= 4
    assert [outcome(engine, states[number]) for number in range(len(ASKED))] == alone
    for number, expected in enumerate(after):
        torch.testing.assert_close(_next_hidden(engine, states[number]), expected)


def _next_hidden(engine: DecodingEngine, state: DialogueState) -> torch.Tensor:
    """The keys of the first layer once the dialogue has gone on by a turn."""
    history = engine.stop(state).fork()
    engine.extend(history, _prompt(engine.model, "go on", "text").grid)
    return history.cache.layers[0].keys  # pyright: ignore[reportReturnType]


def test_a_dialogue_that_has_ended_is_refused(model: DeepTalk):
    engine = DecodingEngine(model)
    state = start(engine, 3)
    while not state.is_finished:
        engine.step(state)
    with pytest.raises(ConfigError, match="not ended"):
        engine.step_together([state])


def test_a_cropped_history_equals_a_shorter_one(model: DeepTalk):
    engine, grid = DecodingEngine(model), _prompt(model, "hello", "text").grid
    whole, shorter = engine.new_history(), engine.new_history()
    engine.extend(whole, grid)
    untouched = whole.fork()
    whole.crop(4)
    engine.extend(shorter, grid[:, :4])
    for history in (whole, shorter):
        engine.extend(history, grid[:, 2:6])
    torch.testing.assert_close(whole.cache.layers[0].keys, shorter.cache.layers[0].keys)
    assert (whole.num_positions, untouched.num_positions) == (8, grid.shape[1])
    whole.pending = [grid[:, 0].tolist()] * 2
    whole.crop(9)
    assert (len(whole.pending), whole.num_positions) == (1, 9)
