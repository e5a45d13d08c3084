"""Benchmarks print what they measured, and both forms of stage 2.1 do the same."""

import json

import pytest
from typer.testing import CliRunner

from deeptalk.cli import app

SMALL = ("--rows", "2", "--positions", "8", "--steps", "2")


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_stage_2_1_with_and_without_masked_experts(model_folder):
    line = json.loads(run("dense", "--model", model_folder, "--experts", 2, *SMALL, "--json").stdout)
    assert line["name"] == "dense"
    assert (line["experts"], line["audio_experts"], line["experts_per_token"]) == (8, 2, 2)
    assert line["positions"] == 16
    left_out = 2 * 6 * 3 * 32 * 16 * 4  # layers, experts, matrices, widths, bytes
    assert line["masked_bytes"] - line["pruned_bytes"] == left_out
    assert line["bytes_ratio"] == line["pruned_bytes"] / line["masked_bytes"]
    assert line["time_ratio"] == pytest.approx(line["pruned_ms"] / line["masked_ms"])
    assert line["pruned_ms"] > 0
    assert 0 < line["gradient_difference"] < 1e-6
    assert "bytes_ratio" in run("dense", "--model", model_folder, "--experts", 3, *SMALL).stdout


def test_slips_are_one_line(model_folder):
    assert "not divided yet" in run("dense", "--model", model_folder, *SMALL, code=2).stderr
    assert "from 2" in run("dense", "--model", model_folder, "--experts", 1, *SMALL, code=2).stderr
