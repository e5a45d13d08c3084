import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deeptalk.errors import ConfigError, DataError
from deeptalk.experts import (
    ExpertLoad,
    ExpertPartition,
    partition_by_load,
    random_partition,
    read_partition,
    write_partition,
)
from deeptalk.experts.partition import (
    Round,
    audio_score,
    describe,
    halves_overlap,
    partition_at_random,
    read_rounds,
    text_load_of_audio,
)

Make = Callable[..., ExpertLoad]

# Ten tokens of each set, two experts per token. Rates and scores of algorithm 1, by hand:
#   expert   0     1     2     3     4     5
#   E^A     0.9   0.6   0.2   0.1   0.1   0.1
#   E^T     0.8   0.1   0.1   0.8   0.1   0.1
#   score   0.18  0.54  0.18  0.02  0.09  0.09
AUDIO, TEXT = [9, 6, 2, 1, 1, 1], [8, 1, 1, 8, 1, 1]


def test_the_score_by_hand(answer_load: Make) -> None:
    load = answer_load(AUDIO, TEXT, num_tokens=10)
    score = audio_score(load.normalised("rate"))
    assert score[0].tolist() == pytest.approx([0.18, 0.54, 0.18, 0.02, 0.09, 0.09])


def test_the_best_experts_serve_audio_and_equal_scores_go_by_number(answer_load: Make) -> None:
    load = answer_load([9, 6, 2, 1, 1, 1], [7, 1, 1, 9, 1, 1], num_tokens=10)
    assert partition_by_load(load, num_audio_experts=2).audio_experts == ((0, 1),)
    assert partition_by_load(load, num_audio_experts=4).audio_experts == ((0, 1, 2, 4),)


def test_normalisation_changes_the_choice(answer_load: Make) -> None:
    load = answer_load([10, 6, 4, 0, 0, 0], [9, 1, 1, 9, 0, 0], num_tokens=10)
    # rate: 0.1, 0.54, 0.36; share: 0.275, 0.285, 0.19: text suppresses its own expert less
    assert partition_by_load(load, num_audio_experts=2, normalisation="rate").audio_experts == ((1, 2),)
    assert partition_by_load(load, num_audio_experts=2, normalisation="share").audio_experts == ((0, 1),)


@pytest.mark.parametrize("number", [1, 5, 6])
def test_both_sides_need_as_many_experts_as_a_token_uses(answer_load: Make, number: int) -> None:
    load = answer_load(AUDIO, TEXT, num_tokens=10)
    with pytest.raises(ConfigError, match=r"from 2 .* to 4, got"):
        partition_by_load(load, num_audio_experts=number)
    with pytest.raises(ConfigError, match=r"from 2 .* to 4, got"):
        random_partition(0, num_layers=1, num_experts=6, num_audio_experts=number, experts_per_token=2)


def test_a_partition_checks_itself() -> None:
    with pytest.raises(ConfigError, match="at least 2 audio experts"):
        ExpertPartition(is_audio=torch.tensor([[True, False, False, False]]), experts_per_token=2)
    with pytest.raises(ConfigError, match="at least 2 text experts"):
        ExpertPartition(is_audio=torch.tensor([[True, True, True, False]]), experts_per_token=2)
    with pytest.raises(ConfigError, match="bool table"):
        ExpertPartition(is_audio=torch.ones(2, 4), experts_per_token=1)


def test_random_partitions_follow_their_seed() -> None:
    sizes = {"num_layers": 5, "num_experts": 32, "num_audio_experts": 8, "experts_per_token": 4}
    first, again, other = (random_partition(seed, **sizes) for seed in (1, 1, 2))
    assert torch.equal(first.is_audio, again.is_audio)
    assert not torch.equal(first.is_audio, other.is_audio)
    assert first.is_audio.sum(-1).tolist() == [8] * 5
    assert len(set(first.audio_experts)) == 5
    assert first.hash == again.hash != other.hash


def test_halves_that_disagree_are_warned_of(answer_load: Make, caplog: pytest.LogCaptureFixture) -> None:
    even = answer_load([10, 10, 0, 0, 0, 0], [0, 0, 0, 0, 10, 10], num_tokens=10)
    unstable = answer_load([10, 20, 10, 0, 0, 0], [0, 0, 0, 0, 20, 20], num_tokens=20, even=even)
    assert halves_overlap(unstable, 2, "rate", "all") == 0.5
    with caplog.at_level(logging.WARNING):
        partition_by_load(unstable, num_audio_experts=2)
    assert "50 %" in caplog.text
    caplog.clear()
    stable = answer_load([20, 20, 0, 0, 0, 0], [0, 0, 0, 0, 20, 20], num_tokens=20, even=even)
    with caplog.at_level(logging.WARNING):
        partition_by_load(stable, num_audio_experts=2)
    assert not caplog.text


