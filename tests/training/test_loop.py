"""The loop on a small linear task whose every number can be worked out."""

import copy
import dataclasses
import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.training import states
from deeptalk.training.checkpoint import (
    checkpoints,
    newest_checkpoint,
    put_back,
    read_progress,
    write_folder,
)
from deeptalk.training.evaluate import evaluate
from deeptalk.training.loop import DivergedError, StepReport, train
from deeptalk.training.metrics import MetricsWriter, read_metrics
from deeptalk.training.objective import Measure, Task, Term, weighted_means
from deeptalk.training.optim import AdamW
from deeptalk.training.recipe import Recipe, Source
from deeptalk.training.schedule import Cosine


@dataclass(frozen=True)
class Rows:
    inputs: Tensor
    targets: Tensor

    def to(self, device: object) -> "Rows":
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Squares:
    """Squared error per row, with dropout noise from the loop's generator and the global one."""

    noise: float = 0.0

    @property
    def terms(self) -> tuple[Term, ...]:
        return (Term(name="square", weight=1.0), Term(name="empty", weight=1.0))

    def num_positions(self, batch: Rows) -> int:
        return len(batch.inputs)

    def counts(self, batch: Rows) -> Tensor:
        return torch.tensor([float(len(batch.inputs)), 0.0])

    def sums(self, model: nn.Module, batch: Rows, *, generator: torch.Generator) -> Tensor:
        noise = torch.rand(batch.inputs.shape, generator=generator) + torch.rand(batch.inputs.shape)
        output = model(batch.inputs + self.noise * noise).squeeze(-1)
        return torch.stack([(output - batch.targets).square().sum(), output.new_zeros(())])

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        return weighted_means(self.terms, sums, counts)

    def measures(self, model: nn.Module, batch: Rows) -> dict[str, Measure]:
        return {"rows": Measure(total=float(len(batch.inputs)), count=1.0)}


class Stream:
    """Random rows; `bad` steps hold a NaN."""

    def __init__(self, sizes: tuple[int, ...] = (4,), bad: tuple[int, ...] = ()) -> None:
        self.sizes, self.bad, self.position = sizes, bad, 0

    def __next__(self) -> Rows:
        generator = torch.Generator().manual_seed(self.position)
        size = self.sizes[self.position % len(self.sizes)]
        inputs = torch.randn(size, 3, generator=generator)
        if self.position in self.bad:
            inputs[0, 0] = float("nan")
        self.position += 1
        return Rows(inputs, inputs @ torch.tensor([1.0, -2.0, 0.5]))

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


STATES = "states-00000-00000.safetensors"
RECIPE = Recipe(
    name="squares",
    paper="none",
    objective=Squares(),
    optim=AdamW(lr=0.05, clip_norm=100.0),
    trains=("*",),
    mixture=(Source(manifest="rows", task="fit"),),
    schedule=Cosine(warmup_fraction=0.2),
    batch_size=4,
    num_steps=6,
    save_every=3,
    max_bad_steps=3,
)


def linear() -> nn.Module:
    model = nn.Linear(3, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def run(
    model: nn.Module, recipe: Recipe = RECIPE, stream: Stream | None = None, **rest: object
) -> list[StepReport]:
    return list(train(model, recipe=recipe, batches=stream or Stream(), **rest))


def test_the_loss_falls_and_the_reports_say_so():
    recipe = dataclasses.replace(RECIPE, num_steps=200)
    reports = run(model := linear(), recipe)
    assert [report.step for report in reports] == list(range(1, 201))
    assert reports[-1].loss < 0.05 * reports[0].loss
    assert set(reports[0].losses) == {"square"}  # a term that counts nothing is left out
    assert model.weight.detach().squeeze().tolist() == pytest.approx([1.0, -2.0, 0.5], abs=0.2)
    assert reports[0].lr == pytest.approx(0.05 / 40)


def test_counts_over_accumulation_equal_one_big_batch():
    micro, whole = linear(), linear()
    pieces = Stream(sizes=(1, 5))
    joined = [next(pieces) for _ in range(2)]
    batch = Rows(torch.cat([r.inputs for r in joined]), torch.cat([r.targets for r in joined]))

    class Whole(Stream):
        def __next__(self) -> Rows:
            return batch

    (first,) = run(micro, dataclasses.replace(RECIPE, num_steps=1, accumulate=2), Stream(sizes=(1, 5)))
    (second,) = run(whole, dataclasses.replace(RECIPE, num_steps=1), Whole())
    assert first.loss == pytest.approx(second.loss, rel=1e-6)
    assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-6)
    torch.testing.assert_close(micro.weight, whole.weight)


