"""Losses by hand, and every objective on one tiny batch until it knows it."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deeptalk.backbone import RouterMask, open_backbone
from deeptalk.codec import PocketCodec, PocketCodecConfig
from deeptalk.errors import ConfigError
from deeptalk.model.config import DeepTalkConfig, tiny_backbone
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.streams import Batch, StreamLayout, Turn, collate, encode_dialogue
from deeptalk.streams.layout import IGNORE
from deeptalk.streams.text import ByteTokenizer
from deeptalk.training.codec import CodecTraining
from deeptalk.training.ctc import Ctc, EncoderForCtc, edit_distance, greedy
from deeptalk.training.loss import exact_rows, reduce_streams, stream_counts, stream_sums
from deeptalk.training.masking import Masking
from deeptalk.training.objective import Objective, Task, Term
from deeptalk.training.supervised import Alignment, Supervised, disturb_codes
from deeptalk.training.text import TextLm


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def fit(
    model: nn.Module, objective: Objective, batch: object, *, steps: int, lr: float = 3e-3
) -> list[float]:
    """The loss before each of so many steps of Adam on one batch."""
    task, losses = Task(model, objective).train(), []
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        loss = objective.total(task(batch, generator()), objective.counts(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def dialogues() -> Batch:
    """One spoken question answered in speech, one written question answered in writing."""
    layout, tokenizer = StreamLayout.tiny(), ByteTokenizer()
    codes = torch.randint(0, layout.codebook_size, (4, 7), generator=generator())
    spoken = [
        Turn(role="user", num_speech_frames=5),
        Turn(role="assistant", text="Yes.", codes=codes, speaker="slt"),
    ]
    written = [Turn(role="user", text="two?"), Turn(role="assistant", text="Two.")]
    examples = [
        encode_dialogue(spoken, tokenizer=tokenizer, layout=layout, mode="speaker:slt"),
        encode_dialogue(written, tokenizer=tokenizer, layout=layout, mode="text"),
    ]
    mel = torch.randn(8, 20, generator=generator())
    return collate(examples, [[mel], []], layout=layout, is_encoded=False, stride=2)


@pytest.fixture
def model() -> DeepTalk:
    torch.manual_seed(0)
    return DeepTalk(DeepTalkConfig.tiny())


class Table(nn.Module):
    """A head that knows its logits: the hidden state is an index into them."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.rows[hidden[:, 0].long()]


def test_the_loss_of_streams_by_hand():
    hidden = torch.tensor([[[0.0], [1.0], [0.0]]])
    labels = torch.tensor([[[0, 1, IGNORE], [IGNORE, 0, IGNORE], [IGNORE] * 3]])
    head = Table([[0.0, 0.0], [0.0, math.log(3)]])
    sums, counts = stream_sums(hidden, (head, head, head), labels), stream_counts(labels)
    assert counts.tolist() == [2, 1, 0]
    assert sums.tolist() == pytest.approx([math.log(2) + math.log(4 / 3), math.log(4), 0.0])
    terms = tuple(Term(name=name, weight=weight) for name, weight in (("a", 0.5), ("b", 0.25), ("c", 9.0)))
    mean = 0.5 * (math.log(2) + math.log(4 / 3)) / 2 + 0.25 * math.log(4)
    assert float(reduce_streams(terms, sums, counts, reduction="head_mean")) == pytest.approx(mean)
    total = (0.5 * (math.log(2) + math.log(4 / 3)) + 0.25 * math.log(4)) / 3
    assert float(reduce_streams(terms, sums, counts, reduction="token_sum")) == pytest.approx(total)


def test_exact_rows_by_hand():
    head = Table([[0.0, 1.0], [1.0, 0.0]])
    hidden = torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]], [[0.0], [0.0]]])
    labels = torch.tensor([[1, 0], [1, 1], [IGNORE, IGNORE]])
    measure = exact_rows(head, hidden, labels)
    assert (measure.total, measure.count) == (1.0, 2.0)


