"""Models leave for other programs, and come from them, by a command."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig
from typer.testing import CliRunner

from deeptalk.cli import app


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def export(model: Path | str, out: Path, *more: object, code: int = 0):
    return run("export", model, "--to", "transformers", "--out", out, *more, code=code)


def test_export_tells_what_it_wrote(model_folder: Path, tmp_path: Path) -> None:
    (line,) = export(model_folder, tmp_path / "text", "--json").stdout.splitlines()
    told = json.loads(line)
    assert told == {
        "to": "transformers",
        "folder": str(tmp_path / "text"),
        "architecture": "DeepseekV2ForCausalLM",
        "dtype": "float32",
        "num_parameters": told["num_parameters"],
        "num_weight_files": 1,
        "is_embedding_fused": False,
        "is_chat_exact": told["is_chat_exact"],
    }
    assert AutoConfig.from_pretrained(tmp_path / "text").model_type == "deepseek_v2"
    assert "DeepseekV2ForCausalLM" in export(model_folder, tmp_path / "again").stdout


@pytest.mark.parametrize(
    ("model", "more", "reason"),
    [
        ("nowhere", (), "There is no model 'nowhere'"),
        (None, ("--max-shard-size", "many"), "--max-shard-size must be like 500MB or 5GB, got 'many'"),
    ],
)
def test_what_cannot_be_exported_is_one_line(model_folder: Path, tmp_path: Path, model, more, reason) -> None:
    result = export(model or model_folder, tmp_path / "out", *more, code=2)
    (line,) = result.stderr.splitlines()
    assert reason in line
    assert not list(tmp_path.iterdir())
