from dataclasses import replace

import pytest
import torch

from deeptalk.backbone import RouterMask
from deeptalk.decoding.answer import Limits
from deeptalk.decoding.engine import DecodingEngine, Generated
from deeptalk.decoding.sampling import Sampling
from deeptalk.decoding.state import DecodingOptions
from deeptalk.errors import ConfigError
from deeptalk.experts.mask import Routing, groups_of, router_mask
from deeptalk.experts.partition import ExpertPartition
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.streams import DelayPattern, Kind, Prompt, Row, Turn, encode_prompt

OPTIONS = DecodingOptions(limits=Limits(max_frames=9, max_text_tokens=12))
MODES = ("answer", "speaker:slt", "asr", "text")


def prompt_of(model: DeepTalk, *turns: Turn, mode: str, **options: bool) -> Prompt:
    assert model.tokenizer is not None
    return encode_prompt(turns, tokenizer=model.tokenizer, layout=model.layout, mode=mode, **options)


def asked(model: DeepTalk, text: str, *, mode: str) -> Prompt:
    return prompt_of(model, Turn(role="user", text=text), mode=mode)


def full_forward(
    model: DeepTalk,
    prompt: Prompt,
    options: DecodingOptions,
    speech: torch.Tensor | None = None,
    mask: RouterMask | None = None,
) -> Generated:
    """Section 12 once more, on whole grids and without a cache: one forward over everything for each item."""
    layout, limits = model.layout, options.limits
    pads = torch.full((layout.num_codebooks,), layout.pad_audio)
    row_s, row_t = prompt.grid.clone(), prompt.grid.clone()
    if prompt.row:
        row_t[1:, -1] = layout.pad_audio
    length, text_done, tokens, s, is_cut = None, False, [], 0, False
    audio_done, eot_due = not prompt.row, False
    while not (text_done and audio_done):
        logits = []
        for role, row in ((Row.TEXT, row_t), (prompt.row, row_s)):
            num_new = row.shape[1] - prompt.grid.shape[1]
            at = torch.nn.functional.pad(prompt.speech_at, (0, num_new), value=-1)
            frames = None if speech is None else speech[None]
            x = model.embed(row[None], speech=frames, speech_at=at[None])
            kind = torch.nn.functional.pad(prompt.kind, (0, num_new), value=int(Kind.ANSWER))
            groups = None if mask is None else groups_of(kind[None], torch.tensor([int(role)]))
            hidden = model.backbone(x, router_mask=mask, groups=groups).hidden
            logits.append(model.heads(hidden[:, -1:], text_head=model.backbone.lm_head))
        x = layout.text_eot if eot_due else layout.text_pad
        eot_due = False
        if not text_done:
            x = int(logits[0].text[0, -1].argmax())
            if x != layout.eos_id and len(tokens) == limits.max_text_tokens:
                x, is_cut = layout.eos_id, True
            tokens += [x] if x != layout.eos_id else []
            text_done = x == layout.eos_id
            eot_due = text_done and options.released
        scores = logits[1].codec[0, :, -1]
        a = pads.clone()
        for i in range(layout.num_codebooks):
            if s < i + 1 or audio_done:
                continue
            if length is None or s < length + i + 1:
                ends = (i == 0 or options.released) and s > limits.min_frames + i
                legal = layout.codebook_size + ends
                a[i] = scores[i, :legal].argmax()
                if i == 0 and s > limits.max_frames and a[0] != layout.eoa:
                    a[0], is_cut = layout.eoa, True
                if a[i] == layout.eoa:
                    length = s - i - 1
            elif s == length + i + 1:
                a[i] = layout.eoa
        row_t = torch.cat([row_t, torch.cat([torch.tensor([x]), pads])[:, None]], dim=1)
        row_s = torch.cat([row_s, torch.cat([torch.tensor([x]), a])[:, None]], dim=1)
        audio_done = audio_done or (length is not None and s >= length + 7)
        text_done = text_done or (options.released and bool(prompt.row) and audio_done)
        s += 1
    items = row_s[1:, prompt.grid.shape[1] :]
    codes = torch.zeros(0, layout.num_codebooks, dtype=torch.long)
    if length is not None:
        codes = DelayPattern(tuple(range(1, 8))).undo(items[None])[0, :, :length].T
    return Generated(text_ids=tuple(tokens), codes=codes, finish_reason="length" if is_cut else "stop")