@pytest.mark.parametrize(("average", "start_share"), [(None, 0.0), (0.9, 0.0), (0.9, 0.25)])
def test_six_steps_equal_three_and_three_more(tmp_path: Path, average: float | None, start_share: float):
    objective = Squares(noise=0.1)
    recipe = dataclasses.replace(RECIPE, objective=objective, average=average, start_share=start_share)
    torch.manual_seed(0)
    run(straight := linear(), recipe)

    torch.manual_seed(0)
    halves = train(linear(), recipe=recipe, batches=Stream(), folder=tmp_path)
    for _ in range(3):
        next(halves)
    halves.close()
    torch.manual_seed(99)  # the checkpoint must bring back the global generators too
    reports = run(resumed := linear(), recipe, folder=tmp_path, resume=True)
    assert [report.step for report in reports] == [4, 5, 6]
    assert torch.equal(straight.weight, resumed.weight)
    assert torch.equal(straight.bias, resumed.bias)


def test_resume_refuses_another_recipe(tmp_path: Path):
    run(linear(), folder=tmp_path)
    other = dataclasses.replace(RECIPE, optim=AdamW(lr=0.01))
    with pytest.raises(CheckpointError, match="another recipe"):
        run(linear(), other, folder=tmp_path, resume=True)
    # how often a run saves changes no weight, so it may change
    run(linear(), dataclasses.replace(RECIPE, save_every=1), folder=tmp_path, resume=True)


