import pytest
import torch

from deeptalk.errors import ConfigError
from deeptalk.experts import ExpertPartition, Routing, groups_of, router_mask
from deeptalk.streams.modality import Kind, Row

PARTITION = ExpertPartition(is_audio=torch.tensor([[True, False], [False, True]]), experts_per_token=1)
ALL = [[True, True], [True, True]]
AUDIO = PARTITION.is_audio.tolist()
TEXT = (~PARTITION.is_audio).tolist()


@pytest.mark.parametrize(
    ("routing", "text", "audio"),
    [
        (Routing(), ALL, ALL),
        (Routing(text="audio", audio="audio"), AUDIO, AUDIO),
        (Routing(text="text", audio="text"), TEXT, TEXT),
        (Routing(text="text", audio="audio"), TEXT, AUDIO),
    ],
)
def test_each_stage(routing: Routing, text: list, audio: list) -> None:
    assert router_mask(PARTITION, routing).table.tolist() == [text, audio]


def test_only_all_is_free() -> None:
    assert Routing().is_free
    assert not Routing(text="text").is_free


def test_bad_routing_is_refused() -> None:
    with pytest.raises(ConfigError, match="text tokens must be one of all, text, audio"):
        Routing(text="both")  # type: ignore[arg-type]


def test_groups_follow_kind_and_row() -> None:
    kinds = [Kind.TEMPLATE, Kind.TEXT, Kind.SPEECH, Kind.ANSWER, -1]
    kind = torch.tensor([kinds, kinds])
    groups = groups_of(kind, torch.tensor([Row.TEXT, Row.SPEECH]))
    assert groups.tolist() == [[0, 0, 1, 0, 0], [0, 0, 1, 1, 0]]
