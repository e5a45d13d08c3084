"""Preferences between spoken answers: the loss by hand, and each defect of the released code as a test."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from preference_pairs import (
    LAYOUT,
    TOKENIZER,
    alone,
    answer,
    batch_of,
    log_prob_alone,
    loss_by_hand,
    pair,
    write_pairs,
)
from tokenizers import Tokenizer, models, pre_tokenizers

from deeptalk.codec import SineCodec, save_codec
from deeptalk.data.preference import LoadedPairs, Pair, PreferenceBatches
from deeptalk.errors import ConfigError, DataError
from deeptalk.experts import Routing
from deeptalk.model import DeepTalk, DeepTalkConfig, save
from deeptalk.model.identity import model_hash
from deeptalk.model.weights import load
from deeptalk.recipes import RECIPES
from deeptalk.streams import IGNORE, StreamLayout, encode_dialogue, encode_prompt
from deeptalk.training.metrics import read_metrics
from deeptalk.training.objective import Task
from deeptalk.training.preference import Preference, joint_log_probs, reference_log_probs
from deeptalk.training.recipe import AtRandom, Recipe
from deeptalk.training.run import run_stage


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def model() -> DeepTalk:
    torch.manual_seed(0)
    model = DeepTalk(DeepTalkConfig.tiny())
    for head in model.heads.codec:  # far from a uniform guess, so that every code has a number of its own
        torch.nn.init.normal_(head.weight, std=0.5)
    return model


def losses(objective: Preference, model: DeepTalk, *pairs: Pair) -> list[float]:
    """The mean of each term."""
    batch = batch_of(*pairs)
    sums, counts = objective.sums(model, batch, generator=generator()), objective.counts(batch)
    return (sums / counts.clamp(min=1)).tolist()


# the defects of method.md, section 11.3


def test_pair_scores_equal_scores_of_each_sequence_computed_alone(model: DeepTalk):
    """The released code scored the loser by logits that had read the winner."""
    one = pair()
    found = reference_log_probs(model, batch_of(one))[:, 0].tolist()
    expected = [log_prob_alone(model, one, said) for said in (one.win, one.lose)]
    assert found == pytest.approx(expected, rel=1e-5)
    same_length = pair(lose=answer(3, seed=2))
    wrong = log_prob_alone(model, same_length, same_length.lose, inputs=same_length.win)
    right = log_prob_alone(model, same_length, same_length.lose)
    assert abs(wrong - right) > 0.1
    assert float(reference_log_probs(model, batch_of(same_length))[1, 0]) == pytest.approx(right, rel=1e-5)


def test_hand_computed_log_probability_on_a_five_token_vocabulary():
    """The released code shifted its labels twice. Here position q gives code v of codebook i the
    probability (1 + (v + q + i) mod 5) / 15."""
    layout = StreamLayout(vocab_size=300, codebook_size=4, eos_id=257, bos_id=256)
    one = Pair(
        prompt="Hi",
        text="Ho",
        win=answer(0),
        lose=dataclasses.replace(
            answer(0), codes=torch.tensor([[3, 1, 0, 2, 2, 1, 0], [1, 1, 3, 0, 2, 3, 0]])
        ),
    )
    turns = one.turns(one.lose)
    example = encode_dialogue(turns, tokenizer=TOKENIZER, layout=layout, mode="answer")
    p0 = encode_prompt(turns[:1], tokenizer=TOKENIZER, layout=layout, mode="answer").grid.shape[1] - 1
    positions = torch.arange(example.grid.shape[1]).float()[None, :, None]

    def head(i: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda hidden: torch.log(1 + (torch.arange(5) + hidden + i) % 5)

    found = joint_log_probs(positions, [head(i) for i in range(7)], example.labels[None])
    by_hand = []
    for shift in (0, 1):
        total = 0.0
        for i in range(7):
            for f, code in enumerate([*one.lose.codes[:, i].tolist(), 4]):
                total += math.log((1 + (code + p0 + f + i + 1 - shift + i) % 5) / 15)
        by_hand.append(total)
    assert float(found) == pytest.approx(by_hand[0], rel=1e-6)
    assert abs(by_hand[0] - by_hand[1]) > 0.5


def test_lengths_that_differ_and_padding_change_no_number(model: DeepTalk):
    """The released code aligned the loser with the winner's end and hid what didn't fit."""
    ones = [pair(), pair(answer(6, seed=3), answer(2, seed=4)), pair(answer(14, seed=5), answer(9, seed=6))]
    together = reference_log_probs(model, batch_of(*ones))
    for row, side in zip(together.tolist(), ("win", "lose"), strict=True):
        assert row == pytest.approx(
            [log_prob_alone(model, one, getattr(one, side)) for one in ones], rel=1e-5
        )


def test_the_joint_sum_enters_one_sigmoid(model: DeepTalk):
    """The released code took seven sigmoids, one for each codebook."""
    ones = [pair(), pair(answer(6, seed=3, ref=-150.0), answer(2, seed=4, ref=-55.0))]
    margins = [
        0.1
        * (
            (log_prob_alone(model, one, one.win) - one.win.ref_log_prob)
            - (log_prob_alone(model, one, one.lose) - one.lose.ref_log_prob)
        )
        for one in ones
    ]
    assert min(abs(margin) for margin in margins) > 0.3
    found = losses(Preference(beta=0.1), model, *ones)
    assert found[0] == pytest.approx(sum(map(loss_by_hand, margins)) / 2, rel=1e-4)
    assert found[1:] == [0.0, 0.0]


def test_perturbing_the_policy_leaves_the_reference(model: DeepTalk):
    """The released reference used the policy's embeddings, and its no-grad was commented out."""
    before, batch = model_hash(model), batch_of(pair())
    known = batch.ref_log_prob.clone()
    objective = Preference()
    objective.sums(model, batch, generator=generator()).sum().backward()
    assert not batch.ref_log_prob.requires_grad
    with torch.no_grad():
        for table in model.embedding.codec:
            table.weight.add_(torch.randn(table.weight.shape, generator=generator()))
    assert torch.equal(batch.ref_log_prob, known)
    assert model_hash(model) != before
    one = pair()
    policy = [log_prob_alone(model, one, said) for said in (one.win, one.lose)]
    margin = 0.1 * ((policy[0] + 70.0) - (policy[1] + 120.0))
    assert losses(objective, model, one)[0] == pytest.approx(loss_by_hand(margin), rel=1e-4)


