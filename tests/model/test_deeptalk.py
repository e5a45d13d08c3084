import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from deeptalk.backbone import RouterMask
from deeptalk.errors import ConfigError
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.model.embedding import Fusion, root_mean_square
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.streams import TEXT, Batch
from deeptalk.streams.layout import IGNORE

Build = Callable[..., DeepTalk]


def loss(model: DeepTalk, batch: Batch) -> torch.Tensor:
    logits = model(batch).logits
    text = torch.nn.functional.cross_entropy(
        logits.text.flatten(0, 1), batch.labels[:, TEXT].flatten(), ignore_index=IGNORE
    )
    labels = batch.labels[:, 1:]
    return text + torch.nn.functional.cross_entropy(
        logits.codec.flatten(0, 2), labels.flatten(), ignore_index=IGNORE
    )


def test_sum_fusion_leaves_text_exactly_to_the_backbone(build: Build, text_batch: Batch) -> None:
    model = build("sum")
    ids = text_batch.grid[:1, TEXT, :12]  # no padding: stock ids only
    assert int(ids.max()) < model.layout.vocab_size
    alone = replace(
        text_batch,
        **{
            name: getattr(text_batch, name)[:1, ..., :12]
            for name in ("grid", "labels", "kind", "mask", "speech_at")
        },
    )
    with torch.no_grad():
        stock = model.backbone.model(input_ids=ids).logits
        assert torch.equal(model(alone).logits.text, stock)
        means = build("mean8")
        means.load_state_dict(model.state_dict())
        assert not torch.allclose(means(alone).logits.text, stock, atol=1e-3)


def test_negative_zeros_of_the_text_table_survive_silent_codec_streams(build: Build) -> None:
    model = build("sum")
    grid = torch.tensor(model.layout.pad_ids)[None, :, None].clone()
    grid[0, TEXT] = 5
    with torch.no_grad():
        model.text_table[5] = -0.0
        assert bool(model.embed(grid).signbit().all())


