"""bench train: the loop is timed on a random model, and its figures hang together."""

import json

import pytest
from typer.testing import CliRunner

from deeptalk.cli import app


def bench(*arguments: str):
    return CliRunner().invoke(app, ["bench", "train", *arguments])


@pytest.mark.parametrize("stage", ["joint", "audio-experts"])
def test_a_stage_of_the_tiny_model(stage: str) -> None:
    dense = ["--dense"] if stage == "audio-experts" else []
    result = bench("--stage", stage, "--steps", "1", "--positions", "64", "--json", *dense)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told) == {
        *("name", "stage", "size", "dense", "steps", "positions", "processes", "device", "weights"),
        *("tokens_per_second", "flops_per_token", "use_6n", "use_frozen_aware"),
        *("peak_tflops", "peak_tflops_from", "peak_bytes", "predicted_bytes"),
    }
    assert told["positions"] == 64
    assert told["peak_tflops_from"] == "measured"
    assert 0 < told["use_frozen_aware"] <= told["use_6n"]
    used = told["tokens_per_second"] * told["flops_per_token"] / (told["peak_tflops"] * 1e12)
    assert used == pytest.approx(told["use_frozen_aware"])
    assert told["peak_bytes"] > told["predicted_bytes"] > 0


def test_what_can_not_be_measured_is_told() -> None:
    refused = bench("--stage", "joint", "--dense")
    assert refused.exit_code == 2
    assert "only stage 2.1" in refused.stderr
    import torch

    if not torch.cuda.is_available():
        refused = bench("--size", "full")
        assert refused.exit_code == 2
        assert "31 GB" in refused.stderr