def test_what_text_gives_up(answer_load: Make) -> None:
    load = answer_load(AUDIO, TEXT, num_tokens=10)
    partition = partition_by_load(load, num_audio_experts=2)
    assert text_load_of_audio(load, partition).tolist() == pytest.approx([9 / 20])
    report = describe(load, partition)
    assert report["text_load_of_audio_experts"] == [0.45]
    assert report["overlap"]["rate/all"] == 1.0
    assert "rate/input" not in report["overlap"]
    assert set(report["overlap_of_normalisations"]) >= {"rate-share", "max-mass"}
    assert report["input_audio_experts"] is None


def test_the_choice_by_input_is_told_beside_that_of_all_positions(answer_load: Make) -> None:
    load = answer_load(AUDIO, TEXT, num_tokens=10)
    load.count[0, :, 2], load.count[1, :, 1] = (
        torch.tensor([0, 0, 0, 0, 10, 10]),
        torch.tensor([10, 10, 0, 0, 0, 0]),
    )
    load.num_tokens[0, :, 2] = load.num_tokens[1, :, 1] = 10
    chosen = partition_by_load(load, num_audio_experts=2, positions="answer")
    assert chosen.audio_experts == ((0, 1),)
    assert describe(load, chosen, "answer")["input_audio_experts"] == ((4, 5),)


def test_partitions_of_different_backbones_have_no_overlap() -> None:
    sizes = {"num_layers": 5, "num_audio_experts": 8, "experts_per_token": 4}
    one, other = (random_partition(0, num_experts=number, **sizes) for number in (32, 16))
    with pytest.raises(ConfigError, match="different backbones"):
        one.overlap(other)


def test_a_random_partition_fits_the_backbone_of_its_load(answer_load: Make) -> None:
    load = answer_load(AUDIO, TEXT, num_tokens=10)
    drawn = partition_at_random(3, load, num_audio_experts=2)
    sizes = {"num_layers": 1, "num_experts": 6, "num_audio_experts": 2, "experts_per_token": 2}
    assert torch.equal(drawn.is_audio, random_partition(3, **sizes).is_audio)


def test_write_and_read(answer_load: Make, tmp_path: Path) -> None:
    even = answer_load([4, 3, 1, 1, 1, 0], [4, 1, 0, 4, 1, 0], num_tokens=5)
    load = answer_load(AUDIO, TEXT, num_tokens=10, even=even)
    partition = partition_by_load(load, num_audio_experts=2)
    path = tmp_path / "partition.json"
    write_partition(path, partition, options={"seed": None}, provenance={"data": {"audio": "00"}}, load=load)
    again = read_partition(path)
    assert torch.equal(again.is_audio, partition.is_audio)
    saved = json.loads(path.read_text())
    assert saved["load"]["count"] == load.count.tolist()
    assert saved["provenance"] == {"data": {"audio": "00"}}
    path.write_text(path.read_text().replace('"audio_experts": [[0, 1]]', '"audio_experts": [[1, 3]]'))
    with pytest.raises(DataError, match="was changed"):
        read_partition(path)


def test_rounds_are_kept_in_the_file(answer_load: Make, tmp_path: Path) -> None:
    partition = partition_by_load(answer_load(AUDIO, TEXT, num_tokens=10), num_audio_experts=2)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    write_partition(first, partition, options={}, provenance={})
    assert read_rounds(first) == (Round(hash=partition.hash, overlap=None),)
    write_partition(second, partition, options={}, provenance={}, before=read_rounds(first), overlap=1.0)
    assert [one.overlap for one in read_rounds(second)] == [None, 1.0]
    lines = [line for line in first.read_text().splitlines() if not line.startswith('  "rounds"')]
    first.write_text("\n".join(lines).replace('"provenance": {},', '"provenance": {}'))
    assert len(read_rounds(first)) == 1  # a file from before there were rounds
    second.write_text(second.read_text().replace('"overlap": 1.0', '"over": 1.0'))
    with pytest.raises(DataError, match="damaged rounds"):
        read_rounds(second)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"audio_experts": [[9]], "num_experts": 4, "experts_per_token": 1}']
)
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "partition.json").write_text(text)
    with pytest.raises(DataError, match="holds no partition"):
        read_partition(tmp_path / "partition.json")


def test_what_was_read_does_not_stand_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "sound.wav").write_bytes(b"RIFF" + bytes(range(128, 256)) * 1_000)
    with pytest.raises(DataError, match=r"holds no partition \(it is not text\)"):
        read_partition(tmp_path / "sound.wav")
    with pytest.raises(DataError, match=r"holds no partition \(no such file or directory\)"):
        read_partition(tmp_path / "nothing.json")
