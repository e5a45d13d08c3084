"""Samples that can't be used: left out, counted by what is wrong with them, and survived."""

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from own_recipes import SPOKEN, TINY_JOINT
from own_room import furnish

from deeptalk.data.dataset import DialogueBatches
from deeptalk.streams import Batch
from deeptalk.training.checkpoint import newest_checkpoint, read_progress
from deeptalk.training.loop import train
from deeptalk.training.run import open_stage
from deeptalk.training.stage import Places
from deeptalk.training.stage_dialogue import DialogueStage
from deeptalk.training.trainable import freeze_all_but

NUM_SAMPLES = 233
BAD = (
    "unreadable audio",
    "speech empty",
    "speech not finite",
    "sample rate out of range",
    "too long",
    "unreadable codes",
    "recording missing",
)
"""Every one of them once: 3 % of the samples."""
RECIPE = dataclasses.replace(
    TINY_JOINT,
    name="spoilt",
    starts_from=("own",),
    mixture=(SPOKEN,),
    partition=None,
    accumulate=1,
    batch_size=2_048,
    max_bad_fraction=0.05,
)


def spoil(data: Path) -> None:
    """Dialogues of which one in every way can't be used."""
    generator = np.random.default_rng(1)
    soundfile.write(data / "sounds/good.wav", generator.uniform(-0.3, 0.3, 4_800), 16_000)
    (data / "sounds/unreadable audio.flac").write_bytes(b"\xff" * 100)
    soundfile.write(data / "sounds/speech empty.wav", np.zeros(0), 16_000)
    soundfile.write(data / "sounds/speech not finite.wav", np.full(4_800, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(data / "sounds/sample rate out of range.wav", np.zeros(4_800), 4_000)
    sounds = {path.stem: path.name for path in (data / "sounds").iterdir()}
    sounds["recording missing"] = "recording missing.wav"
    rows = []
    for number in range(NUM_SAMPLES):
        bad = BAD[number] if number < len(BAD) else ""
        answer: dict[str, Any] = {"role": "assistant", "text": "yes", "speaker": "slt", "order": "breadth"}
        answer["codes"] = generator.integers(0, 32, (4, 7)).tolist()
        if bad == "unreadable codes":
            answer["codes"] = "nowhere.npy"
        if bad == "too long":
            answer["text"] = "yes " * 500
        audio = f"sounds/{sounds.get(bad, 'good.wav')}"
        question = {"role": "user", "text": "what", "audio": audio, "duration": 0.3}
        rows.append({"id": f"d{number}", "messages": [question, answer]})
    (data / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class OnceRound(DialogueBatches):
    """In a round every sample is drawn once; the third batch hears numbers that are not finite."""

    num_made = 0

    def _collate(self, samples: list[Any]) -> Batch:
        self.num_made += 1
        batch = super()._collate(samples)
        assert len(batch.grid)
        if self.num_made != 3:
            return batch
        assert batch.mel is not None
        return dataclasses.replace(batch, mel=torch.full_like(batch.mel, float("nan")))


def test_each_bad_sample_is_counted_by_its_fault_and_one_bad_batch_moves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    furnish(tmp_path)
    spoil(tmp_path / "data")
    stage = open_stage(RECIPE, Places(root=tmp_path, data=tmp_path / "data"))
    assert isinstance(stage, DialogueStage)
    stream = stage.batches(rank=0, world_size=1)
    assert isinstance(stream, DialogueBatches)
    rounds = OnceRound(stream.sources, stream.context, batch_size=2_048, seed=0, round_size=NUM_SAMPLES)
    num_steps = rounds.num_batches_per_epoch() - 1  # one was of the sample alone that is too long
    assert num_steps > 4
    freeze_all_but(stage.model, RECIPE.trains)
    recipe = dataclasses.replace(RECIPE, num_steps=num_steps, save_every=1, max_bad_steps=2)
    with caplog.at_level(logging.WARNING):
        given: Any = {"recipe": recipe, "batches": rounds, "objective": stage.objective}
        reports = list(train(stage.model, folder=tmp_path / "run", **given))
    assert reports[-1].rejected == Counter(BAD)
    for number, reason in enumerate(BAD):
        assert f"d{number} can't be used: {reason}" in caplog.text
    assert [report.skipped for report in reports] == [0, 0, *(1 for _ in reports[2:])]
    assert all(parameter.isfinite().all() for parameter in stage.model.parameters())
    last = newest_checkpoint(tmp_path / "run")
    assert last is not None
    (position,) = read_progress(last).data
    assert position["rejects"] == Counter(BAD)
    assert read_progress(last).num_skipped == 1


def test_one_percent_of_bad_samples_more_ends_the_run_in_one_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from deeptalk.cli import app

    furnish(tmp_path)
    spoil(tmp_path / "data")
    recipes = tmp_path / "recipes.py"
    recipes.write_text("from test_bad_samples import RECIPE\nSPOILT = RECIPE\n")
    given = ["train", "spoilt", "--recipes", str(recipes), "--root", str(tmp_path)]
    result = CliRunner().invoke(app, [*given, "--set", "max_bad_fraction=0.001"])
    assert result.exit_code == 2
    assert "more than 0.10% of the samples can't be used" in " ".join(result.output.split())