def test_supervised_equals_the_loss_over_all_logits(model: DeepTalk, dialogues: Batch):
    objective = Supervised()
    counts = objective.counts(dialogues)
    loss = objective.total(objective.sums(model, dialogues, generator=generator()), counts)
    logits = model(dialogues).logits
    expected = torch.nn.functional.cross_entropy(
        logits.text.flatten(0, 1), dialogues.labels[:, 0].flatten(), ignore_index=IGNORE
    )
    for i in range(7):
        expected = expected + torch.nn.functional.cross_entropy(
            logits.codec[:, i].flatten(0, 1), dialogues.labels[:, i + 1].flatten(), ignore_index=IGNORE
        )
    assert loss.item() == pytest.approx(expected.item() / 8, rel=1e-5)


def test_supervised_skips_streams_without_labels(model: DeepTalk, dialogues: Batch):
    layout, written = model.layout, Turn(role="user", text="two?")
    example = encode_dialogue(
        [written, Turn(role="assistant", text="Two.")], tokenizer=ByteTokenizer(), layout=layout, mode="text"
    )
    batch = collate([example], [[]], layout=layout, is_encoded=False, stride=2)
    objective = Supervised()
    assert objective.counts(batch)[1:].tolist() == [0.0] * 8
    loss = objective.total(objective.sums(model, batch, generator=generator()), objective.counts(batch))
    loss.backward()
    assert loss.isfinite()
    assert model.backbone.lm_head.weight.grad.abs().sum() > 0


def test_supervised_learns_a_batch_by_heart(model: DeepTalk, dialogues: Batch):
    objective = Supervised(balance_weight=0.001)
    losses = fit(model, objective, dialogues, steps=60, lr=1e-2)
    assert losses[-1] < 0.1 * losses[0]
    figures = objective.measures(model.eval(), dialogues)
    assert figures["exact_text"].total == figures["exact_text"].count == 2.0
    assert figures["code_accuracy"].total == figures["code_accuracy"].count


def test_masked_experts_get_no_gradient(model: DeepTalk, dialogues: Batch):
    shape = model.backbone.layers
    is_audio = torch.zeros(shape.num_moe_layers, shape.num_experts, dtype=torch.bool)
    is_audio[:, :3] = True
    model.split(is_audio)
    objective = dataclasses.replace(Supervised(), router_mask=RouterMask(table=torch.stack([is_audio] * 2)))
    objective.total(
        objective.sums(model, dialogues, generator=generator()), objective.counts(dialogues)
    ).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if ".experts." in name}
    text = [grad for name, grad in grads.items() if ".experts.text." in name]
    audio = [grad for name, grad in grads.items() if ".experts.audio." in name]
    assert text
    assert all(grad is None or not grad.any() for grad in text)
    assert all(grad is not None and grad.abs().sum() > 0 for grad in audio)


def test_the_language_model_learns_a_batch_by_heart(dialogues: Batch):
    torch.manual_seed(0)
    backbone = open_backbone(tiny_backbone(vocab_size=300))
    texts = dataclasses.replace(dialogues, grid=dialogues.grid.clamp(max=299))
    objective = TextLm(prompt_weight=0.1, balance_weight=0.003)
    losses = fit(backbone, objective, texts, steps=60, lr=1e-2)
    assert losses[-1] < 0.2 * losses[0]
    exact = objective.measures(backbone.eval(), texts)["exact"]
    assert exact.total == exact.count == 2.0


def test_prompt_tokens_are_counted_apart(dialogues: Batch):
    answer, prompt, sequences = TextLm(prompt_weight=0.1).counts(dialogues).tolist()
    assert answer == (dialogues.labels[:, 0] != IGNORE).sum()
    next_tokens = dialogues.mask[:, 1:].sum()  # every position but the first of a row is some position's next
    assert answer + prompt == next_tokens
    assert sequences == 2


