"""Every corpus is read from the layout in which it is published; the fixtures are written here."""

import gc
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from deeptalk.audio import MelSpec
from deeptalk.data.codes import read_codes
from deeptalk.data.corpora import CORPORA, KnownQuestions, Prepared, prepare_records, read_folder
from deeptalk.data.library import Clip, MelReader
from deeptalk.data.manifest import Record, read_manifest
from deeptalk.errors import DataError


def sound(path: Path, *, seconds: float = 0.5, rate: int = 16_000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), rate)
    return path


def prepared(
    name: str, folder: Path, known: KnownQuestions | None = None
) -> tuple[dict[str, Prepared], dict[str, tuple[Record, ...]]]:
    """What becomes of a corpus, and the records of its manifests as training reads them."""
    corpus = CORPORA[name]
    note = {"source": name, "license": corpus.licence}
    told, records = {}, {}
    for key, found in corpus.read(folder).items():
        path = folder.parent / "out" / f"{key}.jsonl"
        kind = "sentence" if key.endswith("sentences") else corpus.kind
        told[key] = prepare_records(path, found, kind=kind, note=note, known=known)
        content = read_manifest(path, kind=kind)
        assert not content.rejects
        records[key] = content.records
    return told, records


def ids(records: tuple[Record, ...]) -> list[str]:
    return [record["id"] for record in records]


def said(record: Record) -> list[str]:
    return [message["text"] for message in record["messages"]]


def can_be_heard(part: Mapping[str, Any]) -> bool:
    mel = MelReader(MelSpec()).read(Clip.of(part, id="x"), np.random.default_rng(0))
    return mel.shape[1] == round(part["duration"] * 16_000) // 160


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def test_librispeech(tmp_path: Path) -> None:
    root = tmp_path / "given" / "LibriSpeech"
    for part, name in (("train-clean-100", "103-1240"), ("test-clean", "61-70968")):
        chapter = root / part / name.replace("-", "/")
        for number in (0, 1):
            sound(chapter / f"{name}-000{number}.flac")
        lines = (f"{name}-0000 CHAPTER ONE", f"{name}-0001 CHAPTER ONE", f"{name}-0002 NOT THERE")
        (chapter / f"{name}.trans.txt").write_text("\n".join(lines) + "\n")
    told, records = prepared("librispeech", tmp_path / "given")
    assert set(records) == {"librispeech-train-clean-100", "librispeech-test-clean", "librispeech-sentences"}
    train = records["librispeech-train-clean-100"]
    assert ids(train) == ["103-1240-0000", "103-1240-0001"]
    assert told["librispeech-train-clean-100"].rejects == {"no such audio": 1}
    assert told["librispeech-train-clean-100"].hours == pytest.approx(1 / 3600)
    first = train[0]
    assert (first["text"], first["speaker"], first["license"]) == ("CHAPTER ONE", "103", "CC-BY-4.0")
    assert can_be_heard(first)
    assert [r["text"] for r in records["librispeech-sentences"]] == ["chapter one", "not there"]


def test_aishell_1(tmp_path: Path) -> None:
    root = tmp_path / "given" / "data_aishell"
    for part, speaker in (("train", "S0002"), ("test", "S0764")):
        for name in ("W0122", "W0123"):
            sound(root / "wav" / part / speaker / f"BAC009{speaker}{name}.wav")
    (root / "transcript").mkdir()
    lines = ("BAC009S0002W0122 而 对 ｋ tv", "BAC009S0764W0122 甚至 出现", "BAC009S0764W0123 交易 几乎")
    text = "\n".join(lines)
    (root / "transcript" / "aishell_transcript_v0.8.txt").write_text(text, encoding="utf-8")
    told, records = prepared("aishell-1", tmp_path / "given")
    assert [r["text"] for r in records["aishell-1-train"]] == ["而对KTV"]
    assert told["aishell-1-train"].rejects == {"empty text": 1}
    assert ids(records["aishell-1-test"]) == ["BAC009S0764W0122", "BAC009S0764W0123"]
    assert records["aishell-1-test"][0]["speaker"] == "S0764"


