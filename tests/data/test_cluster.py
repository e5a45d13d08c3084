"""The processes of a Ray cluster make shards: on one machine, and a worker is killed."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from deeptalk.data.cluster import HERE, RayWorkers
from deeptalk.data.shards import Shard, make_shards, plan_shards
from deeptalk.errors import ConfigError, DataError
from deeptalk.files import write_text


def write(shard: Shard) -> None:
    """Notes who makes it, each time anew."""
    with (shard.path.parent / f"made-{shard.path.stem}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    write_text(shard.path, "".join(shard.items))
    write_text(shard.index, "[{}]")


def dies_once(shard: Shard) -> None:
    note = shard.path.parent / "died"
    if shard.path.stem.startswith("00001") and not note.exists():
        note.touch()
        write_text(shard.path, "half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    write(shard)


def dies(shard: Shard) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cannot(shard: Shard, reason: str) -> None:
    raise DataError(reason)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    shards = plan_shards(tmp_path, "a", size=1, mark="", suffix=".txt")
    with pytest.raises(ConfigError, match=r"pip install 'deeptalk\[ray\]'"):
        make_shards(shards, write, workers=RayWorkers(HERE))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayWorkers]:
    ray = pytest.importorskip("ray", reason="deeptalk[ray] is not installed")
    here = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", here)  # workers import this file
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield RayWorkers(HERE)
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
class TestCluster:
    def test_the_shard_of_a_lost_worker_is_made_again(self, cluster: RayWorkers, tmp_path: Path) -> None:
        shards = plan_shards(tmp_path / "out", "abcdefg", size=2, mark="x", suffix=".txt")
        told: list[tuple[int, int]] = []
        number = make_shards(
            shards, dies_once, workers=cluster, progress=lambda done, total: told.append((done, total))
        )
        assert (number, told[-1]) == (4, (4, 4))
        assert (tmp_path / "out" / "died").exists()
        assert [shard.path.read_text() for shard in shards] == ["ab", "cd", "ef", "g"]
        makers = [(tmp_path / "out" / f"made-{shard.path.stem}").read_text().split() for shard in shards]
        assert all(len(pids) == 1 for pids in makers)  # nothing twice
        assert str(os.getpid()) not in {pid for pids in makers for pid in pids}
        assert make_shards(shards, cannot, workers=cluster) == 0

    def test_workers_that_always_die_end_in_one_line(self, cluster: RayWorkers, tmp_path: Path) -> None:
        shards = plan_shards(tmp_path, "a", size=1, mark="", suffix=".txt")
        with pytest.raises(DataError, match="workers were lost 3 times before any finished one of 1 shards"):
            make_shards(shards, dies, workers=cluster)

    def test_a_mistake_comes_back_as_it_was(self, cluster: RayWorkers, tmp_path: Path) -> None:
        shards = plan_shards(tmp_path, "ab", size=1, mark="", suffix=".txt")
        with pytest.raises(DataError, match=r"^no such codec$"):
            make_shards(shards, partial(cannot, reason="no such codec"), workers=cluster)
