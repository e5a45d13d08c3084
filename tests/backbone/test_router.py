from types import SimpleNamespace

import pytest
import torch

from deeptalk.backbone.router import (
    BiasedSigmoid,
    GroupLimit,
    Renorm,
    RouterHook,
    RouterMask,
    RoutingCall,
    RoutingScope,
    SelectionRule,
    SoftmaxThenTopk,
    TopkThenSoftmax,
    mask_selection,
)
from deeptalk.errors import ConfigError

LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
NATIVE = (LOGITS, torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.long))
BUT_THE_BEST = torch.tensor([[True, True, True, False]])


def choose(rule, allowed: torch.Tensor, router: object = None) -> tuple[torch.Tensor, torch.Tensor]:
    _, weights, experts = mask_selection(router, NATIVE, allowed, rule)
    return weights, experts


def test_mask_comes_before_the_softmax() -> None:
    weights, experts = choose(SoftmaxThenTopk(top_k=2, is_normalised=False), BUT_THE_BEST)
    total = 1 + torch.e + torch.e**2
    assert experts.tolist() == [[2, 1]]
    torch.testing.assert_close(weights, torch.tensor([[torch.e**2 / total, torch.e / total]]))


def test_weights_sum_to_one_only_when_the_group_has_no_more_than_its_places() -> None:
    rule = SoftmaxThenTopk(top_k=2, is_normalised=False)
    two, _ = choose(rule, torch.tensor([[True, True, False, False]]))
    all_four, _ = choose(rule, torch.ones(1, 4, dtype=torch.bool))
    assert two.sum().item() == pytest.approx(1.0)
    assert all_four.sum().item() < 0.95


def test_weights_of_a_masked_choice_by_what_they_are_measured_against() -> None:
    rule = SoftmaxThenTopk(top_k=2, is_normalised=False, scale=3.0)

    def weights(renorm: Renorm) -> torch.Tensor:
        return mask_selection(None, NATIVE, BUT_THE_BEST, rule, renorm=renorm)[1]

    scores = LOGITS.softmax(-1)
    torch.testing.assert_close(weights("none"), 3 * scores[:, [2, 1]])
    torch.testing.assert_close(weights("topk"), 3 * torch.tensor([2.0, 1.0]).softmax(0)[None])
    torch.testing.assert_close(weights("group").sum(), 3 * scores[0, 1:3].sum() / scores[0, :3].sum())


@pytest.mark.parametrize("rule", [TopkThenSoftmax(top_k=2), SoftmaxThenTopk(top_k=2, is_normalised=True)])
def test_other_renorms_are_refused_where_routers_normalise_their_choice(rule: SelectionRule) -> None:
    with pytest.raises(ConfigError, match="renorm 'none' needs routers"):
        mask_selection(None, NATIVE, BUT_THE_BEST, rule, renorm="none")


def test_an_unknown_renorm_is_refused() -> None:
    with pytest.raises(ConfigError, match="renorm must be one of group, topk, none, got 'half'"):
        RouterMask(table=torch.ones(1, 1, 2, dtype=torch.bool), renorm="half")  # type: ignore[arg-type]


def test_normalised_weights_and_scale() -> None:
    weights, _ = choose(SoftmaxThenTopk(top_k=2, is_normalised=True, scale=2.0), BUT_THE_BEST)
    assert weights.sum().item() == pytest.approx(2.0)


def test_topk_before_softmax() -> None:
    weights, experts = choose(TopkThenSoftmax(top_k=2), BUT_THE_BEST)
    assert experts.tolist() == [[2, 1]]
    torch.testing.assert_close(weights, torch.tensor([2.0, 1.0]).softmax(0)[None])


def test_bias_chooses_and_the_sigmoid_weighs() -> None:
    rule = BiasedSigmoid(top_k=1, is_normalised=False, scale=1.0, limit=GroupLimit(total=1, kept=1, of=2))
    router = SimpleNamespace(e_score_correction_bias=torch.tensor([9.0, 0.0, 0.0, 99.0]))
    weights, experts = choose(rule, BUT_THE_BEST, router)
    assert experts.tolist() == [[0]]
    assert weights.item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "rule", [SoftmaxThenTopk(top_k=2, is_normalised=False), TopkThenSoftmax(top_k=2)], ids=repr
)
def test_one_allowed_expert_is_used_alone(rule) -> None:
    weights, experts = choose(rule, torch.tensor([[False, True, False, False]]))
    assert experts.tolist() == [[1, 1]]
    assert weights.tolist() == [[1.0, 0.0]]


def test_group_limit_closes_the_weaker_sets() -> None:
    limit = GroupLimit(total=2, kept=1, of=1)
    scores = torch.tensor([[0.4, 0.1, 0.2, 0.3], [0.1, 0.1, 0.2, 0.3]])
    assert limit.is_open(scores).tolist() == [[True, True, False, False], [False, False, True, True]]


def test_a_table_gives_each_token_the_row_of_its_group() -> None:
    table = torch.tensor([[[True, False], [True, True]], [[False, True], [True, False]]])
    allowed = RouterMask(table=table).allowed(0, torch.tensor([1, 0]))
    assert allowed.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    "table",
    [torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.zeros(1, 2, 3, dtype=torch.bool)],
    ids=["float", "two axes", "no expert"],
)
def test_bad_tables_are_refused(table: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="router mask"):
        RouterMask(table=table)


def test_the_scope_forgets_its_call_even_after_an_error() -> None:
    scope = RoutingScope()
    before = scope.call
    with pytest.raises(RuntimeError), scope.open(RoutingCall(collected={})):
        raise RuntimeError
    assert scope.call is before


def test_a_router_that_turns_its_answer_round_is_given_it_back_so() -> None:
    scope, collected = RoutingScope(), {}
    rule = TopkThenSoftmax(top_k=2)
    hook = RouterHook(scope=scope, layer=0, rule=rule)
    mask = RouterMask(table=BUT_THE_BEST[None])
    call = RoutingCall(mask=mask, groups=torch.zeros(1, dtype=torch.long), collected=collected)
    with scope.open(call):
        straight = hook(torch.nn.Identity(), (), NATIVE)
        turned = hook(torch.nn.Identity(), (), NATIVE[::-1])
    assert straight[2].tolist() == [[2, 1]]
    for one, other in zip(straight, turned[::-1], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(collected[0].experts, straight[2])