def test_the_speaker_is_stored_in_the_pair_and_used(model: DeepTalk):
    """The released code trained without a speaker and decoded with one."""
    for speaker in ("slt", "rms"):
        rows = batch_of(pair(speaker=speaker)).rows
        assert all((row == LAYOUT.speaker(speaker)).sum() == 7 for row in rows.grid[:, 1:])
    slt, rms = (reference_log_probs(model, batch_of(pair(speaker=speaker))) for speaker in ("slt", "rms"))
    assert float((slt - rms).abs().max()) > 2e-3


def test_nothing_waits_for_a_person(monkeypatch: pytest.MonkeyPatch):
    """The released collator called the debugger."""

    def stop(*_: object, **__: object) -> None:
        raise AssertionError("somebody is asked")

    monkeypatch.setattr("sys.breakpointhook", stop)
    monkeypatch.setattr("builtins.input", stop)
    monkeypatch.setattr("pdb.set_trace", stop)
    loaded = LoadedPairs(weight=1.0, pairs=(pair(),), rejects={})
    stream = PreferenceBatches(
        [loaded], tokenizer=TOKENIZER, layout=LAYOUT, max_positions=200, batch_size=200, seed=0
    )
    assert next(stream).ref_log_prob.tolist() == [[-70.0], [-120.0]]


# the loss itself


def test_the_loss_is_ln_2_for_every_pair_at_the_start(model: DeepTalk):
    for one in (pair(), pair(answer(6, seed=3), answer(2, seed=4))):
        win, lose = reference_log_probs(model, batch_of(one))[:, 0].tolist()
        known = dataclasses.replace(
            one,
            win=dataclasses.replace(one.win, ref_log_prob=win),
            lose=dataclasses.replace(one.lose, ref_log_prob=lose),
        )
        assert losses(Preference(), model, known)[0] == pytest.approx(math.log(2), abs=1e-6)


