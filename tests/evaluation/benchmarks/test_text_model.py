"""Batched likelihoods are those of the stock model on one text at a time, and so are continuations."""

import random
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from deeptalk.backbone.extra import ExtraExperts, is_extra_name
from deeptalk.codec import SineCodec
from deeptalk.decoding import DecodingEngine, LoadedModel
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.text_model import Continuation, TextModel, text_backbone
from deeptalk.experts import ExpertPartition, Routing, router_mask
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.model.identity import model_hash
from deeptalk.streams.text import ByteTokenizer

RNG = random.Random(2)
PAIRS = [
    ("".join(RNG.choices("abc é", k=RNG.randint(0, 12))), "".join(RNG.choices(" abcdü", k=RNG.randint(1, 6))))
    for _ in range(300)
]
BOS = 256


@pytest.fixture
def model(loaded: LoadedModel) -> TextModel:
    return TextModel(loaded.engine, batch_size=7)


@torch.inference_mode()
def stock_log_probs(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    """Row t: log-probabilities of what stands behind token t, by the stock text model alone."""
    stock = loaded.model.backbone.model
    return stock(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def stock_score(loaded: LoadedModel, ids: list[int], num_scored: int) -> tuple[float, bool]:
    log_probs = stock_log_probs(loaded, ids[:-1])[len(ids) - 1 - num_scored :]
    picked = [float(row[token]) for row, token in zip(log_probs, ids[-num_scored:], strict=True)]
    return sum(picked), log_probs.argmax(-1).tolist() == ids[-num_scored:]


def test_of_300_pairs_every_likelihood_is_the_stock_models(loaded, model) -> None:
    found = model.log_likelihoods(PAIRS)
    for (context, continuation), (score, is_greedy) in zip(PAIRS, found, strict=True):
        ids = [BOS, *(context + continuation).encode()]
        spaces = len(context) - len(context.rstrip())
        expected = stock_score(loaded, ids, len(continuation.encode()) + spaces)
        assert score == pytest.approx(expected[0], abs=1e-4)
        assert is_greedy == expected[1]
    assert len({round(score, 6) for score, _ in found}) > 250


def test_the_greedy_continuation_is_told(loaded, model) -> None:
    likeliest = {c: int(stock_log_probs(loaded, [BOS, ord(c)])[-1].argmax()) for c in "abcdefghijklmnop"}
    pairs = [(context, chr(best)) for context, best in likeliest.items() if best < 128]
    assert pairs
    assert all(is_greedy for _, is_greedy in model.log_likelihoods(pairs))
    others = [(context, chr(ord(best) ^ 1)) for context, best in pairs]
    assert not any(is_greedy for _, is_greedy in model.log_likelihoods(others))


def test_pairs_are_cut_from_the_whole_text(model) -> None:
    assert model.encode_pair("ab ", "cd") == ([BOS, *b"ab"], list(b" cd"))
    assert model.encode_pair("", "cd") == ([BOS], list(b"cd"))
    assert model.encode_pair("  ", "c") == ([BOS], list(b"  c"))
    assert model.log_likelihoods([("ab", "")]) == [(0.0, True)]
    assert model.log_likelihoods([]) == []


def test_a_long_text_loses_its_beginning(loaded) -> None:
    short = TextModel(loaded.engine, max_positions=6)
    (score, _), (whole, _) = short.log_likelihoods([("abcdefgh", "xyz"), ("abc", "xyz")])
    assert score == pytest.approx(stock_score(loaded, [*b"efghxyz"], 3)[0], abs=1e-4)
    assert whole == pytest.approx(stock_score(loaded, [BOS, *b"abcxyz"], 3)[0], abs=1e-4)
    with pytest.raises(DataError, match="a continuation of 7 tokens is longer than 6"):
        short.log_likelihoods([("a", "b"), ("a", "abcdefg")])


def test_windows_score_every_token_once_with_as_much_context_as_fits(loaded, model) -> None:
    (whole, nothing) = model.rolling_log_likelihoods(["hello world", ""])
    assert whole == pytest.approx(stock_score(loaded, [BOS, *b"hello world"], 11)[0], abs=1e-4)
    assert nothing == 0.0
    (found,) = TextModel(loaded.engine, max_positions=4).rolling_log_likelihoods(["hello world"])
    windows = [([BOS, *b"hell"], 4), ([*b"lo wo"], 4), ([*b"world"], 3)]
    assert found == pytest.approx(sum(stock_score(loaded, ids, n)[0] for ids, n in windows), abs=1e-4)


@torch.inference_mode()
def test_a_model_that_limits_its_experts_is_asked_with_them(loaded, model, monkeypatch) -> None:
    talker, audio_experts = loaded.model, ((0, 2, 4), (1, 2, 3))
    limited = {"text": "text", "audio": "audio"}
    config = replace(talker.config, audio_experts=audio_experts, routing=limited)
    monkeypatch.setattr(talker, "config", config)
    found = TextModel(DecodingEngine(talker)).log_likelihoods(PAIRS[:20])
    mask = router_mask(ExpertPartition(is_audio=talker.is_audio(), experts_per_token=2), Routing(**limited))
    for (context, continuation), (score, _) in zip(PAIRS[:20], found, strict=True):
        known, added = model.encode_pair(context, continuation)
        grid = torch.full(
            (1, talker.layout.num_streams, len(known) + len(added) - 1), talker.layout.pad_audio
        )
        grid[0, 0] = torch.tensor([*known, *added][:-1])
        groups = torch.zeros_like(grid[:, 0])
        hidden = talker.backbone(talker.embed(grid), groups=groups, router_mask=mask).hidden
        log_probs = talker.backbone.lm_head(hidden[0, len(known) - 1 :]).log_softmax(-1)
        expected = sum(float(row[token]) for row, token in zip(log_probs, added, strict=True))
        assert score == pytest.approx(expected, abs=1e-4)
    free = model.log_likelihoods(PAIRS[:20])
    assert max(abs(left - right) for (left, _), (right, _) in zip(found, free, strict=True)) > 0.003


def test_a_backbone_is_asked_with_all_its_experts_and_has_one_hash(
    loaded, model, monkeypatch, tmp_path
) -> None:
    talker = loaded.model
    talker.backbone.model.save_pretrained(tmp_path)
    free = model.log_likelihoods(PAIRS[:20])
    config = replace(
        talker.config, audio_experts=((0, 2, 4), (1, 2, 3)), routing={"text": "text", "audio": "audio"}
    )
    monkeypatch.setattr(talker, "config", config)
    bare, again = (text_backbone(loaded, tmp_path) for _ in range(2))
    found = TextModel(bare.engine, batch_size=7).log_likelihoods(PAIRS[:20])
    assert [score for score, _ in found] == pytest.approx([score for score, _ in free], abs=1e-4)
    assert model_hash(bare.model) == model_hash(again.model) != model_hash(talker)


def greedy(loaded: LoadedModel, context: str, count: int) -> list[int]:
    ids = [BOS, *context.encode()]
    for _ in range(count):
        ids.append(int(stock_log_probs(loaded, ids)[-1].argmax()))
        if ids[-1] == loaded.model.layout.eos_id:
            return ids[len(context.encode()) + 1 : -1]
    return ids[len(context.encode()) + 1 :]


def test_continuations_are_greedy_and_end_where_they_should(loaded, model) -> None:
    contexts = ["", "a", "hello", "hello world, and more", "b" * 9, "c d", "xyz", "é", "0"]
    found = model.continue_texts(contexts, Continuation(max_tokens=9))
    tokens = ByteTokenizer()
    assert found == [tokens.decode(greedy(loaded, context, 9)) for context in contexts]
    assert any(len(text) > 2 for text in found)
    end = next(text for text in found if len(text) > 2)[1:3]
    cut = model.continue_texts(contexts, Continuation(until=("nowhere", end), max_tokens=9))
    assert cut == [text.split(end)[0] for text in found]
    assert cut != found


def test_what_is_drawn_depends_on_the_seed(model) -> None:
    how = Continuation(max_tokens=8, temperature=5.0)
    drawn = [model.continue_texts(["ab", "ab"], how, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] != drawn[0][1]


def test_settings_are_checked(loaded, model, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="batch_size must be >= 1"):
        TextModel(loaded.engine, batch_size=0)
    with pytest.raises(ConfigError, match="max_positions >= 2, got 8 and 0"):
        TextModel(loaded.engine, max_positions=0)
    with pytest.raises(ConfigError, match=f"max_tokens must be below max_positions, {model.max_positions}"):
        model.continue_texts(["a"], Continuation(max_tokens=model.max_positions))
    monkeypatch.setattr(loaded.engine.model, "tokenizer", None)
    with pytest.raises(ConfigError, match="no tokenizer"):
        TextModel(loaded.engine)


def test_the_backbone_of_a_model_with_another_tokenizer_is_refused(loaded: LoadedModel, tmp_path) -> None:
    loaded.model.backbone.model.save_pretrained(tmp_path)
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    other = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    other.pre_tokenizer = split  # pyright: ignore
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="its tokenizer is not the model's"):
        text_backbone(loaded, tmp_path)


def test_progress_is_told_to_the_last_text(loaded: LoadedModel) -> None:
    seen: list[tuple[int, int]] = []
    model = TextModel(loaded.engine, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    model.log_likelihoods(PAIRS[:10])
    assert (seen[-1], len(seen)) == ((10, 10), 3)
    model.continue_texts(["", "ab", "abc"], Continuation(max_tokens=2))
    assert seen[-1] == (3, 3)


def test_a_lossless_model_is_its_backbone_item_by_item(tmp_path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = DeepTalk(DeepTalkConfig.tiny(), tokenizer=ByteTokenizer())
    model.backbone.model.save_pretrained(tmp_path)
    model.add_experts(ExtraExperts(sources=((1, 4), (0, 7)), routing="overlay"))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if not name.startswith("backbone.") or is_extra_name(name):
                tensor.mul_(1.5).add_(0.01)
    lossless = LoadedModel(engine=DecodingEngine(model), codec=SineCodec())
    ours = TextModel(lossless.engine, batch_size=7).log_likelihoods(PAIRS[:100])
    bare = TextModel(text_backbone(lossless, tmp_path).engine, batch_size=7).log_likelihoods(PAIRS[:100])
    assert ours == bare
