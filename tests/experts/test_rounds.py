from collections.abc import Callable

import pytest

from deeptalk.errors import ConfigError
from deeptalk.experts import ExpertLoad, ExpertPartition, partition_in_rounds

Make = Callable[..., ExpertLoad]
TEXT = [0, 0, 0, 0, 10, 10]


@pytest.fixture
def asked() -> list[ExpertPartition | None]:
    return []


@pytest.fixture
def measure(answer_load: Make, asked: list) -> Callable[[ExpertPartition | None], ExpertLoad]:
    """Speech that prefers other experts after each round of training, and then stays with its choice."""
    audio = [[10, 10, 0, 0, 0, 0], [10, 0, 10, 0, 0, 0], [0, 0, 10, 10, 0, 0], [0, 0, 10, 10, 0, 0]]

    def measured(previous: ExpertPartition | None) -> ExpertLoad:
        asked.append(previous)
        return answer_load(audio[len(asked) - 1], TEXT, num_tokens=10)

    return measured


def test_rounds_end_when_the_choice_comes_to_rest(measure, asked) -> None:
    rounds = partition_in_rounds(measure, num_audio_experts=2, num_rounds=9)
    chosen = [one.partition.audio_experts for one in rounds]
    assert chosen == [((0, 1),), ((0, 2),), ((2, 3),), ((2, 3),)]
    assert [one.overlap for one in rounds] == [None, 0.5, 0.5, 1.0]
    assert asked == [None, *(one.partition for one in rounds[:-1])]


def test_one_round_measures_once_and_a_limit_ends_the_search(measure, asked) -> None:
    assert len(partition_in_rounds(measure, num_audio_experts=2)) == 1
    assert asked == [None]
    asked.clear()
    assert len(partition_in_rounds(measure, num_audio_experts=2, num_rounds=3)) == 3
    asked.clear()
    early = partition_in_rounds(measure, num_audio_experts=2, num_rounds=3, stop_overlap=0.5)
    assert [one.overlap for one in early] == [None, 0.5]


@pytest.mark.parametrize("options", [{"num_rounds": 0}, {"stop_overlap": 0.0}, {"stop_overlap": 1.5}])
def test_bad_limits_are_refused_before_anything_is_measured(measure, asked, options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        partition_in_rounds(measure, num_audio_experts=2, **options)
    assert not asked
