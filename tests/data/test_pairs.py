"""Pairs from a manifest: what is read, what is left out and why."""

import json
from pathlib import Path

import pytest
import torch

from deeptalk.data.dataset import Source
from deeptalk.data.manifest import read_manifest, write_manifest
from deeptalk.data.preference import PreferenceBatches, Reference, load_pairs
from deeptalk.errors import ConfigError, DataError
from deeptalk.streams import StreamLayout
from deeptalk.streams.text import ByteTokenizer

LAYOUT = StreamLayout.tiny()
SAID = {"order": "breadth", "wer": 0.0, "transcript": "yes"}
PAIR = {
    "id": "a",
    "prompt": "Read this aloud: Yes.",
    "text": "Yes.",
    "speaker": "rms",
    "win": {"codes": [[1] * 7, [2] * 7], **SAID},
    "lose": {"codes": [[n] * 7 for n in range(6)], **SAID, "wer": 1.5, "transcript": ""},
    "ref_logp": {"win": -30.5, "lose": -90.25, "model": "m"},
}
SOURCE = Source(manifest="pairs", task="preference")


def written(folder: Path, *records: object) -> Path:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def changed(side: str, **fields: object) -> dict[str, object]:
    return PAIR | {side: PAIR[side] | fields}


def load(folder: Path, **reference: str):
    return load_pairs(SOURCE, folder, layout=LAYOUT, reference=Reference(**{"model": "m"} | reference))


def test_what_is_written_is_read_with_codes_from_a_file_too(tmp_path: Path):
    (tmp_path / "codes.txt").write_text(" ".join(["3"] * 14))
    records = [PAIR, changed("win", codes="codes.txt") | {"id": "b"}]
    assert write_manifest(tmp_path / "pairs.jsonl", records, kind="preference") == 2
    assert read_manifest(tmp_path / "pairs.jsonl", kind="preference").records[0] == PAIR
    one, other = load(tmp_path).pairs
    assert one.win.codes.tolist() == PAIR["win"]["codes"]
    assert other.win.codes.tolist() == [[3] * 7] * 2
    assert (one.win.ref_log_prob, one.lose.ref_log_prob, one.mode) == (-30.5, -90.25, "speaker:rms")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (PAIR | {"prompt": " "}, "empty prompt"),
        (PAIR | {"text": ""}, "empty text"),
        (PAIR | {"speaker": 3}, "unknown speaker"),
        (PAIR | {"speaker": "bob"}, "unknown speaker"),
        (PAIR | {"win": None}, "no winner"),
        (PAIR | {"lose": {"wer": 0.0}}, "no loser"),
        (changed("win", wer=None), "bad wer"),
        (changed("lose", wer=-0.1), "bad wer"),
        (changed("lose", transcript=None), "no transcript"),
        (changed("win", order="sideways"), "unknown order of codes"),
        (changed("win", codes=[]), "no codes"),
        (changed("lose", codes=[[1] * 6]), "codes not a multiple of seven"),
        (changed("lose", codes=[[LAYOUT.codebook_size] * 7]), "code out of range"),
        (changed("lose", codes="nowhere.npy"), "unreadable codes"),
        (changed("ref_logp", win=float("nan")), "bad reference"),
        (changed("ref_logp", model=None), "bad reference"),
        (PAIR | {"ref_logp": None}, "no reference log-probabilities"),
    ],
)
def test_bad_pairs_are_counted_by_reason(tmp_path: Path, record: dict[str, object], reason: str):
    loaded = load(written(tmp_path, PAIR, record | {"id": "bad"}))
    assert (len(loaded.pairs), loaded.rejects) == (1, {reason: 1})


def test_a_file_of_another_model_another_task_or_nothing_is_refused(tmp_path: Path):
    written(tmp_path, PAIR)
    with pytest.raises(DataError, match="scored by model m in fp32, the stage starts from model n in fp32"):
        load(tmp_path, model="n")
    with pytest.raises(DataError, match="scored by model m in fp32, the stage starts from model m in bf16"):
        load(tmp_path, precision="bf16")
    with pytest.raises(ConfigError, match="task 'asr'"):
        load_pairs(
            Source(manifest="pairs", task="asr"), tmp_path, layout=LAYOUT, reference=Reference(model="m")
        )
    with pytest.raises(DataError, match=r"left out: .*'no winner': 1"):
        load(written(tmp_path, PAIR | {"win": None}))


def stream(folder: Path, **changes: int) -> PreferenceBatches:
    settings = {"max_positions": 200, "batch_size": 260, "seed": 1} | changes
    return PreferenceBatches([load(folder)], tokenizer=ByteTokenizer(), layout=LAYOUT, **settings)


def test_a_batch_has_winners_then_losers_within_its_budget(tmp_path: Path):
    longer = changed("win", codes=[[5] * 7] * 4) | {"id": "b"}
    batch = next(stream(written(tmp_path, PAIR, longer)))
    count = batch.ref_log_prob.shape[1]
    assert count == 2
    assert batch.rows.grid.shape[0] == 4
    assert batch.rows.grid.shape[0] * batch.rows.grid.shape[2] <= 260
    firsts = [[id for id in row if id < LAYOUT.codebook_size] for row in batch.rows.grid[:, 1].tolist()]
    assert sorted(firsts[:2]) == [[1, 2], [5] * 4]
    assert firsts[2:] == [[0, 1, 2, 3, 4, 5]] * 2
    assert batch.ref_log_prob.tolist() == [[-30.5] * 2, [-90.25] * 2]
    assert torch.equal(batch.to("cpu").rows.labels, batch.rows.labels)


def test_pairs_too_long_are_dropped_and_counted(tmp_path: Path):
    tiny = PAIR | {"id": "b", "prompt": "A", "text": "B"}
    kept = stream(written(tmp_path, PAIR, tiny), max_positions=50)
    for _ in range(3):
        assert next(kept).rows.grid.shape[2] <= 50
    assert kept.rejects["too long"] > 0
