"""Profile, partition and doctor on a random model and a few written dialogues."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.experts import read_load, read_partition

DIALOGUES = [("what is red", "a colour"), ("what is two and two", "four"), ("who are you", "a model")]


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [
        json.dumps(
            {"id": str(i), "messages": [{"role": "user", "text": ask}, {"role": "assistant", "text": answer}]}
        )
        for i, (ask, answer) in enumerate(DIALOGUES)
    ]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def load(data: Path, model_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "new" / "load.json"
    given = (
        "--audio",
        "texts:text_to_text",
        "--text",
        "texts:text_to_text",
        "--batches",
        2,
        "--positions",
        64,
    )
    output = run("profile", "--model", model_folder, "--data", data, *given, "--out", path).stdout
    assert "mixture-of-experts layer 1" in output
    return path


def test_profile_counts_every_choice(load):
    counts = read_load(load)
    per_token = counts.count.sum(dim=-1) / counts.num_tokens.clamp(min=1)
    assert set(per_token[counts.num_tokens > 0].tolist()) == {2.0}
    assert json.loads(load.read_text())["provenance"]["audio"] == ["texts:text_to_text"]


def test_partition_writes_what_it_chose(load, tmp_path):
    out = tmp_path / "partition.json"
    line = json.loads(run("partition", load, "--experts", 3, "--out", out, "--json").stdout)
    partition = read_partition(out)
    assert partition.is_audio.sum(dim=1).tolist() == [3, 3]
    assert [tuple(layer) for layer in line["audio_experts"]] == list(partition.audio_experts)
    assert "audio experts" in run("partition", load, "--experts", 3, "--out", out).stdout


def test_impossible_wishes_are_one_line(load, data, model_folder, tmp_path):
    out = ("--out", tmp_path / "x.json")
    assert "num_audio_experts" in run("partition", load, "--experts", 8, *out, code=2).stderr
    assert "profile" in run("partition", data / "texts.jsonl", "--experts", 3, *out, code=2).stderr
    given = ("profile", "--model", model_folder, "--data", data, *out, "--audio")
    assert "MANIFEST:TASK" in run(*given, "texts", code=2).stderr
    assert "there is no task" in run(*given, "texts:sing", code=2).stderr
    assert "no such manifest" in run(*given, "songs:text_to_text", code=2).stderr


def test_figure_is_drawn(data, model_folder, tmp_path):
    pytest.importorskip("matplotlib")
    given = (
        "--audio",
        "texts:text_to_text",
        "--text",
        "texts:text_to_text",
        "--batches",
        1,
        "--positions",
        64,
    )
    where = ("--out", tmp_path / "load.json", "--figure", tmp_path / "load.png")
    run("profile", "--model", model_folder, "--data", data, *given, *where)
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


def test_doctor_finds_a_sound_model_sound(model_folder, data, short_answers):
    lines = run("doctor", "--model", model_folder, "--data", data, "--json").stdout.splitlines()
    findings = {line["name"]: line for line in map(json.loads, lines)}
    assert all(finding["state"] != "wrong" for finding in findings.values())
    assert "3 records" in findings["texts.jsonl"]["detail"]
    assert "7 x 32 codes every 85.3 ms" in findings["codec"]["detail"]
    assert findings["one turn"]["detail"].startswith("3 frames")


def test_doctor_names_what_is_wrong(data, tmp_path):
    (data / "texts.jsonl").write_text((data / "texts.jsonl").read_text() + '{"id": "x", "messages": []}\n')
    output = run("doctor", "--model", tmp_path / "nowhere", "--data", data, code=2).stdout
    assert "nowhere" in output
    assert "left out: 1 no messages" in output
