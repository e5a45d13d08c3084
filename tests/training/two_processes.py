"""Run by torchrun from test_distributed.py: trains the linear task of test_loop.py and saves the weights."""

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from test_loop import RECIPE, Squares, Stream, linear

from deeptalk.training.checkpoint import checkpoints
from deeptalk.training.engine import build_accelerator
from deeptalk.training.loop import train


class Share(Stream):
    """Every second batch of the stream, beginning with the process's own."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(sizes=(1, 5))
        self.position, self.world_size = rank, world_size

    def __next__(self) -> object:
        batch = super().__next__()
        self.position += self.world_size - 1
        return batch


def main(folder: Path) -> None:
    """Three steps, then a resumed run of three more."""
    accelerator = build_accelerator()
    rank, world_size = accelerator.process_index, accelerator.num_processes
    assert world_size == 2
    assert accelerator.device.type == "cpu"
    losses: list[float] = []
    model: nn.Module = linear()
    for resume in (False, True):
        model = linear()
        run = train(
            model,
            recipe=RECIPE,
            objective=Squares(),
            batches=Share(rank, world_size),
            folder=folder / "run",
            resume=resume,
            accelerator=accelerator,
        )
        for report in run:
            losses.append(report.loss)
            if report.step == 3 and not resume:
                run.close()
                break
    if accelerator.is_main_process:
        torch.save({"weight": model.weight.detach(), "losses": losses}, folder / "result.pt")
        assert checkpoints(folder / "run")
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
