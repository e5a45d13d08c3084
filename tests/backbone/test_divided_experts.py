"""Three processes that hold the experts of a model together compute what one does, forward and backward."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


@pytest.mark.slow
def test_experts_in_three_processes_are_those_of_one() -> None:
    script = Path(__file__).with_name("divided_experts.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", str(script)]
    finished = subprocess.run(
        [sys.executable, *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    told = json.loads(next(line for line in finished.stdout.splitlines() if line.startswith("[{")))
    first_layer = {case: [process[case][:4] for process in told] for case in told[0]}
    # two stacked tensors of each bank: all eight experts; text and audio; four that are left; copies of two
    assert first_layer["qwen3_moe/leave/nothing"] == [[3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2]]
    assert first_layer["qwen3_moe/split/nothing"] == [[2, 2, 1, 1], [1, 1, 2, 2], [1, 1, 1, 1]]
    assert first_layer["qwen3_moe/split_unevenly/nothing"] == [[2, 2, 1, 1], [2, 2, 1, 1], [2, 2, 0, 0]]
    assert first_layer["deepseek_v2/prune/nothing"] == [[2, 2, 2, 2], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert first_layer["deepseek_v2/copy_some/nothing"] == [[3, 3, 1, 1], [3, 3, 0, 0], [2, 2, 1, 1]]