def test_the_codec_objective_takes_the_codecs_own_losses():
    torch.manual_seed(0)
    codec = PocketCodec(PocketCodecConfig.tiny())
    wave = 0.1 * torch.randn(2, 2 * codec.samples_per_frame, generator=generator())
    batch = SimpleNamespace(waveform=wave, phones=None)
    objective = CodecTraining()
    counts = objective.counts(batch)
    sums = Task(codec, objective)(batch, generator())
    assert [term.name for term in objective.terms] == ["codec", "spectral", "pitch", "commitment"]
    assert counts.tolist() == [2.0] * 4
    assert objective.total(sums, counts).item() == pytest.approx(sums[0].item() / 2)
    assert fit(codec, objective, batch, steps=8)[-1] < sums[0].item() / 2


def test_the_codec_objective_weighs_the_phones_that_codes_tell():
    torch.manual_seed(0)
    codec = PocketCodec(PocketCodecConfig.tiny())
    codec.learn_phones(2)
    wave = 0.1 * torch.randn(2, 2 * codec.samples_per_frame, generator=generator())
    batch = SimpleNamespace(waveform=wave, phones=torch.tensor([[0, 1] * 4, [-100] * 8]))
    objective = CodecTraining(phone_weight=0.5)
    sums = Task(codec, objective)(batch, generator())
    assert [term.name for term in objective.terms] == ["codec", "phones", "spectral", "pitch", "commitment"]
    total = objective.total(sums, objective.counts(batch)).item()
    assert total == pytest.approx((sums[0] + 0.5 * sums[1]).item() / 2)
    assert sums[1] > 0


def spoken() -> SimpleNamespace:
    return SimpleNamespace(
        mel=torch.randn(2, 8, 48, generator=generator()),
        mel_lengths=torch.tensor([48, 40]),
        tokens=torch.tensor([[3, 4, 4], [5, 0, 0]]),
        token_lengths=torch.tensor([3, 1]),
        phones=torch.tensor([[1, 2, 3, 1], [2, 1, 0, 0]]),
        phone_lengths=torch.tensor([4, 2]),
    )


def test_the_encoder_learns_a_batch_by_heart():
    torch.manual_seed(0)
    encoder = SpeechEncoder(EncoderConfig.tiny())
    model = EncoderForCtc(encoder, num_tokens=6, num_phones=4, phone_layer=1)
    objective = Ctc(phone_layer=1)
    assert objective.counts(spoken())[:2].tolist() == [4.0, 6.0]
    losses = fit(model, objective, spoken(), steps=90, lr=1e-2)
    assert losses[-1] < 0.2 * losses[0]
    assert objective.measures(model.eval(), spoken())["token_error"].total == 0.0


def test_greedy_merges_repeats_and_drops_blanks():
    labels = torch.tensor([[0, 0, 2, 0, 1, 1, 2, 0]])
    log_probs = torch.nn.functional.one_hot(labels, 3).float()
    assert greedy(log_probs, torch.tensor([7])) == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("abc", "abc", 0),
        ("abc", "ac", 1),
        ("abc", "axc", 1),
        ("abc", "abcd", 1),
        ("", "ab", 2),
        ("kitten", "sitting", 3),
    ],
)
def test_edit_distance(said: str, heard: str, errors: int):
    assert edit_distance(said, heard) == errors


def test_masking_silences_bands_and_stretches_by_the_generator_alone():
    mel = torch.rand(3, 20, 50, generator=generator()) + 1
    lengths = torch.tensor([50, 30, 10])
    masking = Masking(bands=1, band_width=6, stretches=2, time_width=8)
    once, again = (masking.apply(mel, lengths, generator=generator()) for _ in range(2))
    assert torch.equal(once, again)
    changed = once != mel
    assert changed.any()
    assert (once[changed] <= mel.amin(dim=(1, 2))[changed.nonzero()[:, 0]]).all()
    assert changed.float().mean() < 0.7
    assert torch.equal(Masking(bands=0, stretches=0).apply(mel, lengths, generator=generator()), mel)


