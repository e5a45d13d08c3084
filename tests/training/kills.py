"""A run that is killed at random times, many of them while it saves, ends as one that nobody has touched.

    python tests/training/kills.py --kills 50 --in-saves 20 --out benchmarks/results/kills.json

Each try is a forked process that goes on with the run (`resume`) until it is killed or done. A kill counts as
one in a save when the save's unfinished folder is what it leaves.
"""

import json
import os
import platform
import random
import signal
import sys
import time
import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).parent))
from own_recipes import TINY_JOINT
from own_room import furnish

from deeptalk.training.checkpoint import checkpoints
from deeptalk.training.recipe import Recipe
from deeptalk.training.run import run_stage

# everything at once: noise from generators, an average of the weights, mixed sources, a save at every step
RECIPE = replace(
    TINY_JOINT,
    name="killed",
    starts_from=("own",),
    objective=replace(TINY_JOINT.objective, code_noise=0.3),
    evaluation=TINY_JOINT.mixture[:1],
    eval_batches=1,
    eval_every=7,
    average=0.9,
    save_every=1,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the kills did: tries that ended by one, those that left an unfinished save, and the hashes."""

    num_steps: int
    kills: int
    kills_in_saves: int
    sha256: dict[str, str]
    expected: dict[str, str]

    @property
    def is_equal(self) -> bool:
        """Whether every file of the result and of the last checkpoint is what it would have been."""
        return self.sha256 == self.expected


def run_kills(folder: Path, *, kills: int, in_saves: int, num_steps: int, seed: int = 0) -> Outcome:
    """Train the recipe undisturbed, and again with so many kills, of which some fall into saves."""
    recipe = replace(RECIPE, num_steps=num_steps)
    roots = [folder / name for name in ("whole", "killed")]
    for root in roots:
        root.mkdir(parents=True)
        furnish(root)
    assert _wait(_try(recipe, roots[0])) == 0
    chance = random.Random(seed)
    done = saved = 0
    while done < kills or saved < in_saves:
        wants_save = saved < in_saves
        child = _try(recipe, roots[1])
        is_killed, is_in_save = _kill(child, roots[1] / recipe.name / "run", chance, wants_save)
        done, saved = done + is_killed, saved + is_in_save
        if not is_killed:
            break
    assert _wait(_try(recipe, roots[1])) == 0
    expected, found = (_hashes(root / recipe.name) for root in roots)
    return Outcome(num_steps=num_steps, kills=done, kills_in_saves=saved, sha256=found, expected=expected)


def _try(recipe: Recipe, root: Path) -> int:
    """A process that trains until it is done; its status is 0 then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads; here are none
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        random.seed(0)  # a fork seeds it by chance
        for _ in run_stage(recipe, root=root):
            pass
        status = 0
    finally:
        os._exit(status)


def _kill(child: int, run: Path, chance: random.Random, wants_save: bool) -> tuple[bool, bool]:
    """Kill a process in its first save, later or while it starts; whether it was, and in a save."""
    before = _unfinished(run)
    if wants_save or chance.random() < 0.8:
        _until(lambda: bool(_unfinished(run) - before) or _is_over(child))
        time.sleep(chance.uniform(0, 0.006 if wants_save else 0.5))
    else:
        time.sleep(chance.uniform(0, 1.0))
    if _is_over(child):
        return False, False
    os.kill(child, signal.SIGKILL)
    _wait(child)
    return True, bool(_unfinished(run) - before)


def _unfinished(run: Path) -> set[tuple[str, int]]:
    """Saves that are under way, or were when they were killed; told apart by their inodes."""
    found = set()
    for path in run.glob(".step-*.unfinished"):
        with suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_ino))
    return found


def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.0005)


_OVER: dict[int, int] = {}


def _is_over(child: int) -> bool:
    if child not in _OVER:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            _OVER[child] = os.waitstatus_to_exitcode(status)
    return child in _OVER


def _wait(child: int) -> int:
    while not _is_over(child):
        time.sleep(0.01)
    return _OVER[child]


def _hashes(folder: Path) -> dict[str, str]:
    """Of the weights that a run has made, and of all files of its last checkpoint."""
    last = checkpoints(folder / "run")[-1]
    files = [folder / "model/model.safetensors", *(p for p in sorted(last.iterdir()))]
    hashes = {}
    for path in files:
        with path.open("rb") as file:
            hashes[str(path.relative_to(folder))] = file_digest(file, "sha256").hexdigest()
    return hashes


def main() -> None:
    """Kill, and say whether it mattered; 1 if it did."""
    parser = ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--in-saves", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    memory = Path("/dev/shm")  # a disk would wait for each of thousands of files
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        outcome = run_kills(Path(folder), kills=given.kills, in_saves=given.in_saves, num_steps=given.steps)
    told = {"is_equal": outcome.is_equal, **asdict(outcome)}
    told |= {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    text = json.dumps(told, indent=1)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")
    enough = outcome.kills >= given.kills and outcome.kills_in_saves >= given.in_saves
    sys.exit(0 if outcome.is_equal and enough else 1)


if __name__ == "__main__":
    main()