def recipe_of_lhotse(name: str, folder: Path, **options: Any) -> dict[str, list[tuple]]:
    """What lhotse's own recipe reads: the clips of each part, with their texts."""
    recipes = pytest.importorskip("lhotse.recipes", reason="deeptalk[lhotse] is not installed")
    found = getattr(recipes, f"prepare_{name}")(folder, **options)
    clips = {}
    for part, sets in found.items():
        paths = {recording.id: recording.sources[0].source for recording in sets["recordings"]}
        clips[part] = sorted(
            (one.id, Path(paths[one.recording_id]).resolve(), one.start, round(one.duration, 6), one.text)
            for one in sets["supervisions"]
        )
    return clips


def ours(records: tuple[Record, ...]) -> list[tuple]:
    return sorted(
        (r["id"], Path(r["audio"]), r.get("offset", 0.0), round(r["duration"], 6), r["text"]) for r in records
    )


@pytest.mark.filterwarnings(  # they leave files open
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
def test_recipes_of_lhotse_read_the_same(tmp_path: Path) -> None:
    test_librispeech(tmp_path / "libri")
    _, records = prepared("librispeech", tmp_path / "libri" / "given")
    theirs = recipe_of_lhotse("librispeech", tmp_path / "libri" / "given" / "LibriSpeech")
    assert {part: ours(records[f"librispeech-{part}"]) for part in theirs} == theirs
    test_aishell_1(tmp_path / "aishell")
    sound(tmp_path / "aishell" / "given" / "data_aishell" / "wav" / "dev" / "S1" / "BAC009S0764W0122.wav")
    _, records = prepared("aishell-1", tmp_path / "aishell" / "given")
    theirs = recipe_of_lhotse("aishell", tmp_path / "aishell" / "given")
    assert {part: ours(records[f"aishell-1-{part}"]) for part in theirs} == theirs
    folder = tmp_path / "wenet" / "given"
    sound(folder / "audio" / "Y01.wav", seconds=2.0)
    segments = [
        {
            "sid": f"Y01_S{n}",
            "begin_time": n / 2,
            "end_time": n / 2 + 0.5,
            "text": " 你好 ",
            "subsets": subsets,
        }
        for n, subsets in enumerate((["L", "S"], ["L"], ["DEV"]))
    ]
    audio = {"aid": "Y01", "path": "audio/Y01.wav", "duration": 2.0, "segments": segments}
    write_json(folder / "WenetSpeech.json", {"audios": [audio]})
    _, records = prepared("wenetspeech", folder)
    names = {"L": "wenetspeech", "S": "wenetspeech-s", "DEV": "wenetspeech-dev"}
    theirs = recipe_of_lhotse("wenet_speech", folder, dataset_parts=tuple(names))
    assert {part: ours(records[name]) for part, name in names.items()} == theirs
    gc.collect()


def test_damaged_sounds_and_codes_are_left_out_by_reason(tmp_path: Path) -> None:
    sound(tmp_path / "q.wav")
    (tmp_path / "bad.wav").write_text("no sound")
    (tmp_path / "short.txt").write_text("1 2 3")
    (tmp_path / "good.txt").write_text("1 2 3 4 5 6 7")
    (tmp_path / "odd.txt").write_text("1 2 3 4 5 6 x")

    def talk(name: str, codes: str = "good.txt", **asked: Any) -> Record:
        user = {"role": "user", "text": "?", "audio": str(tmp_path / "q.wav"), **asked}
        answer = {"role": "assistant", "text": "!", "codes": str(tmp_path / codes), "order": "breadth"}
        return {"id": name, "messages": [user, answer]}

    bad = str(tmp_path / "bad.wav")
    records = [
        *(talk("good"), talk("a", "short.txt"), talk("b", "odd.txt"), talk("c", "nowhere.txt")),
        *(talk("d", audio=bad, duration=1.0), talk("e", offset=0.75, duration=0.1), talk("f", audio=bad)),
    ]
    told = prepare_records(tmp_path / "m.jsonl", records, kind="dialogue", note={})
    assert told.num_records == 1
    assert told.rejects == {
        "codes not a multiple of seven": 1,
        "unreadable codes": 2,
        "unreadable audio": 2,
        "clip outside its recording": 1,
    }


def test_wenetspeech(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    sound(folder / "audio" / "train" / "Y01.wav", seconds=2.0)
    segments = [
        {"sid": "Y01_S0", "begin_time": 0.25, "end_time": 1.0, "text": " 你好 ", "subsets": ["L", "S"]},
        {"sid": "Y01_S1", "begin_time": 1.0, "end_time": 1.5, "text": "再见", "subsets": ["L"]},
        {"sid": "Y01_S2", "begin_time": 1.5, "end_time": 1.5, "text": "短", "subsets": ["L"]},
        {"sid": "Y01_S3", "begin_time": None, "end_time": 1.5, "text": "短", "subsets": ["L"]},
        {"sid": "Y01_S4", "subsets": ["L"]},
    ]
    test = [{"sid": "T_S0", "begin_time": 0, "end_time": 0.5, "text": "测试", "subsets": ["TEST_NET"]}]
    audios = [
        {"aid": "Y01", "path": "audio/train/Y01.wav", "duration": 2.0, "segments": segments},
        {"aid": "T", "path": "audio/train/Y01.wav", "duration": 2.0, "segments": test},
    ]
    absent = {"aid": "D", "path": "audio/dev/D.wav", "segments": [test[0] | {"subsets": ["DEV"]}]}
    write_json(folder / "WenetSpeech.json", {"audios": [absent]})
    with pytest.raises(DataError, match="none of the recordings that WenetSpeech"):
        prepared("wenetspeech", folder)
    write_json(folder / "WenetSpeech.json", {"audios": [*audios, absent]})
    told, records = prepared("wenetspeech", folder)
    assert set(records) == {"wenetspeech", "wenetspeech-s", "wenetspeech-test-net"}
    assert ids(records["wenetspeech"]) == ["Y01_S0", "Y01_S1"]
    assert told["wenetspeech"].rejects == {"bad duration": 1, "unreadable": 2}
    assert ids(records["wenetspeech-s"]) == ["Y01_S0"]
    assert ids(records["wenetspeech-test-net"]) == ["T_S0"]
    first = records["wenetspeech"][0]
    assert (first["offset"], first["duration"], first["text"]) == (0.25, 0.75, "你好")
    assert first["license"] == "not stated"
    assert can_be_heard(first)


def test_math_instruct(tmp_path: Path) -> None:
    rows = [
        {"source": "data/CoT/aqua_rat.json", "instruction": "What is 2+2?", "output": " Four. "},
        {"source": "data/PoT/gsm.json", "instruction": "", "output": "x"},
        "nothing",
    ]
    write_json(tmp_path / "given" / "MathInstruct.json", rows)
    told, records = prepared("math-instruct", tmp_path / "given")
    (record,) = records["math-instruct"]
    assert said(record) == ["What is 2+2?", "Four."]
    assert (record["part"], record["license"]) == ("data/CoT/aqua_rat.json", "MIT")
    assert told["math-instruct"].rejects == {"empty text": 2}


def test_dolly(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Who?", "context": "", "response": "Ann", "category": "open_qa"},
        {
            "instruction": "Sum it up",
            "context": "A long text.",
            "response": "Short",
            "category": "summarization",
        },
    ]
    path = tmp_path / "given" / "databricks-dolly-15k.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, records = prepared("dolly-15k", tmp_path / "given")
    assert [said(record) for record in records["dolly-15k"]] == [
        ["Who?", "Ann"],
        ["Sum it up\n\nA long text.", "Short"],
    ]


@pytest.mark.parametrize("is_packed", [True, False])
def test_camel_ai_math(tmp_path: Path, is_packed: bool) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    row = {
        "role_1": "Mathematician",
        "topic;": "Algebra",
        "sub_topic": "x",
        "message_1": "Q?",
        "message_2": "A.",
    }
    files = {f"001_00{number}.json": json.dumps(row) for number in (2, 1)}
    if is_packed:
        with zipfile.ZipFile(folder / "math.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(f"math/{name}", text)
    else:
        for name, text in files.items():
            (folder / name).write_text(text)
    _, records = prepared("camel-ai-math", folder)
    assert ids(records["camel-ai-math"]) == ["camel-ai-math-001_001", "camel-ai-math-001_002"]
    assert said(records["camel-ai-math"][0]) == ["Q?", "A."]
    assert records["camel-ai-math"][0]["part"] == "Algebra"


def test_audioqa_in_the_layout_of_vita_audio(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "AudioQA-1M"
    paths = [f"q/wav/{name}.wav" for name in ("7_question", "7_F10")]
    for path in paths:
        sound(folder / path)
    turns = [{"role": "user", "content": "<|audio|>"}, {"role": "assistant", "content": "好的\n<|audio|>"}]
    audios = [f"datasets/AudioQA-1M/{path}" for path in paths]
    rows = [{"messages": turns, "audios": audios}, {"messages": turns, "audios": audios[:1]}]
    write_json(folder / "part.json", rows)
    write_json(folder / "more" / "part.json", rows[:1])
    known = KnownQuestions({"qa": ["what is the capital of france"]})
    told, records = prepared("audioqa-1m", folder, known)
    assert told["audioqa-1m"].num_not_compared == 2
    record, other = records["audioqa-1m"]
    assert {record["id"], other["id"]} == {"audioqa-1m-part-0", "audioqa-1m-more/part-0"}
    user, assistant = record["messages"]
    assert (user["text"], assistant["text"], assistant["speaker"]) == ("", "好的", "F10")
    assert can_be_heard(user)
    assert assistant["audio"].endswith("7_F10.wav")
    assert told["audioqa-1m"].rejects == {"no messages": 1}


def test_audioqa_in_the_layout_of_the_authors(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    sound(folder / "q.wav")
    (folder / "a.codec").write_text(" ".join(map(str, range(14))))
    turns = [
        {"role": "user", "content": "什么?", "wavpath": "q.wav", "codec": "q.codec"},
        {"role": "assistant", "content": "水。", "codec": "a.codec", "speaker": "M29"},
    ]
    write_json(folder / "train.json", [{"conversations": turns}])
    _, records = prepared("audioqa-1m", folder)
    (record,) = records["audioqa-1m"]
    user, assistant = record["messages"]
    assert (user["text"], assistant["text"], assistant["speaker"]) == ("什么?", "水。", "M29")
    assert read_codes(assistant, codebook_size=4096).tolist() == [list(range(7)), list(range(7, 14))]
    assert "codes" not in user


@pytest.mark.parametrize("name", CORPORA)
def test_another_layout_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as raised:
        prepared(name, tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_damaged_indices_are_named(tmp_path: Path) -> None:
    (tmp_path / "WenetSpeech.json").write_text('{"audios": [{}]}')
    with pytest.raises(DataError, match="not the index of WenetSpeech"):
        CORPORA["wenetspeech"].read(tmp_path)
    write_json(tmp_path / "WenetSpeech.json", {"audios": [{"segments": [{"subsets": [3]}]}]})
    with pytest.raises(DataError, match="not the index of WenetSpeech"):
        CORPORA["wenetspeech"].read(tmp_path)
    path = tmp_path / "test-clean" / "1" / "2" / "1-2.trans.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1-2-0000 \xff\n")
    with pytest.raises(DataError, match=r"1-2\.trans\.txt can't be read as UTF-8"):
        prepared("librispeech", tmp_path)
    (tmp_path / "math.zip").write_text("no archive")
    with pytest.raises(DataError, match="no readable archive"):
        prepared("camel-ai-math", tmp_path)


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    sound(folder / "deep" / "a.ogg", rate=24_000, channels=2)
    (folder / "deep" / "a.txt").write_text(" hello\n")
    sound(folder / "untold.wav")
    talk = [
        {"role": "user", "text": "hi", "audio": "deep/a.ogg"},
        {"role": "assistant", "text": "hello", "audio": "untold.wav"},
    ]
    lines = [{"messages": talk}, {"id": "x", "messages": talk[:1]}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "broken\n"
    (folder / "talks.jsonl").write_text(text)
    (folder / "texts.jsonl").write_text(
        json.dumps({"messages": [{"role": r, "text": "x"} for r in ("user", "assistant")]})
    )
    found = read_folder(folder)
    assert {name: own.kind for name, own in found.items()} == {
        "recordings": "recording",
        "talks": "dialogue",
        "texts": "text",
    }
    (clip,) = found["recordings"].records
    assert (clip["id"], clip["text"]) == ("deep/a", "hello")
    path = tmp_path / "out" / "talks.jsonl"
    told = prepare_records(path, found["talks"].records, kind="dialogue", note={"license": "own"})
    assert (told.num_records, told.rejects) == (1, {"no answer at the end": 1, "unreadable": 1})
    (record,) = read_manifest(path, kind="dialogue").records
    assert (record["id"], record["license"]) == ("talks-1", "own")
    assert all(can_be_heard(message) for message in record["messages"])


def test_a_folder_without_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no sound"):
        read_folder(tmp_path)
    (tmp_path / "odd.jsonl").write_text('{"question": "?"}\n')
    with pytest.raises(DataError, match=r"odd\.jsonl: its first line is no record"):
        read_folder(tmp_path)


def test_nothing_is_written_where_nothing_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with pytest.raises(DataError, match="2 no such audio"):
        prepare_records(
            path,
            [{"id": name, "audio": "nowhere.wav", "text": "x"} for name in "ab"],
            kind="recording",
            note={},
        )
    assert not list(tmp_path.iterdir())


def talk(question: str) -> Record:
    asked = {"role": "user", "text": question}
    return {
        "id": question,
        "messages": [asked, {"role": "assistant", "text": "what is the capital of france"}],
    }


@pytest.mark.parametrize(
    ("question", "sets"),
    [
        ("What is the capital of France?", {"short"}),
        ("Tell me: WHAT'S more, what is the capital of France, please", {"short"}),
        ("What is the capital of Spain?", set()),
        ("who was the first person to walk on the moon", {"long"}),
        ("he asked who was the first person to walk on mars", {"long"}),
        ("who was the first person to walk", set()),
        ("Thanks!", {"short"}),
        ("Thanks a lot", set()),
        ("请问法国的首都是哪里", {"zh"}),
        ("法国的首都", set()),
    ],
)
def test_what_evaluation_sets_ask_is_found(question: str, sets: set[str]) -> None:
    known = KnownQuestions(
        {
            "short": ["what is the capital of france", "thanks"],
            "long": ["Who was the first person to walk on the moon?"],
            "zh": ["法国的首都是哪里？", "?"],
        }
    )
    assert known.sets_of(talk(question)) == sets


def test_overlaps_are_left_out_and_counted(tmp_path: Path) -> None:
    known = KnownQuestions({"qa": ["what is the capital of france"]})
    records = [talk("What is the capital of France?"), talk("Who are you?")]
    told = prepare_records(tmp_path / "m.jsonl", records, kind="text", note={}, known=known)
    assert (told.num_records, told.overlaps, told.rejects) == (1, {"qa": 1}, {})
    assert told.num_not_compared == 0


def test_of_sentences_nothing_is_measured(tmp_path: Path) -> None:
    told = prepare_records(
        tmp_path / "m.jsonl", [{"id": "a", "text": "x", "audio": 5}], kind="sentence", note={}
    )
    assert (told.num_records, told.hours) == (1, 0.0)
