"""Profile, partition and doctor on a random model and a few written dialogues."""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.cli.checks import check_data
from deeptalk.cli.figure import load_figure
from deeptalk.cli.opening import open_model
from deeptalk.experts import random_partition, read_load, read_partition, write_partition
from deeptalk.experts.partition import partition_at_random
from deeptalk.model import save

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
    (folder / "codes").mkdir()
    np.save(folder / "codes" / "answers.said.npy", np.zeros((3, 4), dtype=np.int16))  # no codes
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


def test_profile_counts_every_choice(load, data):
    texts = data / "texts.jsonl"
    counts = read_load(load)
    per_token = counts.count.sum(dim=-1) / counts.num_tokens.clamp(min=1)
    assert set(per_token[counts.num_tokens > 0].tolist()) == {2.0}
    note = json.loads(load.read_text())["provenance"]
    assert note["audio"] == ["texts:text_to_text"]
    assert re.fullmatch("[0-9a-f]{16}", note["model_hash"])
    assert note["data_hashes"] == {"texts": sha256(texts.read_bytes()).hexdigest()[:16]}


def test_a_model_in_bf16_is_profiled_in_it(data: Path, model_folder: Path, tmp_path: Path):
    folder, out, texts = tmp_path / "bf16", tmp_path / "load.json", "texts:text_to_text"
    save(
        open_model(str(model_folder)).model,
        folder,
        tokenizer_path=model_folder / "tokenizer.json",
        provenance={},
        dtype=torch.bfloat16,
    )
    shutil.copytree(model_folder / "codec", folder / "codec")
    assert {p.dtype for p in open_model(str(folder)).model.parameters()} == {torch.bfloat16}
    given = ("--audio", texts, "--text", texts, "--batches", 1, "--positions", 64, "--out", out)
    run("profile", "--model", folder, "--data", data, *given)
    assert read_load(out).count.sum()
    assert (
        "no device 'nowhere' here"
        in run("profile", "--model", folder, "--data", data, *given, "--device", "nowhere", code=2).stderr
    )


def test_partition_writes_what_it_chose(load, tmp_path):
    out = tmp_path / "partition.json"
    line = json.loads(run("partition", load, "--experts", 3, "--out", out, "--json").stdout)
    partition = read_partition(out)
    assert partition.is_audio.sum(dim=1).tolist() == [3, 3]
    assert [tuple(layer) for layer in line["audio_experts"]] == list(partition.audio_experts)
    assert line["input_audio_experts"]
    assert (line["round"], line["overlap_with_previous"], line["is_settled"]) == (1, None, False)
    saved = json.loads(out.read_text())
    assert saved["provenance"]["model_hash"] == json.loads(load.read_text())["provenance"]["model_hash"]
    text = run("partition", load, "--experts", 3, "--out", out).stdout
    assert all(words in text for words in ("audio experts", "by input alone", "even and odd", "rate-share"))


def test_a_round_tells_how_far_the_choice_has_moved(load, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    drawn = json.loads(
        run("partition", load, "--experts", 3, "--at-random", 7, "--out", first, "--json").stdout
    )
    assert json.loads(first.read_text())["options"]["seed"] == 7
    assert drawn["hash"] == partition_at_random(7, read_load(load), num_audio_experts=3).hash
    given = ("partition", load, "--experts", 3, "--at-random", 7, "--previous", first, "--out", second)
    line = json.loads(run(*given, "--json").stdout)
    assert (line["round"], line["overlap_with_previous"], line["is_settled"]) == (2, 1.0, True)
    assert [one["overlap"] for one in json.loads(second.read_text())["rounds"]] == [None, 1.0]
    assert "round 2: 100 % as in the round before; the choice has come to rest" in run(*given).stdout
    out = tmp_path / "third.json"
    given = ("partition", load, "--experts", 3, "--at-random", 8, "--previous", second, "--out", out)
    assert "round 3" in (text := run(*given).stdout)
    assert "another round may move it" in text


def test_rounds_of_another_backbone_are_refused(load, tmp_path):
    other, out = tmp_path / "other.json", tmp_path / "x.json"
    partition = random_partition(0, num_layers=2, num_experts=9, num_audio_experts=3, experts_per_token=2)
    write_partition(other, partition, options={}, provenance={})
    given = ("partition", load, "--experts", 3, "--out", out)
    assert "different backbones" in run(*given, "--previous", other, code=2).stderr
    assert "stop_overlap" in run(*given, "--stop-overlap", 2, code=2).stderr
    assert not out.exists()


def test_impossible_wishes_are_one_line(load, data, model_folder, tmp_path):
    out = ("--out", tmp_path / "x.json")
    assert "num_audio_experts" in run("partition", load, "--experts", 8, *out, code=2).stderr
    assert "profile" in run("partition", data / "texts.jsonl", "--experts", 3, *out, code=2).stderr
    given = ("profile", "--model", model_folder, "--data", data, *out, "--audio")
    assert "MANIFEST:TASK" in run(*given, "texts", code=2).stderr
    assert "there is no task" in run(*given, "texts:sing", code=2).stderr
    assert "no such manifest" in run(*given, "songs:text_to_text", code=2).stderr


def test_figures_show_three_layers_and_maps_of_all(load):
    pytest.importorskip("matplotlib")
    counts = read_load(load)
    figure = load_figure(counts)
    titles = [place.get_title() for place in figure.axes[:6]]
    assert titles == ["layer 0", "layer 1", "layer 1", "audio", "text", "score: audio (1 - text)"]
    rates = counts.normalised("rate")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([*rates[0, 0].tolist(), *rates[1, 0].tolist()])
    assert figure.axes[3].images[0].get_array().tolist() == rates[0].tolist()


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
    where = ("--out", tmp_path / "new.json", "--figure", tmp_path / "load.xyz")
    assert "names no kind of figure" in run("profile", "--model", model_folder, *where, code=2).stderr
    assert not (tmp_path / "new.json").exists()


def test_doctor_finds_a_sound_model_sound(model_folder, data, short_answers):
    lines = run("doctor", "--model", model_folder, "--data", data, "--json").stdout.splitlines()
    findings = {line["name"]: line for line in map(json.loads, lines)}
    assert all(finding["state"] != "wrong" for finding in findings.values())
    assert "3 records" in findings["texts.jsonl"]["detail"]
    assert "7 x 32 codes every 85.3 ms" in findings["codec"]["detail"]
    assert findings["one turn"]["detail"].startswith("3 frames")


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("", "absent", "no records"),
        ('{"id": "1", "question": "?", "answers": ["x"]}\n', "ok", "questions to ask"),
        ('{"id": "1", "odd": "?"}\n', "wrong", "no record of a known kind"),
        ("{}\n", "wrong", "no record of a known kind"),
        ("[]\n", "wrong", "no record of a known kind"),
        ("broken\n", "wrong", "no record of a known kind"),
    ],
)
def test_doctor_tells_manifests_from_other_lines(tmp_path, text, state, words):
    (tmp_path / "some.jsonl").write_text(text)
    (finding,) = check_data(tmp_path)
    assert (finding.name, finding.state) == ("some.jsonl", state)
    assert words in finding.detail


def test_doctor_names_what_is_wrong(data, tmp_path):
    (data / "texts.jsonl").write_text((data / "texts.jsonl").read_text() + '{"id": "x", "messages": []}\n')
    output = run("doctor", "--model", tmp_path / "nowhere", "--data", data, code=2).stdout
    assert "nowhere" in output
    assert "left out: 1 no messages" in output