def test_only_the_last_two_checkpoints_are_kept(tmp_path: Path):
    run(linear(), dataclasses.replace(RECIPE, save_every=1), folder=tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005", "step-00000006"]


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    reports = run(model := linear(), stream=Stream(bad=(1, 3)))
    assert [report.skipped for report in reports] == [0, 1, 1, 2, 2, 2]
    assert model.weight.isfinite().all()


def test_what_the_data_leave_out_is_reported():
    class Picky(Stream):
        def state_dict(self) -> dict[str, object]:
            return {"position": self.position, "rejects": {"odd": self.position // 2}}

    counts = [report.rejected["odd"] for report in run(linear(), stream=Picky())]
    assert counts == [0, 1, 1, 2, 2, 3]
    assert all(report.rejected == {} for report in run(linear()))


def test_too_many_bad_steps_in_a_row_end_the_run():
    with pytest.raises(DivergedError, match="3 steps in a row"):
        run(linear(), stream=Stream(bad=(1, 2, 3)))


def test_a_crash_while_saving_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = dataclasses.replace(RECIPE, save_every=1)
    reports = train(linear(), recipe=recipe, batches=Stream(), folder=tmp_path)
    next(reports)
    monkeypatch.setattr(states, "save_file", lambda *_: (_ for _ in ()).throw(OSError("power is gone")))
    with pytest.raises(CheckpointError, match=r"power is gone\); step-00000001 is there to go on from"):
        next(reports)
    monkeypatch.undo()
    (last,) = checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert read_progress(last).step == 1
    assert len(run(linear(), recipe, folder=tmp_path, resume=True)) == 5


def test_a_folder_is_replaced_whole(tmp_path: Path):
    target = tmp_path / "result"
    for text in ("old", "new"):
        write_folder(target, lambda path, text=text: (path / "file").write_text(text) and None)
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_folder_whose_replacement_was_stopped_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target, rename = tmp_path / "result", Path.rename

    def write(text: str) -> None:
        write_folder(target, lambda path: (path / "file").write_text(text) and None)

    def stop(path: Path, to: Path) -> Path:
        if path.name == ".result.unfinished":
            raise OSError("power is gone")
        return rename(path, to)

    write("old")
    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(OSError, match="power"):
        write("new")
    monkeypatch.undo()
    assert not target.exists()
    assert (put_back(target) / "file").read_text() == "old"
    assert (put_back(target) / "file").read_text() == "old"
    write("newer")
    assert (target / "file").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    assert not put_back(tmp_path / "nothing").exists()


def test_metrics_of_a_resumed_run_are_rewritten_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run" / "metrics.jsonl"
    metrics = MetricsWriter(path)
    for step in (1, 2, 3):
        metrics.write({"step": step})
    before = path.read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("power is gone")))
    with pytest.raises(OSError, match="power"):
        MetricsWriter(path, resume_step=2)
    assert path.read_text() == before
    monkeypatch.undo()
    MetricsWriter(path, resume_step=2)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_an_interruption_saves_and_ends(tmp_path: Path):
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    reports = train(linear(), recipe=RECIPE, batches=Stream(), folder=tmp_path)
    next(reports)
    signal.raise_signal(signal.SIGINT)
    last = list(reports)
    assert [report.step for report in last] == [2]
    assert last[0].is_interrupted
    assert read_progress(checkpoints(tmp_path)[-1]).step == 2
    assert signal.getsignal(signal.SIGINT) == before


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run(straight := linear(), folder=tmp_path)
    before, last = checkpoints(tmp_path)
    for name in (STATES, "generators.safetensors", "progress.json"):
        kept = (last / name).read_bytes()
        (last / name).write_bytes(kept[:40])
        caplog.clear()
        assert newest_checkpoint(tmp_path) == before
        assert f"{name} is not what the manifest says" in caplog.text
        (last / name).write_bytes(kept)
    (last / STATES).unlink()
    reports = run(resumed := linear(), folder=tmp_path, resume=True)
    assert [report.step for report in reports] == [4, 5, 6]
    assert torch.equal(straight.weight, resumed.weight)

    for path in checkpoints(tmp_path):
        (path / "generators.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole .*generators\.safetensors.*--anew"):
        run(linear(), folder=tmp_path, resume=True)


def test_a_checkpoint_of_the_first_format_is_gone_on_with(tmp_path: Path):
    """It had no manifest, and a model and an optimiser that were held whole were stored so."""
    recipe = dataclasses.replace(RECIPE, objective=Squares(noise=0.1))
    run(straight := linear(), recipe, folder=tmp_path)
    before, last = checkpoints(tmp_path)
    shutil.rmtree(last)
    (before / "manifest.json").unlink()
    stored = load_file(before / STATES)
    save_file({name: stored[f"{name}|weight"] for name in ("weight", "bias")}, before / "model.safetensors")
    moments = {
        place: {part: stored[f"{name}|{part}"] for part in ("step", "exp_avg", "exp_avg_sq")}
        for place, name in enumerate(("weight", "bias"))
    }
    groups = recipe.optim.build(linear()).state_dict()["param_groups"]
    torch.save({"state": moments, "param_groups": groups}, before / "optimizer.pt")
    torch.save(states._unpacked(load_file(before / "generators.safetensors")), before / "generators.pt")
    for name in (STATES, "buffers.safetensors", "generators.safetensors"):
        (before / name).unlink()
    state = json.loads((before / "progress.json").read_text()) | {"format_version": 1}
    (before / "progress.json").write_text(json.dumps(state))
    assert len(run(resumed := linear(), recipe, folder=tmp_path, resume=True)) == 3
    assert torch.equal(straight.weight, resumed.weight)

    shutil.rmtree(checkpoints(tmp_path)[-1])
    (before / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        run(linear(), recipe, folder=tmp_path, resume=True)
    (before / "progress.json").write_text(json.dumps(state | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="99"):
        run(linear(), recipe, folder=tmp_path, resume=True)


class Sometimes(nn.Module):
    """Of its two halves the second is used where a number is above zero: not in all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = linear(), linear()

    def forward(self, inputs: Tensor) -> Tensor:
        output = self.always(inputs)
        return output + self.sometimes(inputs) if inputs[0, 1] > 0 else output


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_a_part_that_some_steps_pass_by_goes_on_bit_for_bit(tmp_path: Path, weights: str):
    recipe = dataclasses.replace(RECIPE, weights=weights, precision=weights, save_every=1)
    dtype = torch.bfloat16 if weights == "bf16" else torch.float32
    run(straight := Sometimes().to(dtype), recipe)
    for step in range(1, 6):
        folder = tmp_path / str(step)
        reports = train(Sometimes().to(dtype), recipe=recipe, batches=Stream(), folder=folder)
        for _ in range(step):
            next(reports)
        reports.close()
        run(resumed := Sometimes().to(dtype), recipe, folder=folder, resume=True)
        assert torch.equal(straight.always.weight, resumed.always.weight)
        assert torch.equal(straight.sometimes.weight, resumed.sometimes.weight)
    assert not torch.equal(straight.sometimes.weight, torch.zeros(1, 3))


def test_an_interruption_in_the_last_step_still_gives_the_average(tmp_path: Path):
    recipe = dataclasses.replace(RECIPE, num_steps=2, average=0.9)
    run(straight := linear(), recipe)
    reports = train(model := linear(), recipe=recipe, batches=Stream())
    next(reports)
    signal.raise_signal(signal.SIGINT)
    (last,) = list(reports)
    assert not last.is_interrupted
    assert torch.equal(model.weight, straight.weight)


def test_a_result_holds_a_share_of_the_weights_that_it_began_with():
    trained = dataclasses.replace(RECIPE, average=0.9)
    torch.manual_seed(3)
    start = nn.Linear(3, 1)
    run(alone := copy.deepcopy(start), trained)
    run(blended := copy.deepcopy(start), dataclasses.replace(trained, start_share=0.25))
    assert not torch.equal(alone.weight, start.weight)
    torch.testing.assert_close(blended.weight, 0.75 * alone.weight + 0.25 * start.weight)
    for wrong in ({"start_share": 1.0}, {"start_share": -0.1}, {"start_share": 0.5, "average": None}):
        with pytest.raises(ConfigError, match="start_share is a share"):
            dataclasses.replace(trained, **wrong)


def test_evaluation_runs_on_its_steps_and_adds_batches():
    recipe = dataclasses.replace(RECIPE, eval_every=4)
    held_out = [Rows(torch.zeros(2, 3), torch.ones(2)), Rows(torch.zeros(6, 3), torch.zeros(6))]
    reports = run(linear(), recipe, evaluate=lambda task, _: evaluate(task, held_out))
    assert [report.step for report in reports if report.evaluation] == [4, 6]
    fresh = evaluate(Task(linear(), Squares()), held_out)
    assert fresh["loss"] == pytest.approx(2 / 8)
    assert fresh["rows"] == 4.0