def test_codes_of_chance_replace_codes_of_answers_alone(dialogues: Batch):
    size = StreamLayout.tiny().codebook_size
    seen = [
        disturb_codes(dialogues, most=1.0, codebook_size=size, generator=torch.Generator().manual_seed(seed))
        for seed in range(30)
    ]
    codes = dialogues.grid[:, 1:] < size
    shares = []
    for other in seen:
        assert torch.equal(other.grid[:, 0], dialogues.grid[:, 0])
        assert torch.equal(other.grid[:, 1:][~codes], dialogues.grid[:, 1:][~codes])
        assert other.labels is dialogues.labels
        assert (other.grid[:, 1:][codes] < size).all()
        shares.append(float((other.grid != dialogues.grid)[0].sum() / codes[0].sum()))
    assert min(shares) < 0.2
    assert max(shares) > 0.6
    again = disturb_codes(dialogues, most=1.0, codebook_size=size, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again.grid, seen[3].grid)


def test_code_noise_changes_the_loss_of_codes_and_is_a_share(model: DeepTalk, dialogues: Batch):
    clean = Supervised().sums(model, dialogues, generator=generator())
    noisy = Supervised(code_noise=1.0).sums(model, dialogues, generator=generator())
    assert not torch.allclose(clean[1:8], noisy[1:8])
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        Supervised(code_noise=1.5)


def told(dialogues: Batch) -> Batch:
    """The batch with what its spoken answer says: four frames, the last of them silent."""
    said = dialogues.grid.new_full((*dialogues.mask.shape, 3), IGNORE)
    at = (dialogues.labels[0, 1] < StreamLayout.tiny().codebook_size) & (dialogues.labels[0, 1] != IGNORE)
    said[0, at] = torch.tensor([[ord("Y"), 0, 1], [ord("Y"), 1, 1], [ord("e"), 2, 0], [IGNORE, 3, 3]])
    return dataclasses.replace(dialogues, said=said)


@pytest.fixture
def aligning(model: DeepTalk) -> DeepTalk:
    model.learn_alignment(word_layer=1, phone_layer=2, num_phones=4, phones_per_frame=2)
    return model


ALIGNED = Supervised(
    alignment=Alignment(word_weight=0.5, phone_weight=0.25, word_layer=1, phone_layer=2), balance_weight=0.01
)


def test_alignment_adds_words_and_phones_to_the_loss(aligning: DeepTalk, dialogues: Batch):
    batch = told(dialogues)
    sums, counts = ALIGNED.sums(aligning, batch, generator=generator()).detach(), ALIGNED.counts(batch)
    plain = Supervised(balance_weight=0.01)
    without, few = plain.sums(aligning, batch, generator=generator()).detach(), plain.counts(batch)
    assert [term.name for term in ALIGNED.terms[-3:]] == ["balance", "words", "phones"]
    assert counts[-2:].tolist() == [3, 8]
    assert torch.equal(sums[:-2], without)
    states, heads = aligning.hidden(batch).layers, aligning.alignment
    is_word = batch.said[..., 0] != IGNORE
    words = heads.word_logits(states[1][is_word], aligning.backbone.lm_head).log_softmax(-1)
    expected = -words.gather(-1, batch.said[is_word][:, :1]).sum().detach()
    assert float(sums[-2]) == pytest.approx(float(expected))
    assert float(sums[-1]) == pytest.approx(8 * math.log(4), rel=1e-5)  # the heads begin by knowing nothing
    total = plain.total(without, few) + 0.5 * sums[-2] / 3 + 0.25 * sums[-1] / 8
    assert float(ALIGNED.total(sums, counts)) == pytest.approx(float(total))


def test_a_batch_that_does_not_know_what_is_said_has_no_alignment_loss(aligning: DeepTalk, dialogues: Batch):
    sums = ALIGNED.sums(aligning, dialogues, generator=generator())
    assert sums[-2:].tolist() == ALIGNED.counts(dialogues)[-2:].tolist() == [0, 0]
    sums.sum().backward()  # the heads take part in every step, as distributed training needs it
    assert all(p.grad is not None and not p.grad.any() for p in aligning.alignment.parameters())


def test_alignment_is_learnt(aligning: DeepTalk, dialogues: Batch):
    batch = told(dialogues)
    fit(aligning, ALIGNED, batch, steps=60)
    sums = ALIGNED.sums(aligning, batch, generator=generator())
    assert (sums[-2:] / ALIGNED.counts(batch)[-2:] < 0.2).all()


