"""The paper's table 3 holds but for GLM-4, as arithmetic tells."""

import pytest

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.paper_tables import (
    SETS,
    TABLE_3,
    check_table,
    drop_of,
    mean_score,
    text_drop,
)

ROWS = {row.model: row for row in TABLE_3}


def test_the_drop_of_deeptalk() -> None:
    drop = drop_of(ROWS["DeepTalk"])
    assert drop is not None
    assert f"{drop.of_means:.2f}" == "-5.45"
    assert f"{drop.mean_of_sets:.2f}" == "-5.81"
    assert drop.num_sets == 12
    assert drop_of(ROWS["GLM-4"]) is None


def test_only_glm_4_does_not_follow_from_its_values() -> None:
    assert check_table() == [
        "GLM-4: its 12 values average 67.62, printed is 64.08",
        "GLM-4-Voice: its drop is -47.24 %, printed is -44.32 %",
    ]
    right = [row for row in TABLE_3 if not row.model.startswith("GLM")]
    assert len(right) == 9
    assert all(abs(mean_score(row) - row.mean) < 0.0051 for row in right)
    assert check_table(right) == []


def test_a_model_that_ran_fewer_sets_is_compared_on_these() -> None:
    omni = drop_of(ROWS["Qwen2.5-Omni"])
    assert omni is not None
    assert omni.num_sets == 6
    assert omni.of_means == pytest.approx(100 * (413.18 / 441.69 - 1))


def test_rows_have_every_set_once() -> None:
    assert len(set(SETS)) == 12
    assert all(len(row.scores) == 12 for row in TABLE_3)
    assert sum(score is None for row in TABLE_3 for score in row.scores) == 6


@pytest.mark.parametrize(
    ("model", "backbone", "complaint"),
    [
        ({}, {"a": 1.0}, "there are no sets"),
        ({"a": 1.0}, {}, "nothing for: a"),
        ({"a": 1.0}, {"a": 0.0}, r"a\.$"),
    ],
)
def test_a_drop_needs_the_same_sets(model, backbone, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        text_drop(model, backbone)
    assert text_drop({"a": 30.0, "b": 20.0}, {"a": 60.0, "b": 20.0, "c": 9.0}).of_means == pytest.approx(
        -37.5
    )
    assert text_drop({"a": 30.0, "b": 20.0}, {"a": 60.0, "b": 20.0}).mean_of_sets == pytest.approx(-25.0)