def test_both_additions_by_hand(model: DeepTalk):
    one, objective = pair(), Preference(sft_weight=0.5, text_weight=0.25)
    sft, text = losses(objective, model, one)[1:]
    assert sft == pytest.approx(-log_prob_alone(model, one, one.win) / (7 * 4), rel=1e-5)
    batch = alone(one, one.win)
    labels = batch.labels[0, 0]
    scores = model(batch).logits.text[0].log_softmax(-1).detach()
    words = [float(scores[q, label]) for q, label in enumerate(labels.tolist()) if label != IGNORE]
    assert text == pytest.approx(-sum(words) / len(words), rel=1e-5)
    whole = batch_of(one)
    sums, counts = objective.sums(model, whole, generator=generator()).detach(), objective.counts(whole)
    assert counts.tolist() == [1, 1, len(words)]
    expected = float(sums[0]) + 0.5 * sft + 0.25 * text
    assert float(objective.total(sums, counts)) == pytest.approx(expected, rel=1e-5)


def test_the_reward_may_be_that_of_a_code(model: DeepTalk):
    one = pair()
    gains = [log_prob_alone(model, one, said) - said.ref_log_prob for said in (one.win, one.lose)]
    margin = 0.1 * (gains[0] / (7 * 4) - gains[1] / (7 * 6))
    found = losses(Preference(length_norm="per_token"), model, one)[0]
    assert found == pytest.approx(loss_by_hand(margin), rel=1e-5)


def test_the_end_of_a_cut_answer_is_not_scored(model: DeepTalk):
    whole, cut = pair(), pair(lose=answer(5, seed=2, is_cut=True))
    expected = log_prob_alone(model, cut, cut.lose)
    assert float(reference_log_probs(model, batch_of(cut))[1, 0]) == pytest.approx(expected, rel=1e-5)
    assert expected - log_prob_alone(model, whole, whole.lose) > 1.0
    assert (batch_of(cut).rows.labels[1, 1:] != IGNORE).sum() == 5 * 7


def test_figures_tell_rewards_and_lengths(model: DeepTalk):
    ones = [pair(), pair(answer(6, seed=3, ref=-150.0), answer(2, seed=4, is_cut=True, ref=-55.0))]
    measures = Preference().measures(model, batch_of(*ones))
    assert all(measure.count == 2 for measure in measures.values())
    found = {name: measure.total / 2 for name, measure in measures.items()}
    gains = {
        side: [
            log_prob_alone(model, one, getattr(one, side)) - getattr(one, side).ref_log_prob for one in ones
        ]
        for side in ("win", "lose")
    }
    assert (found["frames_win"], found["frames_lose"]) == (4.5, 3.5)
    assert found["reward_win"] == pytest.approx(0.1 * sum(gains["win"]) / 2, rel=1e-4)
    assert found["margin"] == pytest.approx(found["reward_win"] - found["reward_lose"], rel=1e-4)
    assert found["log_prob_lose"] == pytest.approx(sum(gains["lose"]) / 2 - 87.5, rel=1e-4)
    wins = [win > lose for win, lose in zip(gains["win"], gains["lose"], strict=True)]
    assert found["accuracy"] == sum(wins) / 2


def test_the_winner_is_preferred_after_training(model: DeepTalk):
    objective, batch = Preference(beta=0.1), batch_of(pair(), pair(answer(4, seed=7), answer(4, seed=8)))
    batch = dataclasses.replace(batch, ref_log_prob=reference_log_probs(model, batch).clone())
    task = Task(model, objective).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        objective.total(task(batch, generator()), objective.counts(batch)).backward()
        optimizer.step()
    figures = objective.measures(model.eval(), batch)
    assert figures["accuracy"].total == 2
    assert figures["margin"].total / 2 > 1.0