HEARING = Supervised(hearing_weight=0.5, balance_weight=0.01)


def heard(dialogues: Batch, text: bytes = b"ab") -> Batch:
    """The batch with what its clip of five frames says."""
    return dataclasses.replace(dialogues, heard=torch.tensor([[*text, IGNORE]]))


def test_what_is_heard_adds_its_likelihood_to_the_loss(model: DeepTalk, dialogues: Batch):
    model.learn_hearing()
    batch, plain = heard(dialogues), Supervised(balance_weight=0.01)
    sums, counts = HEARING.sums(model, batch, generator=generator()).detach(), HEARING.counts(batch)
    without, few = plain.sums(model, batch, generator=generator()).detach(), plain.counts(batch)
    assert [term.name for term in HEARING.terms[-2:]] == ["balance", "heard"]
    assert counts[-1] == 2
    assert torch.equal(sums[:-1], without)

    frames, table = model.speech_frames(batch)[0].detach(), model.text_table.detach()
    cosine = torch.nn.functional.cosine_similarity(frames[:, None], table[None], dim=-1)
    nothing = torch.zeros(len(frames), 1)  # the blank begins between like and unlike
    log_probs = torch.cat([24.0 * cosine, nothing], dim=-1).log_softmax(-1)
    a, b, blank = ord("a"), ord("b"), log_probs.shape[-1] - 1
    ways = [
        sum(float(log_probs[t, i]) for t, i in enumerate(path))
        for path in itertools.product((a, b, blank), repeat=5)
        if [i for i, _ in itertools.groupby(path) if i != blank] == [a, b]
    ]
    assert float(sums[-1]) == pytest.approx(-float(torch.tensor(ways).logsumexp(0)), rel=1e-4)
    total = plain.total(without, few) + 0.5 * sums[-1] / 2
    assert float(HEARING.total(sums, counts)) == pytest.approx(float(total))


def test_the_text_table_does_not_move_towards_speech(model: DeepTalk, dialogues: Batch):
    model.learn_hearing()
    HEARING.sums(model, heard(dialogues), generator=generator())[-1].backward()
    assert model.text_table.grad is None or not model.text_table.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in model.adapter.parameters())


def test_a_batch_that_does_not_know_what_is_heard_has_no_loss_of_it(model: DeepTalk, dialogues: Batch):
    model.learn_hearing()
    too_long = heard(dialogues, b"abcdefgh")  # eight ids don't fit five frames
    for batch, count in ((dialogues, 0), (too_long, 8)):
        model.zero_grad()
        sums = HEARING.sums(model, batch, generator=generator())
        assert (sums[-1].item(), int(HEARING.counts(batch)[-1])) == (0.0, count)
        sums.sum().backward()  # the head takes part in every step, as distributed training needs it
        assert all(p.grad is not None and not p.grad.any() for p in model.hearing.parameters())


def test_hearing_is_learnt(model: DeepTalk, dialogues: Batch):
    model.learn_hearing()
    fit(model, HEARING, heard(dialogues), steps=80)
    sums = HEARING.sums(model, heard(dialogues), generator=generator())
    assert sums[-1].item() / 2 < 0.2


def test_words_alone_tell_the_backbone_nothing_else(dialogues: Batch):
    torch.manual_seed(0)
    config = DeepTalkConfig.tiny()
    adapter = dataclasses.replace(config.adapter, worded=True)
    model = DeepTalk(dataclasses.replace(config, adapter=adapter)).eval()
    alone = Supervised(words_alone=1.0)
    with torch.no_grad():
        usual = Supervised().sums(model, dialogues, generator=generator())
        words = alone.sums(model, dialogues, generator=generator())
        assert not torch.equal(usual[:-1], words[:-1])
        model.adapter.body.down.weight.mul_(3.0)  # the same likeness, larger frames
        assert not torch.allclose(Supervised().sums(model, dialogues, generator=generator())[:-1], usual[:-1])
        torch.testing.assert_close(alone.sums(model, dialogues, generator=generator())[:-1], words[:-1])
    with pytest.raises(ConfigError, match="words_alone is a share"):
        Supervised(words_alone=1.5)
