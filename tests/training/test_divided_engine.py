"""Experts divided among processes that train: two groups of two take the steps of one process."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from own_recipes import TINY_ALIGN, TINY_JOINT
from typer.testing import CliRunner

from deeptalk.backbone.divided import expert_parameters
from deeptalk.cli import app
from deeptalk.errors import ConfigError
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.recipes import RECIPES
from deeptalk.training.expert_parallel import check_divisible
from deeptalk.training.launch import groups_of
from deeptalk.training.memory import least_bytes
from deeptalk.training.optim import AdamW8bit
from deeptalk.training.run import run_stage

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


def processes(number: int, index: int = 0) -> Any:
    return SimpleNamespace(num_processes=number, process_index=index)


@pytest.mark.slow
def test_two_groups_of_two_take_the_steps_of_one_and_hold_half_the_experts_each(tmp_path: Path) -> None:
    script = Path(__file__).with_name("divided_engine.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", str(script)]
    finished = subprocess.run(
        [sys.executable, *command, str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    told = json.loads(next(line for line in finished.stdout.splitlines() if line.startswith('{"adamw')))
    kept = {"adamw": 2, "muon": 1, "masters": 6}  # moments, momentum, a master and moments in four bytes
    assert told.keys() == kept.keys()
    for name, case in told.items():
        held, whole = case["held"], case["whole"]
        assert [process["experts"] for process in held] == [whole["experts"] // 2] * 4
        assert held[0] == held[2]
        assert held[1] == held[3]
        assert held[0]["expert_states"] + held[1]["expert_states"] == kept[name] * whole["trained"]
        assert held[0]["rest"] == held[1]["rest"]


def test_neighbours_make_a_group() -> None:
    groups = [groups_of(processes(6, index), size=2) for index in range(6)]
    assert [group.index for group in groups] == [0, 0, 1, 1, 2, 2]
    assert [group.is_first for group in groups] == [True, False] * 3
    assert {group.number for group in groups} == {3}
    assert groups_of(processes(6, 4)).index == 4
    with pytest.raises(ConfigError, match=r"--expert-parallel 4: .* can't be made of 6; launch a multiple"):
        groups_of(processes(6), size=4)


@pytest.mark.parametrize("launcher", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"])
def test_experts_are_divided_in_one_way_only(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launcher, "true")
    with pytest.raises(ConfigError, match="launch without DeepSpeed and FSDP"):
        groups_of(processes(2), size=2)


def test_what_cant_be_divided_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    refused = {
        "no average": dataclasses.replace(TINY_JOINT, average=0.9),
        "take AdamW or Muon": dataclasses.replace(TINY_JOINT, optim=AdamW8bit(lr=0.1)),
        "trains no experts": RECIPES["pocket-codec-ahead"],
    }
    for told, recipe in refused.items():
        with pytest.raises(ConfigError, match=told):
            check_divisible(recipe)
        with pytest.raises(ConfigError, match=told):
            next(run_stage(recipe, root=tmp_path, expert_parallel=2, accelerator=processes(2)))
    with pytest.raises(ConfigError, match="--compile and --expert-parallel"):
        next(run_stage(TINY_ALIGN, root=tmp_path, expert_parallel=2, compiled=True, accelerator=processes(2)))
    own = ["--recipes", str(Path(__file__).with_name("own_recipes.py")), "--root", str(tmp_path)]
    result = CliRunner().invoke(app, ["train", "tiny-align", *own, "--expert-parallel", "2"])
    assert result.exit_code == 2
    assert "can't be made of 1; launch a multiple" in " ".join(result.output.split())


def test_memory_counts_a_share_of_the_experts() -> None:
    with torch.device("meta"):
        model = DeepTalk(DeepTalkConfig.tiny())
    model.requires_grad_(False)
    experts = 4 * sum(parameter.numel() for parameter in expert_parameters(model))
    whole = least_bytes(model, TINY_JOINT)
    assert least_bytes(model, TINY_JOINT, num_processes=8, expert_parallel=4) == whole - experts * 3 // 4