@pytest.mark.parametrize(
    "settings", [{"beta": 0.0}, {"sft_weight": -1.0}, {"text_weight": -1.0}, {"length_norm": "frames"}]
)
def test_impossible_settings_are_refused(settings: dict[str, object]):
    with pytest.raises(ConfigError, match="must be"):
        Preference(**settings)  # type: ignore[arg-type]


# the stage


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """The model that the pocket recipe starts from, as small as can be."""
    torch.manual_seed(0)
    model = DeepTalk(DeepTalkConfig.tiny())
    is_audio = torch.zeros(model.backbone.layers.num_moe_layers, 8, dtype=torch.bool)
    is_audio[:, :3] = True
    model.split(is_audio)
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(tmp_path / "made.json"))
    (name,) = RECIPES["pocket-preference"].starts_from
    folder = tmp_path / name / "model"
    save(model, folder, tokenizer_path=tmp_path / "made.json", provenance={})
    save_codec(SineCodec(), folder / "codec")
    return folder


def run(recipe: Recipe, root: Path) -> list[float]:
    return [report.loss for report in run_stage(recipe, root=root)]


def test_a_stage_begins_at_ln_2_and_moves_what_speaks(start: Path, tmp_path: Path):
    """The released reference could stay random; here it is the start model's, and the first loss tells."""
    write_pairs(start, tmp_path / "data")
    recipe = RECIPES["pocket-preference"].tiny()
    found = run(recipe, tmp_path)
    assert found[0] == pytest.approx(math.log(2), abs=1e-5)
    assert found[1] != found[0]
    before, after = load(start), load(tmp_path / recipe.name / "model")
    assert model_hash(before) != model_hash(after)
    changed = {
        name
        for name, tensor in before.state_dict().items()
        if not torch.equal(tensor, after.state_dict()[name])
    }
    assert changed
    assert all(name.startswith(("embedding.codec", "heads.codec")) or ".experts." in name for name in changed)
    assert (tmp_path / recipe.name / "model" / "codec" / "config.json").is_file()
    last = read_metrics(tmp_path / recipe.name / "run" / "metrics.jsonl")[-1]
    assert set(last["losses"]) == {"preference"}
    assert {"loss_preference", "margin", "accuracy", "log_prob_win", "frames_lose"} <= set(last["evaluation"])
    assert last["evaluation"]["margin"] > 0


@pytest.mark.parametrize(
    ("scored", "words"),
    [({"model": "another"}, "were scored by model another"), ({"precision": "bf16"}, "in bf16, the stage")],
)
def test_pairs_of_another_model_are_refused(start: Path, tmp_path: Path, scored: dict[str, str], words: str):
    write_pairs(start, tmp_path / "data", **scored)
    with pytest.raises(DataError, match=words):
        run(RECIPES["pocket-preference"].tiny(), tmp_path)
    assert not (tmp_path / "pocket-preference").exists()


def test_the_hash_is_that_of_the_weights(start: Path):
    model = load(start)
    known = model_hash(model)
    model.split()
    assert model_hash(model) == known
    for part in (model.encoder, model.adapter, model.backbone, model.embedding, model.heads):
        parameter = next(part.parameters())
        with torch.no_grad():
            old = parameter.flatten()[0].clone()
            parameter.view(-1)[0] += 1.0
            assert model_hash(model) != known
            parameter.view(-1)[0] = old
    assert model_hash(model) == known


def test_a_model_that_limits_its_experts_is_refused(start: Path, tmp_path: Path):
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | {"routing": {"text": "text", "audio": "all"}}))
    with pytest.raises(ConfigError, match="whose every token may use every expert"):
        run(RECIPES["pocket-preference"].tiny(), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"starts_from": ("one", "two", "three")},
        {"partition": AtRandom(num_audio_experts=2)},
        {"routing": Routing(text="text", audio="audio")},
    ],
)
def test_a_recipe_that_can_not_learn_from_pairs_is_refused(tmp_path: Path, change: dict[str, object]):
    recipe = dataclasses.replace(RECIPES["pocket-preference"].tiny(), **change)
    with pytest.raises(ConfigError, match="learns from pairs"):
        run(recipe, tmp_path)
