"""The drop of every task against hand-made verdicts, and the paper's own drop through the same sum."""

import pytest

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.intervals import paired_bootstrap
from deeptalk.evaluation.benchmarks.paper_tables import TABLE_3
from deeptalk.evaluation.benchmarks.retention import mean_drop, retained
from deeptalk.evaluation.metrics import share_score


def test_every_task_has_its_counts_and_a_paired_interval() -> None:
    model = {"a/acc": [1.0] * 30 + [0.0] * 70, "b/f1": [0.5, 0.25, 1.0, 0.0]}
    backbone = {"a/acc": [1.0] * 40 + [0.0] * 60, "b/f1": [0.5, 0.25, 1.0, 0.0]}
    first, second = retained(model, backbone, seed=3)
    assert first.model == share_score("a/acc", 30, 100)
    assert first.backbone == share_score("a/acc", 40, 100)
    change = paired_bootstrap(
        [(score, 1.0) for score in backbone["a/acc"]], [(score, 1.0) for score in model["a/acc"]], seed=3
    )
    assert (first.difference.value, first.difference.low) == pytest.approx((-10.0, 100 * change.low))
    assert first.difference.high < 0
    assert first.difference.is_clear
    assert (second.model.value, second.model.count, second.model.total) == (43.75, 2, 4)
    assert second.model.low < 43.75 < second.model.high
    assert (second.difference.value, second.difference.is_clear) == (0.0, False)
    assert first.to_dict() == {
        "task": "a/acc",
        "model": dict(value=30.0, unit="%", count=30, total=100, low=first.model.low, high=first.model.high),
        "backbone": dict(
            value=40.0, unit="%", count=40, total=100, low=first.backbone.low, high=first.backbone.high
        ),
        "difference": pytest.approx(-10.0),
        "low": first.difference.low,
        "high": first.difference.high,
        "is_clear": True,
    }


def test_the_drop_of_all_tasks_is_the_papers_form() -> None:
    rows = {row.model: row.by_set for row in TABLE_3}
    sides = [
        {task: [value / 100] for task, value in rows[name].items()}
        for name in ("DeepTalk", "DeepSeek-V2-Lite")
    ]
    drop = mean_drop(retained(*sides))
    assert drop is not None
    assert (round(drop.of_means, 2), round(drop.mean_of_sets, 2), drop.num_sets) == (-5.45, -5.81, 12)
    assert mean_drop(retained({"a": [1.0]}, {"a": [0.0]})) is None


@pytest.mark.parametrize("backbone", [{}, {"a": [1.0]}, {"a": [1.0, 0.0], "b": [1.0]}])
def test_other_tasks_or_items_are_refused(backbone: dict[str, list[float]]) -> None:
    with pytest.raises(DataError, match="different tasks or items"):
        retained({"a": [1.0, 0.0]}, backbone)


def test_scores_that_are_no_shares_are_left_out() -> None:
    model = {"a/acc": [1.0, 0.0], "a/bleu": [0.0, 0.0], "a/diff": [-1.0, 1.0]}
    backbone = {"a/acc": [1.0, 1.0], "a/bleu": [35.0, 0.5], "a/diff": [0.0, 1.0]}
    assert [one.task for one in retained(model, backbone)] == ["a/acc"]
    with pytest.raises(DataError, match="no task gives its items scores from 0 to 1, of: a/bleu"):
        retained({"a/bleu": [0.0]}, {"a/bleu": [35.0]})
    with pytest.raises(DataError, match="of: none"):
        retained({}, {})
