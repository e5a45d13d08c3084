"""Codes of recorded answers, shard by shard: nothing twice, nothing lost, whoever dies."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from deeptalk.codec import SineCodec, save_codec
from deeptalk.data.answer_codes import encode_manifest, encode_shard
from deeptalk.data.codes import read_codes
from deeptalk.data.manifest import read_manifest, write_manifest
from deeptalk.data.packs import AudioFile
from deeptalk.data.shards import Processes, Shard
from deeptalk.errors import DataError


@pytest.fixture
def codec_folder(tmp_path: Path) -> Path:
    save_codec(SineCodec(), tmp_path / "codec")
    return tmp_path / "codec"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Five dialogues, whose answers are tones of different lengths; the fourth can't be read."""
    generator = np.random.default_rng(0)
    records = []
    for number in range(5):
        name = f"a{number}.wav"
        soundfile.write(tmp_path / name, generator.uniform(-0.5, 0.5, 3_000 + 4_000 * number), 24_000)
        answer = {"role": "assistant", "text": "yes", "audio": name, "duration": 0.1 + 0.15 * number}
        records.append({"id": str(number), "messages": [{"role": "user", "text": "?"}, answer]})
    (tmp_path / "a3.wav").write_text("no sound")
    write_manifest(tmp_path / "talks.jsonl", records, kind="dialogue")
    return tmp_path / "talks.jsonl"


def answers(path: Path) -> list[dict]:
    return [record["messages"][1] for record in read_manifest(path, kind="dialogue").records]


def test_answers_get_the_codes_of_their_recordings(manifest: Path, codec_folder: Path) -> None:
    told = encode_manifest(manifest, codec_folder, answers_per_shard=2)
    assert (told.num_answers, told.num_shards, told.num_made) == (4, 3, 3)
    assert told.rejects == {"unreadable audio": 1}
    codec = SineCodec()
    for number, answer in enumerate(answers(manifest)):
        if number == 3:
            assert "codes" not in answer
            continue
        samples = AudioFile(Path(answer["audio"]), sample_rate=24_000).read(0.0, answer["duration"])
        expected = codec.encode(torch.from_numpy(samples)[None])[0].T
        assert read_codes(answer, codebook_size=codec.codebook_size).tolist() == expected.tolist()
    assert told.num_frames == sum(a["num_frames"] for a in answers(manifest) if "codes" in a)


def test_what_stands_there_is_not_made_again(manifest: Path, codec_folder: Path) -> None:
    made: list[str] = []

    def make(shard: Shard) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(shard.path.stem[:5])
        encode_shard(shard, codec_folder)

    before = manifest.read_text()
    left = manifest.parent / "codes" / "talks" / ".00002.npy.7"  # of a process that was killed in writing
    left.parent.mkdir(parents=True)
    left.touch()
    with pytest.raises(KeyboardInterrupt):
        encode_manifest(manifest, codec_folder, answers_per_shard=2, make=make)
    assert manifest.read_text() == before
    assert encode_manifest(manifest, codec_folder, answers_per_shard=2).num_made == 1
    first = manifest.read_text()
    assert not left.exists()
    assert encode_manifest(manifest, codec_folder, answers_per_shard=2).num_made == 0
    assert manifest.read_text() == first


def test_another_codec_or_another_recording_is_encoded_anew(manifest: Path, codec_folder: Path) -> None:
    encode_manifest(manifest, codec_folder, answers_per_shard=2)
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    records[4]["messages"][1]["duration"] = 0.2
    write_manifest(manifest, records, kind="dialogue")
    assert encode_manifest(manifest, codec_folder, answers_per_shard=2).num_made == 1
    config = json.loads((codec_folder / "config.json").read_text())
    (codec_folder / "config.json").write_text(json.dumps(config, indent=1))
    assert encode_manifest(manifest, codec_folder, answers_per_shard=2).num_made == 3


