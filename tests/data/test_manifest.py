import json
from pathlib import Path

import pytest

from deeptalk.data.manifest import index_manifest, read_manifest, write_manifest
from deeptalk.errors import DataError

CLIP = {"id": "a", "audio": "pack.wav", "offset": 0.5, "duration": 1.0, "text": "hello"}
TALK = {
    "id": "t",
    "messages": [
        {"role": "user", "text": "hi", "audio": "pack.wav", "duration": 1.0},
        {
            "role": "assistant",
            "text": "hello",
            "codes": [[1] * 7, [2] * 7],
            "order": "breadth",
            "speaker": "slt",
        },
    ],
}


def _changed(index: int, **fields: object) -> dict[str, object]:
    messages = [dict(message) for message in TALK["messages"]]
    messages[index] |= fields
    return TALK | {"messages": messages}


@pytest.mark.parametrize(("kind", "record"), [("recording", CLIP), ("dialogue", TALK), ("text", TALK)])
def test_what_is_written_is_read_with_paths_beside_the_manifest(tmp_path: Path, kind, record) -> None:
    path = tmp_path / "deep" / "m.jsonl"
    assert write_manifest(path, [record], kind=kind) == 1
    (read,) = read_manifest(path, kind=kind).records
    place = read if kind == "recording" else read["messages"][0]
    assert place["audio"] == str(tmp_path / "deep" / "pack.wav")
    assert read["id"] == record["id"]
    assert [entry.name for entry in path.parent.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize(
    ("kind", "record", "reason"),
    [
        ("recording", CLIP | {"text": "  "}, "empty text"),
        ("recording", CLIP | {"text": "half \ud800 a sign"}, "text not Unicode"),
        ("recording", CLIP | {"id": ""}, "no id"),
        ("recording", CLIP | {"id": "\udfff"}, "no id"),
        ("recording", CLIP | {"audio": None}, "no audio"),
        ("recording", CLIP | {"duration": 0}, "bad duration"),
        ("recording", CLIP | {"duration": float("inf")}, "bad duration"),
        ("recording", CLIP | {"offset": -1}, "bad offset"),
        ("recording", CLIP | {"offset": float("nan")}, "bad offset"),
        ("dialogue", TALK | {"messages": []}, "no messages"),
        ("dialogue", TALK | {"messages": TALK["messages"][:1]}, "no answer at the end"),
        ("dialogue", _changed(0, role="robot"), "unknown role"),
        ("dialogue", _changed(1, order="sideways"), "unknown order of codes"),
        ("dialogue", _changed(1, codes=[1] * 8), "codes not a multiple of seven"),
        ("dialogue", _changed(1, codes=[[1] * 6]), "codes not a multiple of seven"),
        ("dialogue", _changed(1, codes=[[-1] * 7]), "code out of range"),
        ("dialogue", _changed(1, codes=[[0.5] * 7]), "codes not whole numbers"),
        ("dialogue", _changed(1, codes=[]), "no codes"),
        ("dialogue", _changed(1, speaker=["M29"]), "unknown speaker"),
    ],
)
def test_bad_records_are_counted_by_reason_and_never_written(
    tmp_path: Path, kind, record, reason: str
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
    content = read_manifest(path, kind=kind)
    assert content.records == ()
    assert content.rejects == {reason: 2}
    with pytest.raises(DataError, match=reason):
        write_manifest(tmp_path / "n.jsonl", [record], kind=kind)
    assert not (tmp_path / "n.jsonl").exists()


def test_broken_lines_repeated_ids_and_failed_checks_are_reasons_too(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = [CLIP, CLIP, CLIP | {"id": "b", "text": "far too long"}]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n[1]\n\n")
    content = read_manifest(path, kind="recording", check=lambda r: "long" if len(r["text"]) > 5 else None)
    assert [record["id"] for record in content.records] == ["a"]
    assert content.rejects == {"repeated id": 1, "long": 1, "not a JSON object": 2}


def test_an_index_has_the_same_records_though_another_file_takes_their_place(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = [CLIP, CLIP, CLIP | {"id": "b", "text": "far too long"}, CLIP | {"id": "ç"}, CLIP | {"id": "d"}]
    path.write_text("{broken\n\n" + "\n".join(json.dumps(one, ensure_ascii=False) for one in lines) + "\n")
    check = {"kind": "recording", "check": lambda r: "long" if len(r["text"]) > 5 else None}
    content = read_manifest(path, **check)
    index = index_manifest(path, **check, choose=lambda r: r["id"] != "d")
    write_manifest(path, [CLIP | {"id": "new"}], kind="recording")
    assert list(index) == list(content.records)[:2]
    assert index[1]["id"] == "ç"
    assert index[1]["audio"] == content.records[1]["audio"]
    assert index.rejects == content.rejects == {"not a JSON object": 1, "repeated id": 1, "long": 1}


def test_a_missing_manifest_says_so(tmp_path: Path) -> None:
    for read in (read_manifest, index_manifest):
        with pytest.raises(DataError, match="no such manifest"):
            read(tmp_path / "m.jsonl", kind="text")


def test_a_question_that_is_heard_may_have_no_words(tmp_path: Path) -> None:
    assert write_manifest(tmp_path / "m.jsonl", [_changed(0, text="")], kind="dialogue") == 1
    with pytest.raises(DataError, match="empty text"):
        write_manifest(tmp_path / "m.jsonl", [_changed(0, text="")], kind="text")
    with pytest.raises(DataError, match="empty text"):
        write_manifest(tmp_path / "m.jsonl", [_changed(1, text="", audio="a.wav")], kind="dialogue")
