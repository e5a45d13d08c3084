"""Ten samples of every task against stored figures; intervals against counting milliseconds one by one."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.duplex import (
    DuplexSample,
    Word,
    merged,
    read_samples,
    score_samples,
    spread_words,
    takes_turn,
    timing,
    timing_scores,
    write_words,
)

# start of the first word, end of the last (None: not known), number of words
REPLIES: list[tuple[float, float | None, int] | None] = [
    (2.5, 4.0, 5),
    (2.1, 2.5, 3),  # short and few: no turn
    (2.1, 2.5, 4),  # short, but four words
    (3.0, 4.0, 1),  # one word of a second
    (1.5, 3.0, 6),  # begins before the user ends
    (2.9, None, 1),  # the recogniser did not tell its end
    (5.0, 5.9, 2),
    (2.25, 6.0, 9),
    (0.0, 0.0, 0),  # nothing was said
    None,  # no file
]
TAKEN = [True, False, True, True, True, False, False, True, False]


def write_sample(folder: Path, reply: tuple[float, float | None, int] | None) -> None:
    folder.mkdir(parents=True)
    (folder / "input.wav").write_bytes(b"")
    (folder / "turn_taking.json").write_text('[{"text": "x", "timestamp": [2.0, 9.0]}]')
    (folder / "interrupt.json").write_text('[{"context": "a", "interrupt": "b", "timestamp": [1.0, 2.0]}]')
    if reply is None:
        return
    start, end, count = reply
    chunks: list[dict[str, Any]] = [{"text": "w", "timestamp": [start, start]} for _ in range(count)]
    if chunks:
        chunks[-1]["timestamp"] = [start, end]
    (folder / "output.json").write_text(json.dumps({"text": "w", "chunks": chunks}))


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    for number, reply in enumerate(REPLIES):
        write_sample(tmp_path / f"{number:02}", reply)
    return tmp_path


@pytest.mark.parametrize("task", ["turn_taking", "interruption"])
def test_turns_that_should_be_taken(task: str, bench: Path) -> None:
    report = score_samples(read_samples(bench, task), task)
    assert (report.take_over.count, report.take_over.total, report.num_missing) == (5, 10, 1)
    assert report.latency is not None
    delays = [0.5, 0.1, 1.0, 0.0, 0.25]
    assert (report.latency.value, report.latency.count) == (pytest.approx(sum(delays) / 5), 5)
    assert min(delays) <= report.latency.low < report.latency.value < report.latency.high <= max(delays)
    values = report.to_dict()
    assert (values["goal"], values["is_full_duplex"], values["task"]) == ("high", False, task)
    assert values["latency"]["unit"] == "s"


def test_pauses_in_which_no_turn_should_be_taken(bench: Path) -> None:
    report = score_samples(read_samples(bench, "pause"), "pause")
    assert (report.take_over.count, report.take_over.total) == (6, 10)  # the missing one counts against
    assert report.latency is None
    assert report.to_dict()["goal"] == "low"
    samples = read_samples(bench, "pause")
    assert [takes_turn(sample.words or ()) for sample in samples[:9]] == TAKEN


def test_where_no_turn_is_taken_there_is_no_latency() -> None:
    samples = [DuplexSample(id="a", words=(), user_end=1.0), DuplexSample(id="b", words=None, user_end=1.0)]
    report = score_samples(samples, "turn_taking")
    assert (report.take_over.count, report.num_missing) == (0, 1)
    assert report.latency is not None
    assert math.isnan(report.latency.value)
    assert report.latency.count == 0


def test_a_missing_reply_takes_no_other_samples_place(bench: Path) -> None:
    (bench / "03" / "output.json").unlink()
    (bench / "04" / "output.json").write_text("{}")
    samples = read_samples(bench, "turn_taking")
    assert [sample.words is None for sample in samples] == [n in (3, 4, 9) for n in range(10)]
    report = score_samples(samples, "turn_taking")
    assert (report.take_over.count, report.num_missing) == (3, 3)


def test_what_is_wrong_with_a_folder_is_told(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'chat'; there are: pause, backchannel, turn_taking"):
        read_samples(bench, "chat")
    with pytest.raises(DataError, match=r"no folders with an input\.wav"):
        read_samples(bench / "00", "pause")
    (bench / "05" / "turn_taking.json").write_text("[]")
    with pytest.raises(DataError, match=r"05/turn_taking\.json: it does not tell where the user's turn ends"):
        read_samples(bench, "turn_taking")


def test_words_are_written_as_the_bench_reads_them(tmp_path: Path) -> None:
    words = spread_words("the cat sat", start=1.0, end=2.5)
    assert words == [
        Word(text="the", start=1.0, end=1.5),
        Word(text="cat", start=1.5, end=2.0),
        Word(text="sat", start=2.0, end=2.5),
    ]
    write_words(tmp_path / "a" / "output.json", words)
    (tmp_path / "a" / "input.wav").write_bytes(b"")
    (sample,) = read_samples(tmp_path, "pause")
    assert sample.words == tuple(words)
    written = json.loads((tmp_path / "a" / "output.json").read_text())
    assert written["text"] == "the cat sat"
    assert written["chunks"][1] == {"text": "cat", "timestamp": [1.5, 2.0]}
    assert spread_words(" ", start=0.0, end=1.0) == []


def test_timing_by_hand() -> None:
    user, model = [(0.0, 1.0), (1.5, 2.0), (5.0, 6.0)], [(2.5, 5.2), (5.4, 5.5), (8.0, 9.0)]
    found = timing(user, model)
    assert found == {
        "latency_stop_list": [[5.0, 5.5]],  # 5.2 and 5.4 are one interval of the model
        "latency_resp_list": [[2.0, 2.5], [6.0, 8.0]],
    }
    stop, response = timing_scores([found, {"latency_stop_list": [[0.0, 1.0]], "latency_resp_list": []}])
    assert (stop.name, stop.value, stop.count, stop.total) == ("stop_latency", 0.75, 2, 2)
    assert (response.value, response.count, response.total) == (1.25, 1, 2)  # both are of one sample
    assert response.low == response.high == 1.25
    assert timing([(0.0, 1.0), (2.0, 3.0)], [(3.5, 4.0)])["latency_resp_list"] == [[3.0, 3.5]]
    assert timing([], [(0.0, 1.0)]) == {"latency_stop_list": [], "latency_resp_list": []}


def test_timing_is_what_counting_milliseconds_gives() -> None:
    rng = random.Random(5)

    def speech() -> list[tuple[float, float]]:
        starts = [rng.randrange(0, 19_000) for _ in range(rng.randint(0, 6))]
        return [(start / 1000, (start + rng.randrange(20, 1_500)) / 1000) for start in starts]

    for _ in range(60):
        user, model = merged(speech(), gap_seconds=0.6), merged(speech(), gap_seconds=0.5)
        grids = [bytearray(21_000) for _ in range(2)]
        for grid, intervals in zip(grids, (user, model), strict=True):
            for start, end in intervals:
                for at in range(round(start * 1000), round(end * 1000)):
                    grid[at] = 1
        both = [a & b for a, b in zip(*grids, strict=True)]
        starts = [at for at in range(1, 21_000) if both[at] and not both[at - 1]] + ([0] if both[0] else [])
        found = timing(user, model)
        assert sum(both) == sum(round(1000 * (e - s)) for s, e in found["latency_stop_list"])
        assert sorted(starts) == [round(1000 * s) for s, _ in found["latency_stop_list"]]
        for end, start in found["latency_resp_list"]:
            assert not any(
                grids[1][at] and not grids[1][at - 1]
                for at in range(round(end * 1000) + 1, round(start * 1000))
            )
            assert (grids[0][round(end * 1000) - 1], grids[1][round(start * 1000)]) == (1, 1)
        follow = {next((s for s, _ in model if s > e), None) for _, e in user} - {None}
        assert len(found["latency_resp_list"]) == len(follow)