def assert_same(ours: Generated, theirs: Generated) -> None:
    assert ours.text_ids == theirs.text_ids
    assert torch.equal(ours.codes, theirs.codes)
    assert ours.finish_reason == theirs.finish_reason


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("question", ["hello there", "b"])
@torch.no_grad()
def test_greedy_equals_the_full_forward(model: DeepTalk, mode: str, question: str):
    prompt = asked(model, question, mode=mode)
    [ours] = DecodingEngine(model).generate([prompt], options=OPTIONS)
    assert_same(ours, full_forward(model, prompt, OPTIONS))
    assert ours.text_ids


@torch.no_grad()
def test_answers_that_end_by_themselves(model: DeepTalk):
    """With EOS and EOA made likely, text and speech end at different times, in both orders."""
    layout, orders = model.layout, set()
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        engine = DecodingEngine(model)
        for seed in range(6):
            generator = torch.Generator().manual_seed(seed)
            for weight, row in (
                (model.backbone.lm_head.weight, layout.eos_id),
                (model.heads.codec[0].weight, layout.eoa),
            ):
                noise = torch.randn(weight.shape[1], generator=generator, dtype=weight.dtype)
                weight[row] = noise * weight.std() * 2.5
            engine = DecodingEngine(model)
            prompt = asked(model, f"question {seed}", mode="answer")
            [ours] = engine.generate([prompt], options=OPTIONS)
            assert_same(ours, full_forward(model, prompt, OPTIONS))
            orders.add((len(ours.codes) + 8 > len(ours.text_ids), ours.finish_reason))
    finally:
        model.load_state_dict(saved)
    assert {True, False} <= {is_speech_longer for is_speech_longer, _ in orders}
    assert "stop" in {reason for _, reason in orders}


@torch.no_grad()
def test_released_answers_are_ended_by_any_codebook(model: DeepTalk):
    """As the authors' code ends them: EOA of any codebook, EOT behind EOS, the text with the speech."""
    layout, options = model.layout, replace(OPTIONS, released=True)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lengths, enders = set(), set()
    try:
        for seed in range(6):
            generator = torch.Generator().manual_seed(seed)
            for head in model.heads.codec:
                noise = torch.randn(head.weight.shape[1], generator=generator, dtype=head.weight.dtype)
                head.weight[layout.eoa] = noise * head.weight.std()
            engine = DecodingEngine(model)
            prompt = asked(model, f"question {seed}", mode="answer")
            [ours] = engine.generate([prompt], options=options)
            assert_same(ours, full_forward(model, prompt, options))
            [strict] = engine.generate([prompt], options=OPTIONS)
            lengths.add(len(ours.codes))
            enders.add(len(ours.codes) < len(strict.codes))
            state = engine.prefill([prompt], options=options)
            while not state.is_finished:
                engine.step(state)
            pending = [column[0] for column in engine.stop(state).pending]
            assert pending[-1] == layout.text_eot
            assert len(pending) == 1 or pending[-2] == layout.eos_id
    finally:
        model.load_state_dict(saved)
    assert len(lengths) > 1
    assert True in enders


@torch.no_grad()
def test_speech_is_heard(model: DeepTalk):
    prompt = prompt_of(model, Turn(role="user", num_speech_frames=5), mode="answer")
    frames = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    engine = DecodingEngine(model)
    answers = [engine.generate([prompt], speech=[own], options=OPTIONS)[0] for own in frames]
    for own, answer in zip(frames, answers, strict=True):
        assert_same(answer, full_forward(model, prompt, OPTIONS, own))
    assert answers[0].text_ids != answers[1].text_ids


