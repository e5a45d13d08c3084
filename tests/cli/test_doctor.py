"""``deeptalk doctor`` on language models that are to become DeepTalk models, and on every family."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from typer.testing import CliRunner

from deeptalk.backbone import open_backbone
from deeptalk.backbone.stock import save_stock
from deeptalk.backbone.tiny import FAMILIES
from deeptalk.cli import app
from deeptalk.errors import ConfigError


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def findings(*arguments: object, code: int = 0) -> dict[str, Any]:
    lines = run(*arguments, "--json", code=code).stdout.splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "moe"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_stock(open_backbone(dict(FAMILIES["qwen3_moe"])), path, shard_size="40KB")
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(90)}, unk_token="w0")).save(
        str(path / "tokenizer.json")
    )
    return path


def test_a_language_model_is_told_with_sizes_and_memory(folder: Path) -> None:
    found = findings(folder, "--gpu-gib", 80, "--num-gpus", 2)
    assert all(finding["state"] != "wrong" for finding in found.values())
    figures = found["backbone"]["figures"]
    assert figures == {
        "family": "qwen3_moe",
        "router": "Qwen3MoeTopKRouter",
        "selection": "softmax, then top-k",
        "num_moe_layers": 3,
        "num_experts": 8,
        "experts_per_token": 3,
    }
    sizes = found["parameters"]["figures"]
    assert sizes["one_expert"] == 3 * 24 * 32
    assert sizes["audio_experts"] == 3 * 3 * sizes["one_expert"]
    assert sizes["text_experts"] == 3 * 5 * sizes["one_expert"]
    assert sizes["total"] == sum(sizes[part] for part in ("audio_experts", "text_experts", "other"))
    weights = found["weights"]["figures"]
    assert (weights["num_bytes"], weights["dtypes"]) == (4 * sizes["total"], ["F32"])
    assert found["tokenizer"]["figures"] == {"num_ids": 90}
    stages = {name: one["figures"] for name, one in found.items() if name.startswith("stage ")}
    assert list(stages) == [
        "stage align",
        "stage audio-experts",
        "stage audio-experts --dense",
        "stage text-experts",
        "stage joint",
        "stage preference",
    ]
    joint = stages["stage joint"]
    assert (joint["num_gpus"], joint["fits"]) == (2, True)
    assert joint["zero3_bytes"] < joint["zero2_bytes"] < joint["one_gpu_bytes"]
    assert joint["zero3_bytes"] < joint["expert_parallel_bytes"] < joint["one_gpu_bytes"]


def test_the_table_is_for_people(folder: Path) -> None:
    table = run(folder, "--gpu-gib", 80).stdout
    assert "qwen3_moe, softmax, then top-k (Qwen3MoeTopKRouter); 3 layers of 8 experts, 3 per token" in table
    assert "each has its place" in table
    assert "GiB on one GPU" in table


def test_a_stage_that_does_not_fit_is_wrong(folder: Path) -> None:
    found = findings(folder, "--gpu-gib", 0.5, code=2)
    states = {name: finding["state"] for name, finding in found.items() if name.startswith("stage ")}
    assert states["stage align"] == "wrong"
    assert found["stage align"]["figures"]["fits"] is False
    assert "more than the 0.5 GiB of a GPU" in found["stage align"]["detail"]


def test_a_model_whose_experts_cannot_be_divided_is_told(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_experts_per_tok": 8}))
    found = findings(folder, code=2)
    assert "each bank needs at least one expert" in found["stages"]["detail"]


def test_gpus_of_unknown_size_are_planned_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    stage = findings(folder, "--num-gpus", 4)["stage joint"]
    assert (stage["figures"]["num_gpus"], stage["figures"]["fits"]) == (4, None)
    assert "each of 4 (ZeRO-2)" in stage["detail"]


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.unlink()
    found = findings(folder, code=2)
    assert found["tokenizer"]["state"] == found["weights"]["state"] == "wrong"
    assert shard.name in found["weights"]["detail"]
    assert found["backbone"]["state"] == "ok"


def test_a_dense_model_is_refused_in_one_line(folder: Path) -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
    found = findings("--model", folder, code=2)
    assert "no routed experts" in found["backbone"]["detail"]
    assert "parameters" not in found


def test_a_model_of_the_hub_that_is_not_downloaded_is_no_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in folder.glob("model-*.safetensors"):
        shard.unlink()
    monkeypatch.setattr("deeptalk.backbone.checkpoint.snapshot_download", lambda *a, **k: str(folder))
    found = findings("someone/small-moe")
    assert found["weights"]["state"] == "absent"
    assert "not downloaded yet" in found["weights"]["detail"]


def test_families_are_a_table_with_a_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def conform(name: str, folder: Path) -> Any:
        if name == "olmoe":
            raise ConfigError("its router is another one.")
        return conformed(name, folder)

    from deeptalk.cli import conformance

    conformed = conformance.conform
    few = {name: FAMILIES[name] for name in ("olmoe", "mixtral")}
    monkeypatch.setattr(conformance, "FAMILIES", few)
    monkeypatch.setattr(conformance, "conform", conform)
    found = findings("--families", code=2)
    assert {name: finding["state"] for name, finding in found.items()} == {"olmoe": "wrong", "mixtral": "ok"}
    assert found["olmoe"]["detail"] == "its router is another one."
    assert list(found["mixtral"]["figures"]) == [
        "family",
        "router",
        "selection",
        "num_shards",
        "stages",
        "open_difference",
        "stock_difference",
    ]
    monkeypatch.setattr(conformance, "FAMILIES", {"mixtral": FAMILIES["mixtral"]})
    assert "softmax, then top-k" in run("--families").stdout
