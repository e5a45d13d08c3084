"""Manifests become lhotse Shar and come back; lhotse opens what is written, and what it writes is read."""

import gc
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deeptalk.data.codes import read_codes
from deeptalk.data.manifest import Record, read_manifest, write_manifest
from deeptalk.data.packs import save_array
from deeptalk.data.shar import unpack_shar, write_shar
from deeptalk.data.shar.writing import write_shard
from deeptalk.data.shards import Processes, Shard
from deeptalk.errors import DataError

lhotse = pytest.importorskip("lhotse", reason="deeptalk[lhotse] is not installed")
pytestmark = pytest.mark.filterwarnings(  # its readers leave files open
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """What lhotse left open is collected while nobody minds."""
    yield
    gc.collect()


def noise(path: Path, *, seconds: float, rate: int) -> Path:
    samples = np.random.default_rng(len(path.name)).integers(-9_000, 9_000, round(seconds * rate))
    soundfile.write(path, samples.astype(np.int16), rate)
    return path


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    """Five dialogues: heard and answered, twice, written alone, with a damaged sound, with codes alone."""
    noise(tmp_path / "q.wav", seconds=2.0, rate=16_000)
    noise(tmp_path / "a.flac", seconds=0.5, rate=24_000)
    (tmp_path / "bad.wav").write_text("no sound")
    codes = np.random.default_rng(0).integers(0, 4_096, (30, 7))
    save_array(tmp_path / "codes.npy", codes.astype(np.int16))
    user = {"role": "user", "text": "你好", "audio": "q.wav", "offset": 0.5, "duration": 0.25, "voice": "v"}
    said = {"role": "assistant", "text": "yes", "audio": "a.flac", "duration": 0.5, "speaker": "M29"}
    told = said | {"codes": "codes.npy", "order": "breadth", "first_frame": 3, "num_frames": 4}
    inline = {"role": "assistant", "text": "no", "codes": [[1, 2, 3, 4, 5, 6, 7]], "order": "depth"}
    written = [{"role": role, "text": "x"} for role in ("system", "user", "assistant")]
    talks = [
        [user, told],
        [user, said, written[1], inline],
        written,
        [user | {"audio": "bad.wav"}, told],
        [user | {"text": "", "offset": 1.0}, inline],
    ]
    records = [
        {"id": f"talk/{n}", "messages": messages, "lang": "zh", "license": "MIT"}
        for n, messages in enumerate(talks)
    ]
    write_manifest(tmp_path / "talks.jsonl", records, kind="dialogue")
    return tmp_path / "talks.jsonl"


def plain(record: Record) -> dict:
    """A record with its sounds and codes in place of what names them."""

    def heard(part: dict) -> dict:
        kept = {
            k: v
            for k, v in part.items()
            if k not in ("audio", "offset", "first_frame", "num_frames", "order")
        }
        if "audio" in part:
            with soundfile.SoundFile(part["audio"]) as file:
                file.seek(round(part.get("offset", 0.0) * file.samplerate))
                samples = file.read(round(part["duration"] * file.samplerate), dtype="int16")
            kept["audio"] = (file.samplerate, samples.tolist())
        if "codes" in part:
            kept["codes"] = read_codes(part, codebook_size=4_096).tolist()
        return kept

    messages = [heard(message) for message in record.get("messages", ())]
    return heard(dict(record)) | ({"messages": messages} if messages else {})


def test_dialogues_come_back_as_they_were(dialogues: Path, tmp_path: Path) -> None:
    told = write_shar(dialogues, tmp_path / "out", records_per_shard=2)
    assert (told.num_records, told.num_cuts, told.num_shards, told.num_made) == (4, 8, 3, 3)
    assert told.rejects == {"unreadable audio": 1}
    assert told.hours * 3600 == pytest.approx(0.25 + 0.5 + 0.25 + 0.5 + 0.25)
    given = read_manifest(dialogues, kind="dialogue").records
    back = unpack_shar(tmp_path / "out", tmp_path / "packs")
    assert (back.kind, back.rejects) == ("dialogue", {})
    assert [plain(record) for record in back.records] == [plain(given[i]) for i in (0, 1, 2, 4)]
    write_manifest(tmp_path / "back.jsonl", back.records, kind="dialogue")


def test_lhotse_opens_it(dialogues: Path, tmp_path: Path) -> None:
    told = write_shar(dialogues, tmp_path / "out", records_per_shard=3)
    cuts = list(lhotse.CutSet.from_shar(in_dir=told.folder))
    assert [(cut.duration, cut.has_recording, cut.has_custom("codes")) for cut in cuts] == [
        (0.25, True, False),
        (0.5, True, True),
        (0.25, True, False),
        (0.5, True, False),
        (1.0, False, True),
        (1.0, False, False),
        (0.25, True, False),
        (1.0, False, True),
    ]
    first, second = cuts[:2]
    (said,) = first.supervisions
    assert (said.text, said.speaker, said.language, first.sampling_rate) == ("你好", "v", "zh", 16_000)
    assert first.load_audio().shape == (1, 4_000)
    codes = np.load(tmp_path / "codes.npy")[3:7]
    assert np.array_equal(second.load_custom("codes"), codes)


def test_recordings_come_back_as_they_were(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", seconds=1.0, rate=8_000)
    records = [
        {
            "id": f"r.{n}",
            "audio": "a.wav",
            "offset": n / 4,
            "duration": 0.25,
            "text": "x",
            "speaker": "s",
            "more": [n],
        }
        for n in range(3)
    ]
    write_manifest(tmp_path / "m.jsonl", records, kind="recording")
    write_shar(tmp_path / "m.jsonl", tmp_path / "out", records_per_shard=2)
    back = unpack_shar(tmp_path / "out" / "shar", tmp_path / "packs", workers=Processes(2))
    given = read_manifest(tmp_path / "m.jsonl", kind="recording").records
    assert [plain(r) for r in back.records] == [plain(r) for r in given]
    assert back.kind == "recording"


def test_what_lhotse_wrote_is_read(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", seconds=1.0, rate=16_000)
    recording = lhotse.Recording.from_file(tmp_path / "a.wav")

    def cut(name: str, *texts: str, start: float = 0.0):
        said = [
            lhotse.SupervisionSegment(
                id=f"{name}-{n}", recording_id=recording.id, start=0.0, duration=0.5, text=text, speaker="ann"
            )
            for n, text in enumerate(texts)
        ]
        return lhotse.MonoCut(
            id=name, start=start, duration=0.5, channel=0, recording=recording, supervisions=said
        )

    cuts = lhotse.CutSet.from_cuts([cut("one", "hello", start=0.25), cut("two", "a", "b"), cut("three", "")])
    (tmp_path / "out").mkdir()
    cuts.to_shar(tmp_path / "out", fields={"recording": "wav"}, shard_size=2)
    back = unpack_shar(tmp_path / "out", tmp_path / "packs")
    (record,) = back.records
    assert (record["id"], record["text"], record["speaker"], record["duration"]) == (
        "one",
        "hello",
        "ann",
        0.5,
    )
    samples, _ = soundfile.read(record["audio"], dtype="int16")
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert np.abs(samples.astype(int) - expected[4_000:12_000]).max() <= 1  # lhotse goes by floats
    assert back.rejects == {"cut of several segments": 1, "cut without a text": 1}


def dies_once(shard: Shard) -> None:
    note = shard.path.parents[1] / "died"
    if shard.path.stem.startswith("00001") and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    write_shard(shard)


def test_the_shard_of_a_lost_worker_is_written_again(dialogues: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = write_shar(dialogues, out, records_per_shard=2, workers=Processes(2), make=dies_once)
    assert (out / "died").exists()
    assert (told.num_made, told.num_records) == (3, 4)
    (out / "died").unlink()
    again = write_shar(dialogues, out, records_per_shard=2)
    assert (again.num_made, again.num_cuts, again.rejects) == (0, told.num_cuts, told.rejects)
    assert sorted(path.name for path in out.iterdir()) == ["shar", "shards"]
    write_shar(dialogues, tmp_path / "other", records_per_shard=2)
    for path in (out / "shar").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "other" / "shar" / path.name).read_bytes()


def test_a_folder_of_something_else_is_left_alone(dialogues: Path, tmp_path: Path) -> None:
    write_shar(dialogues, tmp_path / "out", records_per_shard=2)
    with pytest.raises(DataError, match="holds something else"):
        write_shar(dialogues, tmp_path / "out", records_per_shard=3)
    with pytest.raises(DataError, match="holds something else"):
        write_shar(dialogues, tmp_path)


def test_missing_and_damaged_files_are_named(dialogues: Path, tmp_path: Path) -> None:
    folder = Path(write_shar(dialogues, tmp_path / "out", records_per_shard=2).folder)

    def refused() -> str:
        with pytest.raises(DataError) as raised:
            unpack_shar(folder, tmp_path / "packs")
        (line,) = str(raised.value).splitlines()
        return line

    content = (folder / "recording.000002.tar").read_bytes()
    (folder / "recording.000002.tar").write_bytes(content[:700])
    assert "recording.000002.tar" in refused()
    (folder / "recording.000002.tar").unlink()
    assert "lacks 1 files of its shards (recording.000002)" in refused()
    for path in folder.glob("*.000001.*"):
        path.unlink()
    assert "lacks 4 files of its shards (codes.000001, cuts.000001, recording.000001, rec" in refused()
    with pytest.raises(DataError, match="holds no Shar of lhotse"):
        unpack_shar(tmp_path, tmp_path / "packs")


def test_what_cant_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"

    def refused(*records: dict) -> str:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        with pytest.raises(DataError) as raised:
            write_shar(path, tmp_path / "out")
        (line,) = str(raised.value).splitlines()
        return line

    assert "these are neither" in refused({"id": "1", "text": "x"})
    bad = {"id": "1", "audio": "nowhere.wav", "text": "x"}
    assert "can't be used (1 no id)" in refused(bad, {})
    assert "none of 1 records can be read (1 unreadable audio)" in refused(bad)
