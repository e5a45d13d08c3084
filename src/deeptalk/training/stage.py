"""A recipe, opened: its model, its batches, and what is kept of it. One class per objective implements it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from deeptalk.errors import CheckpointError, DataError
from deeptalk.model.folder import TOKENIZER
from deeptalk.training.checkpoint import put_back
from deeptalk.training.objective import Objective


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where a run finds things: the data, and the folder that holds a folder for each recipe."""

    root: Path
    data: Path

    def run(self, recipe: str) -> Path:
        """Checkpoints and metrics of a recipe."""
        return self.root / recipe / "run"

    def result(self, recipe: str) -> Path:
        """The weights that a recipe has made."""
        return self.root / recipe / "model"

    def need(self, recipe: str) -> Path:
        """The result of an earlier stage; `CheckpointError` where it is missing."""
        folder = put_back(self.result(recipe))
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is missing; train the recipe {recipe!r} first.")
        return folder

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of the data; `DataError` where it is missing."""
        path = self.data / TOKENIZER
        if not path.is_file():
            raise DataError(f"{path}: no such tokenizer; make the data first (`deeptalk prepare --help`).")
        return path


class Progress(Protocol):
    """Is told how far something is that takes long before a stage can train."""

    def __call__(self, name: str, done: int, total: int, /) -> None:
        """So much of it is done."""
        ...


def silent(name: str, done: int, total: int, /) -> None:
    """Tells nobody."""


class SizedBatches(Protocol):
    """Endless batches that know how many of them are an epoch."""

    def __next__(self) -> Any:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        ...

    def num_batches_per_epoch(self, source: int = 0) -> int:
        """Batches of this process in which the source is seen once."""
        ...


class Stage(Protocol):
    """One recipe, opened."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        ...

    def batches(self, *, rank: int, world_size: int) -> SizedBatches:
        """This process's share of the training data."""
        ...

    def held_out(self) -> Sequence[Any]:
        """Batches for evaluation, always the same."""
        ...

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write the stage's result."""
        ...
