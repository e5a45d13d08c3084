"""What a run knows survives its end: load, partition, place in the data, generators, moments, to the byte."""

import dataclasses
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from own_recipes import TINY_AUDIO_EXPERTS
from own_room import furnish

from deeptalk.errors import DeepTalkError
from deeptalk.training.checkpoint import newest_checkpoint
from deeptalk.training.engine import build_accelerator
from deeptalk.training.launch import groups_of
from deeptalk.training.loop import _Run
from deeptalk.training.objective import Task
from deeptalk.training.run import METRICS, open_stage, run_stage
from deeptalk.training.stage import Places
from deeptalk.training.trainable import freeze_all_but

RECIPE = dataclasses.replace(
    TINY_AUDIO_EXPERTS,
    starts_from=("own",),
    objective=dataclasses.replace(TINY_AUDIO_EXPERTS.objective, code_noise=0.3),
    average=0.9,
)
MEASURED = ("load.json", "partition.json")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A room with a run of stage 2.1 that was left after two of its four steps."""
    root = tmp_path_factory.mktemp("left")
    furnish(root)
    reports = run_stage(RECIPE, root=root)
    for report in reports:
        if report.step == 2:
            break
    reports.close()
    return root


@pytest.fixture
def run(left: Path, tmp_path: Path) -> Path:
    """The folder of that run, for one test."""
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    return tmp_path / RECIPE.name / "run"


def digests(folder: Path, names: tuple[str, ...] | None = None) -> dict[str, str]:
    return {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.name in names if names is not None else path.name != "manifest.json")
    }


def test_what_is_read_and_written_again_has_the_same_bytes(run: Path, tmp_path: Path) -> None:
    checkpoint, measured = newest_checkpoint(run), digests(run, MEASURED)
    assert checkpoint is not None
    assert len(measured) == 2
    places = Places(root=tmp_path, data=tmp_path / "data")
    stage = open_stage(RECIPE, places)
    freeze_all_but(stage.model, RECIPE.trains)
    torch.manual_seed(99)
    accelerator = build_accelerator()
    resumed = _Run(
        Task(stage.model, stage.objective, precision=RECIPE.precision),
        recipe=RECIPE,
        asked=RECIPE,
        batches=stage.batches(rank=0, world_size=1),
        accelerator=accelerator,
        groups=groups_of(accelerator),
        start=checkpoint,
    )
    resumed.save(tmp_path / "again", keep_going=False)
    again = digests(tmp_path / "again" / checkpoint.name)
    assert again == digests(checkpoint)
    assert {"generators.safetensors", "progress.json", "average.safetensors"} < again.keys()
    assert digests(run, MEASURED) == measured


def test_a_resumed_run_measures_nothing_again_and_a_lost_partition_comes_out_the_same(
    run: Path, tmp_path: Path
) -> None:
    measured, written = digests(run, MEASURED), {name: (run / name).stat().st_mtime_ns for name in MEASURED}
    list(run_stage(RECIPE, root=tmp_path))
    assert {name: (run / name).stat().st_mtime_ns for name in MEASURED} == written
    for name in MEASURED:
        (run / name).unlink()
    open_stage(RECIPE, Places(root=tmp_path, data=tmp_path / "data"))
    assert digests(run, MEASURED) == measured


def test_a_damaged_partition_ends_the_run_in_one_line(run: Path, tmp_path: Path) -> None:
    whole = (run / "partition.json").read_text()
    (run / "partition.json").write_text(whole[:40])
    with pytest.raises(DeepTalkError, match=r"partition\.json"):
        next(run_stage(RECIPE, root=tmp_path))
    (run / "partition.json").write_text(whole)
    assert len(list(run_stage(RECIPE, root=tmp_path))) == 2


def test_a_log_that_cant_be_written_ends_the_run_in_one_line_or_is_left_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from deeptalk.training.metrics import MetricsWriter

    def full(writer: MetricsWriter, values: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MetricsWriter, "write", full)
    with pytest.raises(DeepTalkError, match=rf"{METRICS} can't be written .*No space left"):
        next(run_stage(RECIPE, root=tmp_path))
    assert len(list(run_stage(RECIPE, root=tmp_path, keep_going=True))) == 2
    assert caplog.text.count("Training goes on without.") == 2
