"""Questions in batches: the answers of the engine, in order."""

import copy

import pytest
import torch

from deeptalk.audio import log_mel
from deeptalk.backbone import open_backbone
from deeptalk.decoding import DecodingEngine, Limits, LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.evaluation.answers import Asked, Respondent
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.streams import Turn, collate, encode_dialogue
from deeptalk.streams.text import ByteTokenizer

TEXTS = ("hi", "what is the capital of Spain", "two and two", "and then", "who are you")


@pytest.fixture
def respondent(loaded: LoadedModel) -> Respondent:
    return Respondent(loaded.engine, batch_size=2, limits=Limits(max_frames=3, max_text_tokens=6))


def waves() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(0.1 * torch.randn(n, generator=generator) for n in (6_000, 9_000))


def test_answers_come_in_the_order_of_the_questions():
    """In double precision, so that greedy choices don't hang on rounding."""
    config = DeepTalkConfig.tiny()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        backbone = open_backbone(dict(config.backbone), experts="eager")  # the fast kernels know no doubles
        model = DeepTalk(config, backbone=backbone, tokenizer=ByteTokenizer()).double()
    engine = DecodingEngine(model)
    limits = Limits(max_frames=3, max_text_tokens=6)
    together, alone = (Respondent(engine, batch_size=n, limits=limits) for n in (2, 1))
    asked = [together.written(text) for text in TEXTS]
    answers = together.answer(asked, mode="speaker:slt")
    singly = [alone.answer([question], mode="speaker:slt")[0] for question in asked]
    assert [a.text for a in answers] == [a.text for a in singly]
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(answers, singly, strict=True))
    assert len({a.text for a in answers}) > 1
    assert all(len(a.text.encode()) <= 3 * 6 and a.codes.shape[0] <= 3 for a in answers)


def test_an_answer_in_text_has_no_codes(respondent: Respondent):
    (answer,) = respondent.answer([respondent.written("hi")], mode="text")
    assert answer.codes.shape == (0, 7)
    assert answer.finish_reason in ("stop", "length")


def test_speech_is_heard(respondent: Respondent):
    one, two = waves()
    asked = respondent.spoken(one, two)
    assert [turn.num_speech_frames for turn in asked.turns] == [len(part) for part in asked.speech]
    assert torch.equal(asked.speech[0], respondent.hear(one))
    assert respondent.hear(two).shape[0] > respondent.hear(one).shape[0]
    assert len(respondent.answer([asked, respondent.written("hi"), asked], mode="text")) == 3


@pytest.mark.parametrize("is_spoken", [False, True])
def test_the_choice_is_the_likeliest_of_the_texts(respondent: Respondent, is_spoken: bool):
    model, wave = respondent.engine.model, waves()[0]
    asked = respondent.spoken(wave) if is_spoken else respondent.written("two and two")
    mel = [log_mel(wave[None], spec=model.mel)[0]] if is_spoken else []
    texts, scores = ("four", "five", "six", "ten"), []
    for text in texts:
        turns = [*asked.turns, Turn(role="assistant", text=text)]
        example = encode_dialogue(turns, tokenizer=model.tokenizer, layout=model.layout, mode="asr")
        stride = model.config.adapter.stride
        batch = collate([example], [mel], layout=model.layout, is_encoded=False, stride=stride)
        with torch.no_grad():
            log_probs = model(batch).logits.text[0].log_softmax(-1)
        labels = batch.labels[0, 0]
        scores.append(
            sum(float(log_probs[t, label]) for t, label in enumerate(labels.tolist()) if label >= 0)
        )
    best = max(range(len(texts)), key=scores.__getitem__)
    assert respondent.choose(asked, texts, mode="asr") == best
    backwards = respondent.choose(asked, texts[::-1], mode="asr")
    assert texts[::-1][backwards] == texts[best]


def test_a_model_without_tokenizer_can_not_be_asked(loaded: LoadedModel):
    model = copy.copy(loaded.model)
    model.tokenizer = None
    with pytest.raises(ConfigError, match="tokenizer"):
        Respondent(DecodingEngine(model))


def test_a_question_may_have_earlier_turns(respondent: Respondent):
    wave = respondent.hear(waves()[0])
    turns = (
        Turn(role="user", num_speech_frames=len(wave)),
        Turn(role="assistant", text="Yes."),
        Turn(role="user", num_speech_frames=len(wave)),
    )
    assert len(respondent.answer([Asked(turns=turns, speech=(wave, wave))], mode="text")) == 1
