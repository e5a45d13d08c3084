"""All stages in two launched processes give the losses of one, and go on where a SIGKILL has stopped them."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from own_room import furnish
from preference_pairs import write_pairs
from safetensors.torch import load_file

from deeptalk.training.metrics import read_metrics

WAYS = {
    "ddp": ("--multi_gpu",),  # which starts processes on CPUs, too; --cpu starts one, whatever it is told
    "experts": ("--multi_gpu",),
    "zero2": ("--use_deepspeed", "--zero_stage", "2"),
    "zero2-offload": ("--use_deepspeed", "--zero_stage", "2", "--offload_optimizer_device", "cpu"),
    "zero3": ("--use_deepspeed", "--zero_stage", "3"),
    "fsdp2": ("--use_fsdp", "--fsdp_version", "2"),  # written for GPUs; torch runs it by gloo, too
}
DEEPSPEED = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="needs deeptalk[deepspeed]: make test-large"
)
OPTIONS = {"experts": ("--expert-parallel", "2")}
WITH_DEEPSPEED = [
    pytest.param(way, marks=DEEPSPEED if "zero" in way else ())
    for way in ("ddp", "experts", "fsdp2", "zero2", "zero3")
]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    furnish(folder)
    return folder


@pytest.fixture(scope="module")
def alone_root(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh(room, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def alone(alone_root: Path) -> dict[str, list[float]]:
    """The losses of one process that is launched by nobody."""
    return run([sys.executable], alone_root)


def fresh(room: Path, root: Path) -> Path:
    for name in ("own", "data"):
        shutil.copytree(room / name, root / name)
    return root


def run(launcher: list[str], root: Path, *arguments: str, dies: bool = False) -> dict[str, list[float]]:
    finished = subprocess.run(
        [*launcher, str(Path(__file__).with_name("launched_stages.py")), str(root), *arguments],
        env=ENVIRONMENT,
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
    if way == "torchrun":
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
    if processes == 1 and WAYS[way] == ("--multi_gpu",):
        return [sys.executable]
    quiet = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    command = ["-m", "accelerate.commands.launch", "--num_processes", str(processes), *quiet, *WAYS[way]]
    return [sys.executable, *command]


@pytest.mark.parametrize("way", WITH_DEEPSPEED)
def test_all_stages_give_the_losses_of_one_process(
    way: str, room: Path, alone_root: Path, alone: dict[str, list[float]], tmp_path: Path
) -> None:
    losses = run(launcher(way), fresh(room, tmp_path), *OPTIONS.get(way, ()))
    assert losses.keys() == alone.keys()
    assert len(alone) == 5
    for stage, expected in alone.items():
        assert losses[stage] == pytest.approx(expected, rel=1e-5), stage
        same_weights(tmp_path / stage, alone_root / stage)


def same_weights(one: Path, other: Path) -> None:
    """To less than a tenth of the 6e-5 by which the slowest of the stages moves its weights."""
    left, right = (load_file(root / "model/model.safetensors") for root in (one, other))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=0.0, atol=5e-6, msg=name)


@pytest.mark.parametrize("way", WITH_DEEPSPEED)
def test_a_killed_run_ends_as_one_that_was_not(way: str, room: Path, tmp_path: Path) -> None:
    whole, killed, fewer = (fresh(room, tmp_path / name) for name in ("whole", "killed", "fewer"))
    *before, stage = ("tiny-align", "tiny-audio-experts")[: 2 if way == "experts" else 1]
    stages, options = ("--stages", str(1 + len(before))), OPTIONS.get(way, ())
    expected = run(launcher(way), whole, *stages, *options)[stage]
    for name in before:
        shutil.copytree(whole / name, killed / name)
        shutil.copytree(whole / name, fewer / name)
    run(launcher(way), killed, *stages, *options, "--die-after", "3", dies=True)
    shutil.copytree(killed / stage, fewer / stage)
    assert run(launcher(way), killed, *stages, *options)[stage] == expected[2:]
    results = [(root / stage / "model/model.safetensors").read_bytes() for root in (whole, killed)]
    assert results[0] == results[1]
    # one process goes on, with all micro-batches: the same but for rounding
    losses = run(launcher(way, processes=1), fewer, *stages)[stage]
    assert losses == pytest.approx(expected[2:], rel=1e-4)
    same_weights(fewer / stage, whole / stage)


@pytest.mark.parametrize("way", WITH_DEEPSPEED[3:])
def test_the_verb_trains_through_all_stages_and_goes_on_after_a_kill(
    way: str, room: Path, alone: dict[str, list[float]], tmp_path: Path
) -> None:
    root = fresh(room, tmp_path)
    *before, last = alone
    for stage in before:
        told = train(way, root, stage)
        assert told["step"] == len(alone[stage])
        assert not told["is_interrupted"]
    write_pairs(root / before[-1] / "model", root / "data")
    train(way, root, last, die_after=3)
    metrics = root / last / "run" / "metrics.jsonl"
    assert len(read_metrics(metrics)) == 3
    assert train(way, root, last, "--resume")["step"] == 4
    for stage, expected in alone.items():
        lines = read_metrics(root / stage / "run" / "metrics.jsonl")
        assert [line["loss"] for line in lines] == pytest.approx(expected, rel=1e-5), stage
    assert "step" not in train(way, root, last, "--resume")  # it is finished


def test_the_verb_divides_the_experts_of_processes_that_torchrun_starts(
    room: Path, alone_root: Path, alone: dict[str, list[float]], tmp_path: Path
) -> None:
    root, (before, stage, *_) = fresh(room, tmp_path), alone
    shutil.copytree(alone_root / before, root / before)
    told = train("torchrun", root, stage, "--expert-parallel", "2", "--dense")
    assert told["step"] == len(alone[stage])
    lines = read_metrics(root / stage / "run" / "metrics.jsonl")
    assert [line["loss"] for line in lines] == pytest.approx(alone[stage], rel=1e-5)
    same_weights(root / stage, alone_root / stage)


def test_two_groups_divide_the_experts_of_a_family_without_shared_ones(tmp_path: Path) -> None:
    room, roots = tmp_path / "room", (tmp_path / "alone", tmp_path / "groups")
    furnish(room, family="qwen3_moe")
    alone, groups = (fresh(room, root) for root in roots)
    stages = ("--stages", "4")
    expected = run([sys.executable], alone, *stages)
    losses = run(launcher("experts", processes=4), groups, *stages, *OPTIONS["experts"])
    assert len(losses) == 4
    for stage, values in losses.items():
        assert values == pytest.approx(expected[stage], rel=1e-5), stage
        same_weights(groups / stage, alone / stage)


def train(way: str, root: Path, stage: str, *arguments: str, die_after: int | None = None) -> dict[str, Any]:
    """`accelerate launch … -m deeptalk train STAGE`, and what it tells; its first process may kill itself."""
    here = Path(__file__).parent
    verb = ("-m", "deeptalk", "train", stage, "--recipes", str(here / "dying_recipes.py"))
    finished = subprocess.run(
        [*launcher(way), *verb, "--root", str(root), "--share", "--json", *arguments],
        env=ENVIRONMENT
        | {"PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
        | ({} if die_after is None else {"DIE_AFTER": str(die_after)}),
        capture_output=True,
        text=True,
        timeout=900,
    )
    if die_after is not None:
        assert finished.returncode != 0
        assert "Signal 9 (SIGKILL)" in finished.stderr
        return {}
    assert finished.returncode == 0, finished.stderr[-3000:]
    (told,) = (json.loads(line) for line in finished.stdout.splitlines() if line.startswith('{"recipe'))
    return told


@DEEPSPEED
def test_weights_in_bf16_and_offload(room: Path, alone: dict[str, list[float]], tmp_path: Path) -> None:
    offloaded = run(launcher("zero2-offload"), fresh(room, tmp_path / "offload"), "--stages", "1")
    assert offloaded["tiny-align"] == pytest.approx(alone["tiny-align"], rel=1e-5)
    rounded = run(launcher("zero3"), fresh(room, tmp_path / "bf16"), "--stages", "2", "--bf16")
    for stage, losses in rounded.items():
        assert losses == pytest.approx(alone[stage], rel=0.03)
