"""What large models need of the loop: parts computed again or in pieces, rounded weights, honest ends."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_loop import RECIPE, Squares, Stream, linear, run
from torch import nn

from deeptalk.cli.conformance import _batch
from deeptalk.data.mixture import BatchStream, Draw, MixturePlan
from deeptalk.errors import ConfigError, DataError
from deeptalk.experts import ExpertPartition, Routing, router_mask
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.training import memory
from deeptalk.training.checkpoint import checkpoints, generator_states
from deeptalk.training.loss import chunked_cross_entropy
from deeptalk.training.manifest import read_manifest
from deeptalk.training.optim import AdamW, AdamW8bit, MasterAdamW
from deeptalk.training.states import _packed, _unpacked
from deeptalk.training.supervised import Supervised
from deeptalk.training.work import work_of


@pytest.mark.parametrize("chunk", [1, 5, 12, 100])
def test_a_head_in_chunks_gives_the_same_loss_and_gradients(chunk: int) -> None:
    torch.manual_seed(0)
    head = nn.Linear(8, 31, bias=False, dtype=torch.float64)
    hidden = torch.randn(12, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(31, (12,))
    whole = F.cross_entropy(head(hidden).float(), labels, reduction="sum")
    expected = torch.autograd.grad(whole, (hidden, head.weight))
    pieces = chunked_cross_entropy(head, hidden, labels, chunk=chunk)
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-6)
    for got, wanted in zip(torch.autograd.grad(pieces, (hidden, head.weight)), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)
    none = chunked_cross_entropy(head, hidden[:0], labels[:0], chunk=chunk)
    assert none.item() == 0.0
    with pytest.raises(ConfigError, match="text_chunk"):
        Supervised(text_chunk=0)


@pytest.mark.parametrize("routing", [Routing(), Routing(text="audio", audio="audio")])
def test_what_is_computed_again_routes_as_before(routing: Routing) -> None:
    gradients = {}
    for how in ("none", "experts", "layers"):
        torch.manual_seed(0)
        model = DeepTalk(DeepTalkConfig.tiny())
        shape = model.backbone.layers
        table = torch.arange(shape.num_experts).expand(shape.num_moe_layers, -1) < 3
        model.split(table)
        batch = _batch(model.layout, "what", "who")
        partition = ExpertPartition(is_audio=table, experts_per_token=shape.experts_per_token)
        mask = None if routing.is_free else router_mask(partition, routing)
        objective = Supervised(balance_weight=0.1, router_mask=mask, text_chunk=None if how == "none" else 3)
        if how == "experts":
            model.backbone.recompute_experts()
        elif how == "layers":
            model.backbone.enable_checkpointing()
        sums = objective.sums(model.train(), batch, generator=torch.Generator().manual_seed(0))
        objective.total(sums, objective.counts(batch)).backward()
        gradients[how] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for how in ("experts", "layers"):
        assert gradients[how].keys() == gradients["none"].keys()
        for name, expected in gradients["none"].items():
            torch.testing.assert_close(gradients[how][name], expected, rtol=1e-5, atol=1e-7)


def test_weights_in_bf16_follow_masters_in_fp32() -> None:
    torch.manual_seed(0)
    exact, rounded = nn.Linear(6, 4), nn.Linear(6, 4)
    rounded.load_state_dict(exact.state_dict())
    rounded.bfloat16()
    start = {n: p.detach().float() for n, p in rounded.named_parameters()}
    with torch.no_grad():
        for name, parameter in exact.named_parameters():
            parameter.copy_(start[name])
    settings = AdamW(lr=1e-3, weight_decay=0.1)
    plain, masters = settings.build(exact), settings.build(rounded)
    assert type(plain) is torch.optim.AdamW
    assert isinstance(masters, MasterAdamW)
    for step in range(5):
        for (_, one), (_, other) in zip(exact.named_parameters(), rounded.named_parameters(), strict=True):
            other.grad = torch.randn(other.shape, generator=torch.Generator().manual_seed(step)).bfloat16()
            one.grad = other.grad.float()
        plain.step()
        masters.step()
        masters.zero_grad()
    for (_, one), (_, other) in zip(exact.named_parameters(), rounded.named_parameters(), strict=True):
        assert torch.equal(masters.masters[other], one)
        assert torch.equal(other, one.bfloat16())
        assert other.grad is None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RoundedSquares(Squares):
    """`Squares` of a model whose weights are in bf16."""

    def sums(self, model: nn.Module, batch, *, generator: torch.Generator) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return Squares.sums(self, model, batch, generator=generator)


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_run_in_bf16_goes_on_bit_for_bit_from_safetensors_and_json(
    tmp_path: Path, average: float | None
) -> None:
    objective = RoundedSquares(noise=0.1)
    recipe = dataclasses.replace(RECIPE, weights="bf16", objective=objective, average=average, save_every=1)
    torch.manual_seed(0)
    run(straight := linear().bfloat16(), recipe)
    torch.manual_seed(0)
    halves = run_until(recipe, tmp_path, 3)
    assert halves == 3
    (*_, last) = checkpoints(tmp_path)
    assert {path.suffix for path in last.iterdir()} == {".safetensors", ".json"}
    assert read_manifest(last).keys() >= {"step", "recipe_hash", "num_steps", "num_processes", "versions"}
    torch.manual_seed(99)
    reports = run(resumed := linear().bfloat16(), recipe, folder=tmp_path, resume=True)
    assert [report.step for report in reports] == [4, 5, 6]
    assert torch.equal(straight.weight, resumed.weight)


def run_until(recipe, folder: Path, step: int) -> int:
    from deeptalk.training.loop import train

    reports = train(linear().bfloat16(), recipe=recipe, batches=Stream(), folder=folder)
    for report in reports:
        if report.step == step:
            reports.close()
            return report.step
    return 0


def test_generators_survive_being_tensors() -> None:
    import random

    import numpy as np

    random.gauss(0, 1)
    np.random.standard_normal()
    states = generator_states(torch.Generator().manual_seed(5))
    (again,) = _unpacked(dict(_packed([states])))
    assert again["python"][1:] == (list(states["python"][1]), states["python"][2])
    assert torch.equal(again["numpy"][1], states["numpy"][1])
    assert again["numpy"][2:] == states["numpy"][2:]
    assert torch.equal(again["loop"], states["loop"])
    assert torch.equal(again["torch"], states["torch"])


def test_a_stage_that_does_not_fit_is_refused_with_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(1_000, 1_000, bias=False)
    assert memory.least_bytes(model, RECIPE) == 16_000_000
    assert memory.least_bytes(model, dataclasses.replace(RECIPE, weights="bf16")) == 16_000_000
    small = dataclasses.replace(RECIPE, weights="bf16", optim=AdamW8bit(lr=0.1))
    assert memory.least_bytes(model, small) == 6_000_000
    monkeypatch.setattr(memory, "device_bytes", lambda device: 15_000_000)
    with pytest.raises(ConfigError, match=r"'squares' needs at least 0\.0 GiB on cpu.*zero_stage 3.*bf16"):
        memory.check_memory(model, RECIPE, device=torch.device("cpu"), num_processes=1)
    memory.check_memory(model.requires_grad_(False), RECIPE, device=torch.device("cpu"), num_processes=1)


def test_a_disk_that_may_run_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(1_000, 1_000)
    assert memory.disk_shortage(model, RECIPE, tmp_path / "new" / "run") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    assert "may run full: 3 checkpoints" in memory.disk_shortage(model, RECIPE, tmp_path / "new" / "run")


FULL = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from dataclasses import replace
from torch import nn
from test_loop import RECIPE, Stream
from deeptalk.errors import CheckpointError
from deeptalk.training.checkpoint import newest_checkpoint, read_progress
from deeptalk.training.loop import train

class Wide(nn.Linear):
    def forward(self, x):
        return super().forward(x)[..., :1]

folder = Path(sys.argv[1])
reports = train(Wide(3, 60_000), recipe=replace(RECIPE, save_every=1), batches=Stream(), folder=folder)
next(reports)  # 60,000 x 4 x 3 numbers: almost 3 MB of the 4
try:
    next(reports)
except CheckpointError as error:
    print(error)
assert read_progress(newest_checkpoint(folder)).step == 1
recipe = replace(RECIPE, save_every=1)
rest = train(Wide(3, 60_000), recipe=recipe, batches=Stream(), folder=folder, resume=True, keep_going=True)
assert [report.step for report in rest] == [2, 3, 4, 5, 6]
assert read_progress(newest_checkpoint(folder)).step == 1
assert sorted(p.name for p in folder.iterdir()) == ["latest", "step-00000001"]
"""


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """On a file system of 4 MB, mounted where this process alone sees it."""
    mount = f"mount -t tmpfs -o size=4m tmpfs {tmp_path}"
    user = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*user, mount], capture_output=True).returncode:
        pytest.skip("no file system of one's own can be mounted here")
    script = FULL.format(tests=str(Path(__file__).parent))
    command = f'{mount} && exec {sys.executable} -c "$0" {tmp_path}'
    finished = subprocess.run([*user, command, script], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "step-00000002 can't be written" in finished.stdout
    assert "No space left" in finished.stdout or "ENOSPC" in finished.stdout or "28" in finished.stdout
    assert "step-00000001 is there to go on from" in finished.stdout
    assert finished.stderr.count("Training goes on without.") == 5


class Spoilt(BatchStream[int, list[int]]):
    """Every tenth sample can't be used."""

    def _size(self, draw: Draw) -> int:
        return 1

    def _make(self, draw: Draw, generator) -> int:
        if draw.number % 10 == 0:
            raise DataError("unreadable")
        return draw.number

    def _collate(self, samples: list[int]):
        return Stream().__next__()


def spoilt() -> Spoilt:
    return Spoilt(MixturePlan(sizes=(100,), weights=(1.0,), seed=0), batch_size=400)


def test_too_many_bad_samples_end_the_run_and_are_counted() -> None:
    recipe = dataclasses.replace(RECIPE, max_bad_fraction=0.05)
    stream = spoilt()
    with pytest.raises(DataError, match=r"more than 5\.00% of the samples can't be used .*unreadable"):
        run(linear(), recipe, stream)
    assert stream.bad_fraction() > 0.05
    again = spoilt()
    again.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert again.bad_fraction() == stream.bad_fraction()
    reports = run(linear(), dataclasses.replace(RECIPE, max_bad_fraction=0.2), spoilt())
    assert reports[-1].rejected["unreadable"] > 0
    with pytest.raises(ConfigError, match="max_bad_fraction"):
        dataclasses.replace(RECIPE, max_bad_fraction=2.0)


def test_a_step_that_is_not_finite_names_its_samples(caplog: pytest.LogCaptureFixture) -> None:
    class Named(Stream):
        last = ("clip-7", "clip-9")

    with caplog.at_level(logging.WARNING):
        run(linear(), stream=Named(bad=(1,)))
    assert "step 2 skipped: loss nan" in caplog.text
    assert "samples: clip-7, clip-9" in caplog.text


def test_settings_that_came_later_are_in_no_hash() -> None:
    plain = RECIPE.to_dict()
    assert not plain.keys() & {"weights", "recompute", "max_bad_fraction"}
    changed = dataclasses.replace(RECIPE, weights="bf16")
    assert changed.hash != RECIPE.hash
    assert dataclasses.replace(RECIPE, max_bad_fraction=0.5).hash == RECIPE.hash
    assert RECIPE.makes_the_same_as(plain)
    assert not changed.makes_the_same_as(plain)
    assert changed.makes_the_same_as(changed.to_dict())
    assert RECIPE.makes_the_same_as({**plain, "accumulate": 7}, but=("accumulate",))


def test_the_work_of_masked_stages_counts_what_tokens_use() -> None:
    model = DeepTalk(DeepTalkConfig.tiny())
    shape = model.backbone.layers
    free = work_of(model, Routing())
    table = torch.arange(shape.num_experts).expand(shape.num_moe_layers, -1) < shape.experts_per_token
    model.split(table)
    assert work_of(model, Routing()).num_active == pytest.approx(free.num_active)
    for group in ("audio", "text"):
        assert work_of(model, Routing(text=group, audio=group)).num_active == pytest.approx(free.num_active)
    model.requires_grad_(False)
    assert work_of(model, Routing()).num_active_trained == 0


def test_8_bit_states_without_their_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ConfigError, match=r"install deeptalk\[8bit\]"):
        AdamW8bit(lr=0.1).build(linear())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchao") is None, reason="needs deeptalk[8bit]: make test-large")
def test_8_bit_states_learn_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, weights="bf16", objective=RoundedSquares(), optim=AdamW8bit(lr=0.05, clip_norm=100.0)
    )
    first = run(straight := linear().bfloat16(), recipe)
    assert first[-1].loss < first[0].loss
    run_until(recipe, tmp_path, 3)
    assert len(run(resumed := linear().bfloat16(), recipe, folder=tmp_path, resume=True)) == 3
    assert torch.equal(straight.weight, resumed.weight)
