"""Launched by test_launched.py: trains the tiny stages of `own_recipes.py` and prints their losses as JSON.

launched_stages.py ROOT [--stages N] [--die-after STEP] [--bf16] [--expert-parallel N]
"""

import dataclasses
import json
import os
import signal
import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from accelerate import PartialState
from own_recipes import STAGES, TINY_PREFERENCE
from preference_pairs import write_pairs

from deeptalk.training.run import run_stage


def main() -> None:
    """The first stages, every process with its share of a step's micro-batches."""
    parser = ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--stages", type=int, default=len(STAGES))
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--expert-parallel", type=int, default=1)
    given = parser.parse_args()
    losses = {}
    for recipe in STAGES[: given.stages]:
        if given.bf16:
            recipe = dataclasses.replace(recipe, weights="bf16", precision="bf16")
        losses[recipe.name] = []
        if recipe.name == TINY_PREFERENCE.name:
            with PartialState().main_process_first():
                if PartialState().is_main_process:
                    write_pairs(given.root / recipe.starts_from[0] / "model", given.root / "data")
        for report in run_stage(recipe, root=given.root, shared=True, expert_parallel=given.expert_parallel):
            losses[recipe.name].append(report.loss)
            if report.step == given.die_after:
                os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(losses), flush=True)


if __name__ == "__main__":
    main()
