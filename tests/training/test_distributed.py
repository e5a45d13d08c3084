"""Two gloo processes take the same steps as one process with twice the micro-batches."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_loop import RECIPE, Stream, linear, run


@pytest.mark.slow
def test_two_processes_equal_one_that_accumulates(tmp_path: Path):
    script = Path(__file__).with_name("two_processes.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    finished = subprocess.run(
        [sys.executable, *command, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    result = torch.load(tmp_path / "result.pt", weights_only=True)

    reports = run(model := linear(), dataclasses.replace(RECIPE, accumulate=2), Stream(sizes=(1, 5)))
    assert result["losses"] == pytest.approx([report.loss for report in reports], rel=1e-5)
    torch.testing.assert_close(result["weight"], model.weight.detach())