def test_another_division_leaves_nothing_of_the_first(manifest: Path, codec_folder: Path) -> None:
    encode_manifest(manifest, codec_folder, answers_per_shard=1)
    encode_manifest(manifest, codec_folder, answers_per_shard=3)
    named = {Path(answer["codes"]).stem for answer in answers(manifest) if "codes" in answer}
    assert {stem[:6] for stem in named} == {"00000-", "00001-"}
    left = {path.name for path in (manifest.parent / "codes" / "talks").iterdir()}
    assert left == {f"{stem}.{kind}" for stem in named for kind in ("npy", "json")}


def test_until_all_is_made_the_manifest_names_what_it_named(manifest: Path, codec_folder: Path) -> None:
    encode_manifest(manifest, codec_folder, answers_per_shard=2)
    before = [read_codes(a, codebook_size=32).tolist() for a in answers(manifest) if "codes" in a]

    def make(shard: Shard) -> None:
        encode_shard(shard, codec_folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_manifest(manifest, codec_folder, answers_per_shard=1, make=make)
    assert [read_codes(a, codebook_size=32).tolist() for a in answers(manifest) if "codes" in a] == before


def test_answers_that_came_with_codes_keep_them(manifest: Path, codec_folder: Path) -> None:
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    records[0]["messages"][1] |= {"codes": [[1] * 7], "order": "depth"}
    write_manifest(manifest, records, kind="dialogue")
    assert encode_manifest(manifest, codec_folder).num_answers == 3
    assert (answers(manifest)[0]["codes"], answers(manifest)[0]["order"]) == ([[1] * 7], "depth")


def test_a_shard_that_was_cut_short_is_made_again(manifest: Path, codec_folder: Path) -> None:
    encode_manifest(manifest, codec_folder, answers_per_shard=2)
    folder = manifest.parent / "codes" / "talks"
    next(folder.glob("00001-*.json")).write_text('[{"first_fra')
    next(folder.glob("00002-*.npy")).unlink()
    assert encode_manifest(manifest, codec_folder, answers_per_shard=2).num_made == 2


def dies_once(shard: Shard, codec_folder: Path) -> None:
    """Kills its process the first time that the second shard is to be made."""
    note = shard.path.parent / "died"
    if shard.path.stem.startswith("00001") and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    encode_shard(shard, codec_folder)


def dies(shard: Shard) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_shard_of_a_lost_worker_is_made_again(manifest: Path, codec_folder: Path) -> None:
    make = partial(dies_once, codec_folder=codec_folder)
    told = encode_manifest(manifest, codec_folder, workers=Processes(2), answers_per_shard=2, make=make)
    assert (manifest.parent / "codes" / "talks" / "died").exists()
    assert (told.num_answers, told.num_shards) == (4, 3)
    codes = [read_codes(a, codebook_size=32).tolist() for a in answers(manifest) if "codes" in a]
    for path in (manifest.parent / "codes" / "talks").iterdir():
        path.unlink()
    encode_manifest(manifest, codec_folder, answers_per_shard=2)
    assert [read_codes(a, codebook_size=32).tolist() for a in answers(manifest) if "codes" in a] == codes


def test_workers_that_always_die_end_in_one_line(manifest: Path, codec_folder: Path) -> None:
    before = manifest.read_text()
    with pytest.raises(DataError, match="workers were lost 3 times before any finished one of 1 shards"):
        encode_manifest(manifest, codec_folder, workers=Processes(2), make=dies)
    assert manifest.read_text() == before


def test_manifests_that_cant_be_encoded_are_left_alone(manifest: Path, codec_folder: Path) -> None:
    with manifest.open("a") as file:
        file.write("{}\n")
    before = manifest.read_text()
    with pytest.raises(DataError, match=r"records that can't be used \(1 no id\)"):
        encode_manifest(manifest, codec_folder)
    assert manifest.read_text() == before
    record = json.loads(before.splitlines()[0])
    del record["messages"][1]["duration"]
    write_manifest(manifest, [record], kind="dialogue")
    with pytest.raises(DataError, match="record '0' has an answer whose audio has no duration"):
        encode_manifest(manifest, codec_folder)
    record = {"id": "x", "messages": [{"role": r, "text": "x"} for r in ("user", "assistant")]}
    write_manifest(manifest, [record], kind="dialogue")
    with pytest.raises(DataError, match="no answer has a recording"):
        encode_manifest(manifest, codec_folder)
