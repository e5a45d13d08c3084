"""All stages in two launched processes give the losses of one, and go on where a SIGKILL has stopped them."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from own_room import furnish

WAYS = {
    "ddp": ("--cpu",),
    "zero2": ("--use_deepspeed", "--zero_stage", "2"),
    "zero2-offload": ("--use_deepspeed", "--zero_stage", "2", "--offload_optimizer_device", "cpu"),
    "zero3": ("--use_deepspeed", "--zero_stage", "3"),
    "fsdp2": ("--use_fsdp", "--fsdp_version", "2"),  # written for GPUs; torch runs it by gloo, too
}
DEEPSPEED = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="needs deeptalk[deepspeed]: make test-large"
)
WITH_DEEPSPEED = [
    pytest.param(way, marks=DEEPSPEED if "zero" in way else ()) for way in ("ddp", "fsdp2", "zero2", "zero3")
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    furnish(folder)
    return folder


@pytest.fixture(scope="module")
def alone(room: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The losses of one process that is launched by nobody."""
    return run([sys.executable], fresh(room, tmp_path_factory.mktemp("alone")))


def fresh(room: Path, root: Path) -> Path:
    for name in ("own", "data"):
        shutil.copytree(room / name, root / name)
    return root


def run(launcher: list[str], root: Path, *arguments: str, dies: bool = False) -> dict[str, list[float]]:
    finished = subprocess.run(
        [*launcher, str(Path(__file__).with_name("launched_stages.py")), str(root), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    if dies:
        assert finished.returncode != 0
        return {}
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(next(line for line in finished.stdout.splitlines() if line.startswith('{"tiny')))


def launcher(way: str, *, processes: int = 2) -> list[str]:
    quiet = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    command = ["-m", "accelerate.commands.launch", "--num_processes", str(processes), *quiet, *WAYS[way]]
    return [sys.executable, *command]


@pytest.mark.parametrize("way", WITH_DEEPSPEED)
def test_all_stages_give_the_losses_of_one_process(
    way: str, room: Path, alone: dict[str, list[float]], tmp_path: Path
) -> None:
    losses = run(launcher(way), fresh(room, tmp_path))
    assert losses.keys() == alone.keys()
    assert len(alone) == 4
    for stage, expected in alone.items():
        assert losses[stage] == pytest.approx(expected, rel=1e-5), stage


@pytest.mark.parametrize("way", WITH_DEEPSPEED)
def test_a_killed_run_ends_as_one_that_was_not(way: str, room: Path, tmp_path: Path) -> None:
    whole, killed, fewer = (fresh(room, tmp_path / name) for name in ("whole", "killed", "fewer"))
    one_stage = ("--stages", "1")
    expected = run(launcher(way), whole, *one_stage)["tiny-align"]
    run(launcher(way), killed, *one_stage, "--die-after", "3", dies=True)
    shutil.copytree(killed / "tiny-align", fewer / "tiny-align")
    assert run(launcher(way), killed, *one_stage)["tiny-align"] == expected[2:]
    results = [(root / "tiny-align/model/model.safetensors").read_bytes() for root in (whole, killed)]
    assert results[0] == results[1]
    # half as many processes go on, each with twice the micro-batches: the same but for rounding
    losses = run(launcher(way, processes=1), fewer, *one_stage)["tiny-align"]
    assert losses == pytest.approx(expected[2:], rel=1e-4)


@DEEPSPEED
def test_weights_in_bf16_and_offload(room: Path, alone: dict[str, list[float]], tmp_path: Path) -> None:
    offloaded = run(launcher("zero2-offload"), fresh(room, tmp_path / "offload"), "--stages", "1")
    assert offloaded["tiny-align"] == pytest.approx(alone["tiny-align"], rel=1e-5)
    rounded = run(launcher("zero3"), fresh(room, tmp_path / "bf16"), "--stages", "2", "--bf16")
    for stage, losses in rounded.items():
        assert losses == pytest.approx(alone[stage], rel=0.03)