def test_padding_in_a_batch_changes_nothing(build: Build, speech_batch: Batch) -> None:
    model = build()
    with torch.no_grad():
        together = model(speech_batch).logits
        for row in range(2):
            steps = int(speech_batch.mask[row].sum())
            length = int(speech_batch.speech_lengths[row])
            cut = {
                name: getattr(speech_batch, name)[row : row + 1, ..., :steps]
                for name in ("grid", "labels", "kind", "mask")
            }
            at = speech_batch.speech_at[row : row + 1, :steps]
            at = torch.where(at >= 0, at - at[at >= 0].min(), -1)
            assert speech_batch.mel is not None
            mel = speech_batch.mel[row : row + 1, :, :length]
            alone = Batch(
                **cut,
                speech_at=at,
                row=speech_batch.row[row : row + 1],
                mel=mel,
                encoded=None,
                speech_lengths=torch.tensor([length]),
            )
            single = model(alone).logits
            torch.testing.assert_close(together.text[row, :steps], single.text[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(together.codec[row, :, :steps], single.codec[0], atol=1e-5, rtol=1e-4)


def test_cached_encoder_output_gives_the_same_logits(build: Build, speech_batch: Batch) -> None:
    model = build()
    with torch.no_grad():
        encoded = model.encoder(speech_batch.mel, speech_batch.speech_lengths)
        cached = replace(speech_batch, mel=None, encoded=encoded.frames, speech_lengths=encoded.lengths)
        assert torch.equal(model(cached).logits.text, model(speech_batch).logits.text)


@pytest.mark.parametrize("fusion", ["sum", "mean8", "mean2"])
def test_fusion_by_hand(build: Build, speech_batch: Batch, fusion: str) -> None:
    model = build(fusion)
    assert speech_batch.mel is not None
    with torch.no_grad():
        speech = model.encode_speech(speech_batch.mel, speech_batch.speech_lengths)
        x = model.embed(speech_batch.grid, speech=speech, speech_at=speech_batch.speech_at)
        rows = torch.cat([model.text_table, model.embedding.text_extra])
        for b in range(2):
            for t in range(x.shape[1]):
                e, at = rows[speech_batch.grid[b, TEXT, t]], int(speech_batch.speech_at[b, t])
                if at >= 0:
                    f = speech.flatten(0, 1)[at]
                    expected = {"sum": e + f, "mean8": (e + 7 * f) / 8, "mean2": (e + f) / 2}[fusion]
                else:
                    codes = sum(
                        model.embedding.codec[i].weight[speech_batch.grid[b, i + 1, t]]
                        for i in range(7)  # type: ignore[index]
                    )
                    expected = {"sum": e + codes, "mean8": (e + codes) / 8, "mean2": (e + codes / 7) / 2}[
                        fusion
                    ]
                torch.testing.assert_close(x[b, t], expected, atol=1e-6, rtol=1e-5)


def test_filler_rows_stay_zero_under_sum(build: Build, speech_batch: Batch) -> None:
    model, layout = build("sum").train(), build().layout
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model, speech_batch).backward()
        optimizer.step()
    fillers = [layout.text_pad - layout.vocab_size, layout.text_aud - layout.vocab_size]
    assert not model.embedding.text_extra[fillers].any()
    for table in model.embedding.codec:
        assert not table.weight[layout.pad_audio].any()  # type: ignore[index]
        assert table.weight.grad is not None
        assert table.weight.grad[layout.speaker("slt")].any()


def test_filler_rows_learn_under_the_means(build: Build, speech_batch: Batch) -> None:
    model, layout = build("mean8").train(), build().layout
    loss(model, speech_batch).backward()
    assert model.embedding.text_extra.grad is not None
    assert model.embedding.text_extra.grad[layout.text_aud - layout.vocab_size].any()


def test_new_rows_have_the_size_that_their_fusion_needs(build: Build) -> None:
    for fusion, divisor in (("sum", 7**0.5), ("mean8", 1.0)):
        model = build(fusion)
        codes = torch.stack([t.weight[: model.layout.codebook_size] for t in model.embedding.codec])  # type: ignore[index]
        assert float(codes.detach().std()) == pytest.approx(
            root_mean_square(model.text_table) / divisor, rel=0.05
        )


def test_every_part_gets_a_gradient(build: Build, speech_batch: Batch) -> None:
    model = build().train()
    loss(model, speech_batch).backward()
    silent = [
        name
        for name, p in model.named_parameters()
        if (p.grad is None or not p.grad.any()) and "experts" not in name
    ]
    assert silent == ["encoder.embed_positions.weight", "embedding.text_extra"]
    assert any(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if ".experts." in n)


def test_stacked_heads_equal_the_single_ones(build: Build) -> None:
    model = build()
    hidden = torch.randn(2, 5, 32)
    with torch.no_grad():
        logits = model.heads(hidden, text_head=model.backbone.lm_head)
        stacked = model.heads.codec_logits(hidden, model.heads.stacked())
    assert logits.codec.shape == (2, 7, 5, model.layout.audio_rows)
    assert logits.text.shape == (2, 5, model.layout.vocab_size)
    torch.testing.assert_close(stacked.transpose(1, 2), logits.codec, atol=1e-6, rtol=1e-5)


def test_split_and_fuse_keep_logits_and_partition(build: Build, speech_batch: Batch) -> None:
    model = build()
    is_audio = torch.zeros(2, 8, dtype=torch.bool)
    is_audio[0, [1, 4]] = is_audio[1, [0, 7]] = True
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        whole = model(speech_batch).logits
        model.split(is_audio)
        assert model.config.audio_experts == ((1, 4), (0, 7))
        assert any(".experts.audio." in name for name, _ in model.named_parameters())
        banks = model(speech_batch).logits
    torch.testing.assert_close(banks.text, whole.text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(banks.codec, whole.codec, atol=1e-5, rtol=1e-5)
    model.fuse()
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert torch.equal(model.is_audio(), is_audio)


def test_router_mask_reaches_the_routers(build: Build, speech_batch: Batch) -> None:
    model = build()
    table = torch.zeros(1, 2, 8, dtype=torch.bool)
    table[..., :3] = True
    groups = torch.zeros_like(speech_batch.kind)
    with torch.no_grad():
        output = model(speech_batch, router_mask=RouterMask(table=table), groups=groups, collect=True)
    assert output.router is not None
    assert len(output.router) == 2
    assert all(int(router.experts.max()) < 3 for router in output.router)


def test_config_survives_its_dict() -> None:
    config = replace(DeepTalkConfig.tiny(), audio_experts=((1, 2), (3, 4)))
    assert DeepTalkConfig.from_dict(config.to_dict()) == config


def test_parts_that_do_not_fit_are_refused(build: Build) -> None:
    config = DeepTalkConfig.tiny()
    with pytest.raises(ConfigError, match=r"adapter\.in_width is 16 and encoder\.d_model is 32"):
        replace(config, encoder=replace(config.encoder, d_model=32))
    with pytest.raises(ConfigError, match=r"mel\.reference"):
        replace(config, mel=replace(config.mel, reference="clip"))
    with pytest.raises(ConfigError, match="text table"):
        DeepTalk(replace(config, backbone={**config.backbone, "vocab_size": 301}))
    with pytest.raises(ConfigError, match="encoder was made with"):
        DeepTalk(config, encoder=SpeechEncoder(replace(EncoderConfig.tiny(), layers=1)))
    with pytest.raises(ConfigError, match="not divided"):
        build().split()
    with pytest.raises(ConfigError, match="lacks the key"):
        DeepTalkConfig.from_dict({})


@pytest.mark.parametrize("fusion", ["sum", "mean8", "mean2"])
def test_worded_frames_are_the_text_that_they_say(fusion: Fusion) -> None:
    plain = DeepTalk(DeepTalkConfig.tiny(fusion=fusion)).eval()
    config = replace(plain.config, adapter=replace(plain.config.adapter, worded=True))
    model = DeepTalk(config).eval()
    assert model.hearing is not None
    said = torch.tensor([7, 250, 3])
    with torch.no_grad():
        model.hearing.log_scale.fill_(math.log(1e4))  # sure of what it hears
        frames = model.text_table[said][None]
        alone = model.add_words(frames, is_kept=torch.tensor([False]))
        torch.testing.assert_close(model.add_words(frames), alone + frames)
        heard_as = model.embed(_columns(model, said))
        speech = model.embed(
            _columns(model, torch.full((3,), model.layout.text_aud)),
            speech=alone,
            speech_at=torch.arange(3)[None],
        )
        torch.testing.assert_close(speech, heard_as)
        model.hearing.nothing.bias.fill_(1e5)  # sure that nothing is said
        pause = model.embed(_columns(model, torch.full((3,), model.layout.text_eot)))
        speech = model.embed(
            _columns(model, torch.full((3,), model.layout.text_aud)),
            speech=model.add_words(frames, is_kept=torch.tensor([False])),
            speech_at=torch.arange(3)[None],
        )
        torch.testing.assert_close(speech, pause)
    assert torch.equal(plain.add_words(frames), frames)


def _columns(model: DeepTalk, text: torch.Tensor) -> torch.Tensor:
    grid = torch.full((1, model.layout.num_streams, len(text)), model.layout.pad_audio)
    grid[0, TEXT] = text
    return grid