@torch.no_grad()
def test_a_stage_decodes_with_its_experts(model: DeepTalk):
    """A config that limits experts is obeyed by position and row: speech and spoken answers are audio."""
    heard = torch.randn(5, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prompts = [
        prompt_of(model, Turn(role="user", text="hi"), Turn(role="user", num_speech_frames=5), mode=mode)
        for mode in ("answer", "text")
    ]
    config = model.config
    free = DecodingEngine(model).generate(prompts, speech=[heard] * 2, options=OPTIONS)
    try:
        model.config = replace(
            config, audio_experts=((0, 2, 4), (1, 2, 3)), routing={"text": "text", "audio": "audio"}
        )
        partition = ExpertPartition(is_audio=model.is_audio(), experts_per_token=2)
        mask = router_mask(partition, Routing(text="text", audio="audio"))
        engine = DecodingEngine(model)
        together = engine.generate(prompts, speech=[heard] * 2, options=OPTIONS)
    finally:
        model.config = config
    for prompt, answer in zip(prompts, together, strict=True):
        assert_same(answer, full_forward(model, prompt, OPTIONS, heard, mask))
        assert_same(answer, engine.generate([prompt], speech=[heard], options=OPTIONS)[0])
    assert together[0].text_ids != free[0].text_ids


SAMPLED = DecodingOptions(
    text=Sampling(temperature=1.0, repetition_penalty=1.2),
    codec=(Sampling(), *(Sampling(temperature=0.8, top_k=10, repetition_penalty=1.1),) * 6),
    limits=Limits(max_frames=9, max_text_tokens=12),
)


@pytest.mark.parametrize("options", [OPTIONS, SAMPLED], ids=["greedy", "sampled"])
@torch.no_grad()
def test_a_batch_equals_its_singles(model: DeepTalk, options: DecodingOptions):
    questions = ["a", "a longer question", "mid size", "a longer question"]
    prompts = [asked(model, text, mode=mode) for text, mode in zip(questions, MODES, strict=True)]
    prompts.append(prompt_of(model, Turn(role="user", num_speech_frames=3), mode="answer"))
    heard = torch.randn(3, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    speech = [*[None] * 4, heard]
    engine, seeds = DecodingEngine(model), [1, 2, 3, 4, 5]
    together = engine.generate(prompts, speech=speech, options=options, seeds=seeds)
    for prompt, frames, seed, answer in zip(prompts, speech, seeds, together, strict=True):
        assert_same(answer, engine.generate([prompt], speech=[frames], options=options, seeds=[seed])[0])
    assert [len(answer.codes) > 0 for answer in together] == [True, True, False, False, True]


@torch.no_grad()
def test_a_seed_repeats(model: DeepTalk):
    engine, prompt = DecodingEngine(model), asked(model, "again", mode="answer")
    first, again, other = (engine.generate([prompt], options=SAMPLED, seeds=[seed])[0] for seed in (1, 1, 2))
    assert_same(first, again)
    assert first.text_ids != other.text_ids
    assert not torch.equal(first.codes, other.codes)


@torch.no_grad()
def test_frames_leave_with_their_item(model: DeepTalk):
    engine = DecodingEngine(model)
    state = engine.prefill([asked(model, "hello", mode="answer")], options=OPTIONS)
    frames = []
    while not state.is_finished:
        frames += engine.step(state)
    first = next(step for step, frame in enumerate(frames) if frame.codes is not None)
    assert first == 7
    assert [frame.is_last for frame in frames] == [False] * (len(frames) - 1) + [True]
    spoken = torch.stack([frame.codes for frame in frames if frame.codes is not None])
    [whole] = engine.generate([asked(model, "hello", mode="answer")], options=OPTIONS)
    assert torch.equal(spoken, whole.codes)


@pytest.mark.parametrize("num_steps", [0, 2, 5, 100])
@torch.no_grad()
def test_a_kept_history_equals_a_new_prefill(model: DeepTalk, num_steps: int):
    """After an answer, whole or interrupted, the text row's cache continues as if all were read anew."""
    engine = DecodingEngine(model)
    first = asked(model, "first", mode="answer")
    state = engine.prefill([first], options=OPTIONS)
    for _ in range(num_steps):
        if not state.is_finished:
            engine.step(state)
    history = engine.stop(state)
    said = [*state.answers[0].text_ids, model.layout.eos_id]
    rest = prompt_of(model, Turn(role="user", text="second"), mode="speaker:rms", is_continuation=True)
    columns = torch.tensor(model.layout.pad_ids)[:, None].repeat(1, len(said))
    columns[0] = torch.tensor(said)
    start = first.grid.clone()
    start[1:, -1] = model.layout.pad_audio
    whole = Prompt(
        grid=torch.cat([start, columns, rest.grid], dim=1),
        kind=torch.zeros(0, dtype=torch.long),
        speech_at=torch.full((start.shape[1] + len(said) + rest.grid.shape[1],), -1),
        row=rest.row,
    )
    assert history.num_positions == start.shape[1] + len(said)
    for _ in range(2):  # the history may be used again
        continued = engine.prefill([rest], options=OPTIONS, history=history)
        while not continued.is_finished:
            engine.step(continued)
        [anew] = engine.generate([whole], options=OPTIONS)
        assert tuple(continued.answers[0].text_ids) == anew.text_ids
        assert continued.answers[0].frames == anew.codes.tolist()


def test_bad_calls(model: DeepTalk):
    engine, prompt = DecodingEngine(model), asked(model, "x", mode="text")
    with pytest.raises(ConfigError, match="each prompt"):
        engine.prefill([prompt], seeds=[1, 2])
    with pytest.raises(ConfigError, match="one dialogue"):
        engine.prefill([prompt, prompt], history=engine.new_history())
    with pytest.raises(ConfigError, match="single dialogue"):
        engine.stop(engine.prefill([prompt, prompt]))
    with pytest.raises(ConfigError, match="7 samplings"):
        engine.prefill([prompt], options=DecodingOptions(codec=(Sampling(),)))
