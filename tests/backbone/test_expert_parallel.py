"""Experts divided among processes by the stock library's plan are chosen under our masks as before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deeptalk.backbone.tiny import FAMILIES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v2"])
def test_two_processes_share_the_experts_of_a_masked_model(name: str, tmp_path: Path) -> None:
    distributed = pytest.importorskip("transformers.distributed")
    if "ep_size" not in getattr(distributed.DistributedConfig, "__dataclass_fields__", {}):
        pytest.skip("this version of transformers takes no ep_size")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**FAMILIES[name])).save_pretrained(tmp_path)
    script = Path(__file__).with_name("expert_parallel.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    finished = subprocess.run(
        [sys.executable, *command, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "the same" in finished.stdout
